"""What one three-step saga costs, part by part: microseconds of processor time, without a broker.

    python -m benchmarks.parts                                                    # on SQLite, 200 sagas at a time
    python -m benchmarks.parts --postgres postgresql://... --at-once 1 --rounds 200

Batches of sagas go through the parts of the engine and of a participant one after the other; of several rounds
the least is taken, which a busy machine disturbs little. Waiting, the broker and the database server are not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.numbers import markdown
from benchmarks.three_steps import ThreeSteps, cards, order, shipping, stock
from messaging.codec import DEFAULT_LIMITS
from messaging.handling import Handling
from messaging.inbox import Answer
from messaging.middleware import composed
from messaging.settling import reply_to_command
from messaging.transport import Delivery, Outgoing
from orchestrator.batch import Batch
from orchestrator.incoming import Reply, read_reply
from orchestrator.outgoing import command_message
from orchestrator.registry import SagaRegistry
from orchestrator.signals import DeadlinePassed, ReplyReceived
from orchestrator.sql.migrate import upgrade
from orchestrator.sql.store import SqlStore
from orchestrator.start import new_instance
from orchestrator.store import StoreTransaction
from orchestrator.store_records import SagaCommand
from tests.support.databases import fresh_database

_GRACE = timedelta(seconds=30)


class Parts:
    """The microseconds of each part for one saga, the least of all rounds."""

    def __init__(self, sagas: int) -> None:
        self.sagas = sagas
        self.least: dict[str, float] = {}
        self._round: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Generator[None]:
        """What runs in the block counts for this part, with what it took earlier in the round."""
        begun = time.process_time()
        yield
        taken = (time.process_time() - begun) / self.sagas * 1e6
        self._round[name] = self._round.get(name, 0.0) + taken

    @asynccontextmanager
    async def transaction(self, store: SqlStore) -> AsyncGenerator[StoreTransaction]:
        """A transaction, whose beginning and end are a part."""
        transaction = store.transaction()
        with self.part("engine: begin and commit"):
            tx = await transaction.__aenter__()
        yield tx
        with self.part("engine: begin and commit"):
            await transaction.__aexit__(None, None, None)

    def end_round(self) -> None:
        """Keep what is less than before."""
        self.least = {name: min(taken, self.least.get(name, taken)) for name, taken in self._round.items()}
        self._round = {}


class Participants:
    """The three services, without a queue."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        services = (stock, cards, shipping)
        self._by_name = {service.name: Handling(service, threads, composed(())) for service in services}

    async def answers(self, commands: Sequence[Outgoing], parts: Parts) -> list[Delivery]:
        """Carry out commands, and return the replies as they arrive."""
        arrived = [(one.destination.routing_key, _delivered(one)) for one in commands]
        with parts.part("participant: read, handle, answer"):
            replies = [
                reply_to_command(delivery.envelope, await self._answer(name, delivery)) for name, delivery in arrived
            ]
        return [_delivered(reply) for reply in replies if reply is not None]

    async def _answer(self, name: str, delivery: Delivery) -> Answer | None:
        handling = self._by_name[name]
        return (await handling.run(handling.read(delivery))).answer


def _delivered(message: Outgoing) -> Delivery:
    return Delivery(message.envelope, "queue", 1, 1, 1)


async def one_round(store: SqlStore, registry: SagaRegistry, services: Participants, parts: Parts) -> None:
    """Take a batch of sagas from their start to their end."""
    with parts.part("start: state and rows"):
        now = datetime.now(UTC)
        new = [new_instance(ThreeSteps, order(number), None, "", now) for number in range(parts.sagas)]
    async with parts.transaction(store) as tx:
        with parts.part("start: state and rows"):
            for saga in new:
                await tx.start(saga)
    async with parts.transaction(store) as tx:
        with parts.part("engine: lock and load"):
            locked = await tx.lock_due(registry.pins, limit=parts.sagas)
        batch = Batch(registry, locked, grace=_GRACE)
        with parts.part("engine: decide"):
            for saga_id in locked.sagas:
                batch.tell(saga_id, DeadlinePassed())
        commands = await _saved(batch, tx, parts)
    while commands:
        with parts.part("engine: compose commands"):
            messages = [command_message(command, reply_to="replies", now=now) for command in commands]
        commands = await _replies(await services.answers(messages, parts), store, registry, parts)
    parts.end_round()


async def _replies(
    deliveries: Sequence[Delivery], store: SqlStore, registry: SagaRegistry, parts: Parts
) -> list[SagaCommand]:
    with parts.part("engine: read replies"):
        read = [read_reply(delivery, DEFAULT_LIMITS) for delivery in deliveries]
    replies = [reply for reply in read if isinstance(reply, Reply)]
    async with parts.transaction(store) as tx:
        with parts.part("engine: lock and load"):
            refs, locked = await tx.lock_commands([reply.command_id for reply in replies])
        batch = Batch(registry, locked, grace=_GRACE)
        with parts.part("engine: decide"):
            for reply in replies:
                ref = refs[reply.command_id]
                told = ReplyReceived(ref.key, ref.round, ref.attempt, reply.outcome, reply.body, reply.error_code, None)
                batch.tell(ref.saga_id, told)
        return await _saved(batch, tx, parts)


async def _saved(batch: Batch, tx: StoreTransaction, parts: Parts) -> list[SagaCommand]:
    with parts.part("engine: save"):
        return await batch.save(tx)


async def measure(url: str, rounds: int, sagas: int) -> Parts:
    """Run the rounds."""
    store, registry, parts = SqlStore(url), SagaRegistry([ThreeSteps]), Parts(sagas)
    await store.open()
    try:
        with ThreadPoolExecutor(1) as threads:
            services = Participants(threads)
            for _ in range(rounds):
                await one_round(store, registry, services, parts)
    finally:
        await store.close()
    return parts


@contextmanager
def _fresh_file() -> Generator[str]:
    with tempfile.TemporaryDirectory() as folder:
        yield f"sqlite+aiosqlite:///{Path(folder) / 'parts.db'}"


def main() -> None:
    """Parse, run, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--at-once", type=int, default=200, help="sagas in a batch")
    parser.add_argument("--postgres", default="", help="a server on which a database may be made; else SQLite")
    options = parser.parse_args()
    with fresh_database(options.postgres) if options.postgres else _fresh_file() as url:
        upgrade(url)
        least = asyncio.run(measure(url, options.rounds, options.at_once)).least
    rows = [[name, round(taken)] for name, taken in least.items()] + [["all of it", round(sum(least.values()))]]
    print(markdown(["part", "µs a saga"], rows))


if __name__ == "__main__":
    main()
