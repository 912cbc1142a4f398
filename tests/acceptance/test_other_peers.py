"""Participants and subscribers that know the wire format and have nothing of ours: FastStream, and pika alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import create_async_engine

from messaging import Bus, Command, CommandRefused, Event, Failure, Reply
from messaging.settings import MessagingSettings
from messaging.wiring import transport_from
from orchestrator import Orchestrator, Saga, SagaClient, Step
from orchestrator.app import running
from orchestrator.settings import OrchestratorSettings
from tests.support.broker import Broker
from tests.support.cached import python_with
from tests.support.programs import Programs

PEERS = Path(__file__).parent / "peers"
PACKAGES = {"with_faststream.py": "faststream[rabbit]==0.6.3", "with_pika.py": "pika==1.3.2"}


class Charged(Reply):
    receipt: str


class CardRefused(Failure):
    limit_cents: int


class Charge(Command[Charged], failures=(CardRefused,)):
    order: str
    cents: int


class OrderClosed(Event):
    order: str


class Order(BaseModel):
    order: str
    cents: int
    receipt: str = ""
    limit_cents: int = 0


class Charging(Step[Order, Charged]):
    participant = "payments"
    participant_dedupes = False
    nothing_to_undo = True

    def command(self, state: Order) -> Charge:
        return Charge(order=state.order, cents=state.cents)

    def on_reply(self, state: Order, reply: Charged) -> None:
        state.receipt = reply.receipt

    def on_failure(self, state: Order, failure: Failure) -> None:
        state.limit_cents = failure.limit_cents if isinstance(failure, CardRefused) else -1


class BuySaga(Saga[Order]):
    steps = (Charging(),)

    def on_completed(self, state: Order) -> Iterable[OrderClosed]:
        return [OrderClosed(order=state.order)]


@pytest.fixture(params=list(PACKAGES))
def peer(request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """An interpreter and the program to run with it."""
    return python_with(PACKAGES[request.param]), PEERS / request.param


@pytest.mark.timeout(400)  # the first time, packages are installed
async def test_a_peer_takes_part_in_sagas_answers_requests_and_hears_events(
    peer: tuple[Path, Path], programs_on_rabbit: Programs, amqp_url: str, prefix: str, broker: Broker, tmp_path: Path
) -> None:
    for queue in ("payments", "audit", "orchestrator.main.replies", "orchestrator.main.events"):
        broker.service_queue(prefix + queue)
    python, program = peer
    peer_program = programs_on_rabbit.start(str(python), str(program), AMQP_URL=amqp_url, PREFIX=prefix, PYTHONPATH="")
    await asyncio.to_thread(peer_program.wait_until_it_says, "peer is ready")

    database_url = f"sqlite+aiosqlite:///{tmp_path}/saga.db"
    messaging = MessagingSettings.model_validate({"broker_url": amqp_url, "prefix": prefix})
    settings = OrchestratorSettings.model_validate({"database_url": database_url})
    async with running(Orchestrator([BuySaga]), settings=settings, messaging=messaging):
        engine = create_async_engine(database_url)
        client = SagaClient(engine)
        started = [await client.start(BuySaga, Order(order=str(cents), cents=cents)) for cents in (900, 2000)]
        ended = [await client.wait(saga.id, timeout=timedelta(seconds=90)) for saga in started]
        good, refused = [await client.state(BuySaga, saga.id) for saga in started]
        await engine.dispose()
        # Here: what is still in the outbox when it ends waits there for its next start.
        await asyncio.to_thread(peer_program.wait_until_it_says, "closed: 900")

    assert [saga.status.value for saga in ended] == ["completed", "compensated"]
    assert (good.receipt, refused.limit_cents) == ("receipt of 900", 1000)

    transport = transport_from(messaging)
    await transport.open()
    async with Bus(transport) as bus:
        assert (await bus.request(Charge(order="1", cents=1), to="payments")).receipt == "receipt of 1"
        with pytest.raises(CommandRefused) as told:
            await bus.request(Charge(order="1", cents=9999), to="payments")
        assert told.value.failure == CardRefused(reason="too much", limit_cents=1000)
    await transport.close()
