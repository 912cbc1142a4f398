"""Asking a saga for something: a signal through the database, once for each idempotency key, and its answer."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Self, TypeAlias, cast
from uuid import UUID

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import IntegrityError

from orchestrator.bulk import FIRST_LOOK, SLOWEST_LOOK, ActionWord, action
from orchestrator.errors import ActionRefused, UnknownSaga
from orchestrator.retention import REQUESTS_KEPT
from orchestrator.signal_codec import ACTIONS, signal_to_row
from orchestrator.signals import ActionRequested
from orchestrator.sql.client_statements import ask
from orchestrator.sql.tables import in_schema, saga_request, saga_signal
from orchestrator.status import AuditRow, answer_to
from orchestrator.web.database import Database
from orchestrator.web.problems import Problem

Order: TypeAlias = tuple[UUID, ActionRequested]
"""Of which saga what is asked."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody asks of a saga."""

    action: str
    reason: str
    by: str
    step: str = ""

    def asked(self) -> ActionRequested:
        """As the core takes it.

        Raises:
            Problem: a step is named, and the action concerns the saga as a whole.
        """
        try:
            return action(cast("ActionWord", self.action), reason=self.reason, step=self.step, by=self.by)
        except ValueError as error:
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", str(error)) from error


def row_of(asked: ActionRequested) -> tuple[str, str]:
    """As it is stored as a signal: its kind and body."""
    row = signal_to_row(asked)
    assert row is not None
    return row


@dataclass(frozen=True, slots=True)
class Once:
    """A request that is one, however often it comes: its idempotency key, empty if it has none, and what it says."""

    key: str
    fingerprint: str

    @classmethod
    def of(cls, key: str, *what: str) -> Self:
        """Of a request that says this."""
        return cls(key, hashlib.sha256(json.dumps(what).encode()).hexdigest())


async def ask_once(database: Database, saga_id: UUID, wish: Wish, key: str) -> UUID:
    """Leave the signal, unless a request under this key has; returns its id either way.

    Raises:
        UnknownSaga: none has this id.
        Problem: the key belongs to a request that asked for something else.
    """
    once = Once.of(key, "ask", str(saga_id), wish.action, wish.reason, wish.step, wish.by)
    return await order_once(database, (saga_id, wish.asked()), once)


async def order_once(database: Database, order: Order, once: Once, *, anew: bool = False) -> UUID:
    """Leave the signal, unless this request has; returns its id either way.

    Args:
        database: the sagas'.
        order: of which saga what is asked.
        once: the request.
        anew: ask again what was refused.

    Raises:
        UnknownSaga: none has this id.
        Problem: the key belongs to a request that asked for something else.
    """
    saga_id, row = order[0], row_of(order[1])

    def work(connection: Connection) -> UUID:
        known = result_of(connection, once, database.schema)
        if known is not None and not (anew and _refused(connection, known, database.schema)):
            return known
        signal_id = ask(connection, [saga_id], *row, database.schema)[saga_id]
        if signal_id is None:
            raise UnknownSaga(saga_id)
        keep_result(connection, once, signal_id, database.schema, anew=anew)
        return signal_id

    try:
        return await database.write(work)
    except IntegrityError:  # two at once under one key: the other was first
        return await database.write(work)


def _refused(connection: Connection, signal_id: UUID, schema: str | None) -> bool:
    answer = answer_to(connection, signal_id, schema=schema)
    return answer is not None and answer.refused != ""


def asked_of(connection: Connection, signal_id: UUID, schema: str | None) -> UUID:
    """Of which saga something was asked.

    Raises:
        Problem: nothing was, under this id.
    """
    signal = in_schema(saga_signal, schema)
    asked = select(signal.c.saga_id).where(signal.c.id == signal_id, signal.c.kind.in_(ACTIONS))
    saga_id: UUID | None = connection.scalar(asked)
    if saga_id is None:
        raise Problem(HTTPStatus.NOT_FOUND, "unknown-action", f"nothing was asked under the id {signal_id}")
    return saga_id


def result_of(connection: Connection, once: Once, schema: str | None) -> UUID | None:
    """What a request became; None if there was none.

    Raises:
        Problem: the key belongs to a request that asked for something else.
    """
    request = in_schema(saga_request, schema)
    statement = select(request.c.fingerprint, request.c.result_id).where(request.c.key == once.key)
    row = connection.execute(statement).one_or_none() if once.key else None
    if row is None:
        return None
    if row.fingerprint != once.fingerprint:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "idempotency-key-reused",
            "this Idempotency-Key was used for another request, so nothing was done. Take a new one",
        )
    known: UUID = row.result_id
    return known


def keep_result(connection: Connection, once: Once, result: UUID, schema: str | None, *, anew: bool = False) -> None:
    """Remember it for a day, with `anew` in place of what was there; what is older is forgotten."""
    request, now = in_schema(saga_request, schema), datetime.now(UTC)
    if not once.key:
        return
    connection.execute(delete(request).where(request.c.created_at < now - REQUESTS_KEPT))
    if anew:
        connection.execute(delete(request).where(request.c.key == once.key))
    values = {"key": once.key, "fingerprint": once.fingerprint, "result_id": result, "created_at": now}
    connection.execute(insert(request), values)


async def answered(database: Database, signal_id: UUID, *, within: float) -> AuditRow | None:
    """What became of a signal; None if no engine takes it within so many seconds."""
    ends, pause = time.monotonic() + within, FIRST_LOOK
    while True:
        row = await database.read(lambda c: answer_to(c, signal_id, schema=database.schema))
        if row is not None or time.monotonic() >= ends:
            return row
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, SLOWEST_LOOK)


def refuse_if_refused(answer: AuditRow) -> None:
    """Raise what an engine refused.

    Raises:
        ActionRefused: it did.
    """
    if answer.refused:
        raise ActionRefused(answer.saga_id, answer.action, answer.refused)
