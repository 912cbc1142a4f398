"""Which message a line of the log is about.

    handler.addFilter(MessageIds())      # then %(ids)s, or %(message_id)s, %(saga_id)s ... in its format
    service.use(Logged())                # a line for each delivery: what became of it, and how long it took

`saga run`, `run` and `run_services` add the ids by themselves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from messaging import envelope as wire
from messaging.current_trace import current_trace
from messaging.envelope import Envelope
from messaging.middleware import DeliverNext, Middleware, Settled
from messaging.transport import Delivery

logger = logging.getLogger(__name__)

handled_now: Final[ContextVar[Envelope | None]] = ContextVar("handled_now", default=None)
"""The message whose handling this code is part of, in handlers, middleware, and threads they run in."""

IDS: Final = ("message_id", "correlation_id", "causation_id", "saga_id", "saga_step", "attempt", "trace_id")
"""What `MessageIds` sets on a record; each is empty where there is none."""

about_now: Final[ContextVar[Callable[[], Mapping[str, str]] | None]] = ContextVar("about_now", default=None)
"""Gives further ids, some of `IDS`, of what this code is about; called only when a line is written."""


@contextmanager
def about(**ids: str) -> Generator[None]:
    """Have what is logged in this block carry these ids, which are some of `IDS`, beside those of a message."""
    outer = about_now.get()
    token = about_now.set(lambda: {**(outer() if outer else {}), **ids})
    try:
        yield
    finally:
        about_now.reset(token)


def trace_id_of(traceparent: str) -> str:
    """The id of the trace that a W3C `traceparent` names; empty if it names none."""
    return traceparent[3:35] if traceparent.count("-") >= 3 else ""


def ids_of(envelope: Envelope) -> dict[str, str]:
    """The ids of a message, by the names of `IDS`."""
    return {
        "message_id": envelope.message_id,
        "correlation_id": envelope.correlation_id,
        "causation_id": envelope.text_header(wire.CAUSATION_ID),
        "saga_id": envelope.text_header(wire.SAGA_ID),
        "saga_step": envelope.text_header(wire.SAGA_STEP),
        "attempt": str(envelope.headers.get(wire.ATTEMPT, "")),
        "trace_id": trace_id_of(envelope.text_header(wire.TRACEPARENT)),
    }


class MessageIds(logging.Filter):
    """Sets on each record the ids of the message that is being handled, and `ids`, all of them as text.

    Ids that a line brings itself, by `extra=`, stay as they are.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Set them; let every record pass."""
        envelope, further = handled_now.get(), about_now.get()
        ids = {**(ids_of(envelope) if envelope else {}), **(further() if further else {})}
        ids["trace_id"] = ids.get("trace_id") or trace_id_of(current_trace())
        for name in IDS:
            record.__dict__.setdefault(name, ids.get(name, ""))
        told = " ".join(f"{name}={value}" for name in IDS if (value := record.__dict__[name]))
        record.ids = f" [{told}]" if told else ""
        return True


class Logged(Middleware):
    """Logs a line at INFO for each delivery."""

    async def around_delivery(self, delivery: Delivery, call_next: DeliverNext) -> Settled:
        """See it through, and tell what became of it."""
        begun = time.perf_counter()
        settled = await call_next(delivery)
        took = (time.perf_counter() - begun) * 1000
        what, outcome = delivery.envelope.type or "a message", settled.outcome.value
        by_inbox = ", answered from the inbox" if settled.by_inbox else ""
        logger.info("%s in %s: %s in %.1f ms%s", what, delivery.queue, outcome, took, by_inbox)
        return settled
