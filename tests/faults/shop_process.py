"""The shop as processes, to be killed. Surroundings come in the environment; each ends on SIGTERM.

python -m tests.faults.shop_process orchestrator    the sagas
python -m tests.faults.shop_process services        the participants, SHOP_DATABASE_URL
python -m tests.faults.shop_process all             both in one process, wired as `run` wires them
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from messaging import ServiceRunner
from messaging.batches import BATCH, items_in
from messaging.envelope import Envelope
from messaging.errors import PublishError
from messaging.outbox import RelaySettings
from messaging.settings import MessagingSettings
from messaging.transport import Delivery, Outgoing, Promises, QueueSpec, Subscription, Transport
from messaging.wiring import transport_from
from orchestrator.app import Orchestrator, run
from tests.faults.shop import OrderSaga, services

logger = logging.getLogger("shop")


def _messages(envelope: Envelope) -> list[Envelope]:
    return items_in(envelope) if envelope.content_type == BATCH else [envelope]


class LoggedSubscription:
    """Writes down each delivery before it is handed over: which attempt of which order it says it is."""

    def __init__(self, inner: Subscription, log: str) -> None:
        self._inner = inner
        # Each line is one write to a file opened for appending: nothing of it is lost with the process.
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    @property
    def queue(self) -> str:
        return self._inner.queue

    @property
    def epoch(self) -> int:
        return self._inner.epoch

    async def take(self, limit: int) -> list[Delivery]:
        taken = await self._inner.take(limit)
        self._note(taken)
        return taken

    def take_nowait(self, limit: int) -> list[Delivery]:
        taken = self._inner.take_nowait(limit)
        self._note(taken)
        return taken

    def _note(self, taken: Sequence[Delivery]) -> None:
        for envelope in (one for delivery in taken for one in _messages(delivery.envelope)):
            if envelope.reply_to:
                key, attempt = envelope.text_header("idempotency-key"), envelope.headers.get("attempt")
                line = json.dumps({"key": key, "attempt": attempt, "message_id": envelope.message_id})
                os.write(self._log, f"{line}\n".encode())

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        await self._inner.ack(deliveries)

    async def retry_later(self, delivery: Delivery, after: timedelta) -> None:
        await self._inner.retry_later(delivery, after)

    async def dead_letter(self, delivery: Delivery, reason: str, detail: str = "") -> None:
        await self._inner.dead_letter(delivery, reason, detail)

    async def backlog(self) -> int:
        return await self._inner.backlog()

    async def close(self) -> None:
        await self._inner.close()


class LoggedTransport:
    """A transport whose subscriptions are logged."""

    def __init__(self, inner: Transport, log: str) -> None:
        self._inner, self._log = inner, log

    @property
    def promises(self) -> Promises:
        return self._inner.promises

    def full_name(self, queue: str) -> str:
        return self._inner.full_name(queue)

    async def open(self) -> None:
        await self._inner.open()

    async def declare(self, queues: Sequence[QueueSpec]) -> None:
        await self._inner.declare(queues)

    async def publish(self, messages: Sequence[Outgoing], *, timeout: timedelta) -> list[PublishError | None]:
        return await self._inner.publish(messages, timeout=timeout)

    async def subscribe(self, queue: str, *, prefetch_messages: int) -> Subscription:
        return LoggedSubscription(await self._inner.subscribe(queue, prefetch_messages=prefetch_messages), self._log)

    async def close(self) -> None:
        await self._inner.close()


def sessions() -> async_sessionmaker[AsyncSession]:
    url = os.environ["SHOP_DATABASE_URL"]
    pool = {} if url.startswith("sqlite") else {"pool_size": 5, "max_overflow": 3, "pool_timeout": 60}
    engine = create_async_engine(url, pool_pre_ping=True, **pool)
    return async_sessionmaker(engine, expire_on_commit=False)


async def participate() -> None:
    transport = LoggedTransport(transport_from(MessagingSettings(), app_id="shop"), os.environ["SHOP_LOG"])
    await transport.open()
    # A short lease: what a killed relay had claimed is to be sent again within a test's patience.
    relay = RelaySettings(poll=timedelta(milliseconds=100), lease=timedelta(seconds=2))
    runners = [
        ServiceRunner(service, transport, relay=relay, stop_within=timedelta(seconds=10))
        for service in services(sessions())
    ]
    for runner in runners:
        await runner.start()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    logger.info("Running the shop's services")
    await stopped.wait()
    for runner in runners:
        await runner.stop()
    await transport.close()


def main(role: str) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if role == "services":
        asyncio.run(participate())
    elif role == "orchestrator":
        run(Orchestrator([OrderSaga]))
    else:
        run(Orchestrator([OrderSaga]), *services(sessions()))


if __name__ == "__main__":
    main(sys.argv[1])
