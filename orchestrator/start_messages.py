"""Start a saga from another database than the orchestrator's: by a message in the outbox of one's own transaction."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload
from uuid import UUID

from pydantic import BaseModel

from messaging import envelope as wire
from messaging.current_trace import current_trace, parted
from messaging.envelope import Envelope, HeaderValue, to_queue
from messaging.transport import Outgoing
from orchestrator.definition import Saga
from orchestrator.instance import Pin, SagaInstance
from orchestrator.outgoing import APP_ID
from orchestrator.start import new_instance

if TYPE_CHECKING:
    from messaging.sql.sessions import AnySession, BlockingSession, CoroutineSession

S = TypeVar("S", bound=BaseModel)

START: Final = "saga-start:"
"""What the type of a start message begins with; then the saga's name, and after another colon its version."""
SAGA_KEY: Final = "saga-key"


@overload
def start_later(
    saga: type[Saga[S]],
    state: S,
    *,
    session: CoroutineSession,
    key: str | None = None,
    saga_id: UUID | None = None,
    installation: str = "main",
    trace: str = "",
    schema: str | None = None,
) -> Coroutine[Any, Any, UUID]: ...
@overload
def start_later(
    saga: type[Saga[S]],
    state: S,
    *,
    session: BlockingSession,
    key: str | None = None,
    saga_id: UUID | None = None,
    installation: str = "main",
    trace: str = "",
    schema: str | None = None,
) -> UUID: ...
def start_later(
    saga: type[Saga[S]],
    state: S,
    *,
    session: AnySession,
    key: str | None = None,
    saga_id: UUID | None = None,
    installation: str = "main",
    trace: str = "",
    schema: str | None = None,
) -> Coroutine[Any, Any, UUID] | UUID:
    """Have a saga started once the transaction of `session` has committed; return its id.

    The start message is a row of that database's outbox: rolled back, nothing happens. Whoever relays the outbox
    sends it, an orchestrator takes it, and however often it comes it starts one saga. What refuses it there, a key
    that another saga has say, is kept with why among the unmatched messages: `saga why ID` tells.

    With an `AsyncSession` or `AsyncConnection` it is to be awaited; with others it is done when it returns.

    Args:
        saga: its class; the orchestrator needs this version of it.
        state: what it starts with.
        session: of SQLAlchemy, or a cursor of Django, `sqlite3` or psycopg; in the transaction of the work itself.
        key: unique among the sagas of this name.
        saga_id: its id; a new one if None. The same id again starts no second saga.
        installation: the orchestrator's, as `saga doctor` names it.
        trace: W3C traceparent, and after a space tracestate; OpenTelemetry's current span if empty.
        schema: the database schema of the outbox.

    Raises:
        StateUnusable: the state, or the key, cannot be stored.
        OutboxRefused: the cursor is in no transaction, or the session is none.
    """
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

    from messaging.sql.sessions import meant
    from messaging.sql.writing import write_outgoing

    now = datetime.now(UTC)
    new = new_instance(saga, state, key, trace or current_trace(), now, saga_id=saga_id)
    message, current = start_message(new, installation), meant(session)
    if isinstance(current, (AsyncSession, AsyncConnection)):
        return _written(message, current, new.id, schema)
    write_outgoing(current, [message], schema=schema)
    return new.id


async def _written(message: Outgoing, session: CoroutineSession, saga_id: UUID, schema: str | None) -> UUID:
    from messaging.sql.writing import write_outgoing_async

    await write_outgoing_async(session, [message], schema=schema)
    return saga_id


def start_message(saga: SagaInstance, installation: str) -> Outgoing:
    """The message that starts this saga, on its way to an installation's queue of events."""
    headers: dict[str, HeaderValue] = {wire.SAGA_ID: str(saga.id), **parted(saga.trace)}
    if saga.business_key is not None:
        headers[SAGA_KEY] = saga.business_key
    envelope = Envelope(
        str(saga.id),
        saga.state.encode(),
        f"{START}{saga.pin.name}:{saga.pin.version}",
        timestamp=saga.started_at,
        app_id=APP_ID,
        headers=headers,
    )
    return Outgoing(envelope, to_queue(f"orchestrator.{installation}.events"))


def start_types(pins: Iterable[Pin]) -> set[str]:
    """The types of the start messages that somebody with these definitions can take."""
    return {name for pin in pins for name in (f"{START}{pin.name}", f"{START}{pin.name}:{pin.version}")}
