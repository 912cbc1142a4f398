"""Place an order, pay for it, and see how it ends: `python -m create_order.place_order --help`.

Needs the two databases and nothing else: no broker, and the shop may even be down and come later.
"""

from __future__ import annotations

import argparse
import asyncio
from datetime import timedelta
from uuid import uuid4

from sqlalchemy.ext.asyncio import create_async_engine

from create_order.database import Sessions, Trouble
from create_order.sagas import CreateOrderSaga, OrderState
from create_order.services import pay
from orchestrator import OrchestratorSettings, SagaClient, SagaStatus, StartedSaga


async def place(client: SagaClient, order: OrderState, *troubles: Trouble) -> StartedSaga:
    """Start the saga of an order; a second call with the same order id starts nothing."""
    async with Sessions.begin() as session:
        session.add_all(troubles)
    return await client.start(CreateOrderSaga, order, key=str(order.order_id))


async def pay_when_asked(client: SagaClient, started: StartedSaga, order: OrderState) -> None:
    """Pay as soon as the shop asks for it; give up when the order has ended without."""
    while not await pay(order.order_id):
        status = (await client.get(started.id)).status
        if status is not SagaStatus.RUNNING:
            return
        await asyncio.sleep(0.1)


async def main(arguments: argparse.Namespace) -> None:
    order = OrderState(order_id=uuid4(), customer=arguments.customer, sku=arguments.sku, amount_cents=arguments.cents)
    troubles = [
        Trouble(order_id=order.order_id, command=command, kind=kind, attempts=99)
        for command, kind in (trouble.split(":") for trouble in arguments.trouble)
    ]
    engine = create_async_engine(OrchestratorSettings().url)
    client = SagaClient(engine)
    started = await place(client, order, *troubles)
    print(f"order {order.order_id} is saga {started.id}")
    if not arguments.unpaid:
        await pay_when_asked(client, started, order)
    row = await client.wait(started.id, timeout=timedelta(seconds=arguments.seconds))
    state = await client.state(CreateOrderSaga, started.id)
    print(f"{row.status.value}: {state.tracking or state.refusal or row.error_text}")
    await engine.dispose()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Place an order with the shop, and pay for it.")
    parser.add_argument("--customer", default="ann", help="ann, or poor-bob, who has credit for 5.00")
    parser.add_argument("--sku", default="lamp", help="lamp, or out-of-stock")
    parser.add_argument("--cents", type=int, default=1200, help="what it costs")
    parser.add_argument("--unpaid", action="store_true", help="do not pay")
    parser.add_argument("--seconds", type=float, default=60, help="how long to wait for the end")
    parser.add_argument(
        "--trouble", action="append", default=[], metavar="COMMAND:KIND", help="such as ship-order:refuse"
    )
    asyncio.run(main(parser.parse_args()))
