"""A participant and subscriber in FastStream: nothing of ours is installed beside it."""

import os

from faststream import FastStream
from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange, RabbitQueue, RabbitResponse
from pydantic import BaseModel

PREFIX = os.environ["PREFIX"]
broker = RabbitBroker(os.environ["AMQP_URL"])
app = FastStream(broker)


class Charge(BaseModel):
    order: str
    cents: int


class Charged(BaseModel):
    receipt: str


class OrderClosed(BaseModel):
    order: str


@broker.subscriber(RabbitQueue(f"{PREFIX}payments", durable=True))
async def charge(command: Charge) -> Charged | RabbitResponse:
    if command.cents > 1000:
        headers = {"outcome": "failure", "error-code": "card-refused"}
        return RabbitResponse({"reason": "too much", "limit_cents": 1000}, headers=headers)
    return Charged(receipt=f"receipt of {command.order}")


@broker.subscriber(
    RabbitQueue(f"{PREFIX}audit", durable=True, routing_key="order-closed"),
    RabbitExchange(f"{PREFIX}events", type=ExchangeType.TOPIC, durable=True),
)
async def closed(event: OrderClosed) -> None:
    print("closed:", event.order, flush=True)


@app.after_startup
async def tell() -> None:
    print("peer is ready", flush=True)


if __name__ == "__main__":
    import asyncio

    asyncio.run(app.run())
