"""`saga run`, with a line in a file for every message that is taken off a queue.

    python -m tests.support.recorded FILE TARGET...

For what a participant's inbox hides: copies and retries of a command.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import IO, Any

from messaging.rabbitmq import RabbitTransport
from messaging.transport import Delivery, Subscription


class _Recorded:
    """A subscription whose deliveries are written down before they are handled."""

    def __init__(self, inner: Subscription, file: IO[str]) -> None:
        self._inner, self._file = inner, file

    async def take(self, limit: int) -> list[Delivery]:
        """Take from the queue and write it down."""
        deliveries = await self._inner.take(limit)
        for delivery in deliveries:
            envelope = delivery.envelope
            facts = {"queue": delivery.queue, "message_id": envelope.message_id, "type": envelope.type}
            print(json.dumps({**facts, "headers": dict(envelope.headers)}), file=self._file, flush=True)
        return deliveries

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def main(file: str, targets: Sequence[str]) -> None:
    """Record, and run what `saga run` would."""
    from orchestrator.cli import main as saga

    plain = RabbitTransport.subscribe
    record = open(file, "a")  # noqa: SIM115 - for as long as the process lives

    async def subscribe(transport: RabbitTransport, queue: str, *, prefetch_messages: int) -> Subscription:
        inner = await plain(transport, queue, prefetch_messages=prefetch_messages)
        recorded: Any = _Recorded(inner, record)
        return recorded  # type: ignore[no-any-return]

    RabbitTransport.subscribe = subscribe  # type: ignore[assignment,method-assign]
    sys.argv = ["saga", "run", *targets]
    saga()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
