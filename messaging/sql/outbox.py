"""The outbox as a table, as relays read it; `messaging.sql.writing` writes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    RowMapping,
    ScalarSelect,
    bindparam,
    case,
    delete,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from messaging.envelope import Destination, Envelope
from messaging.outbox import Claimed, OutboxRow, PutOff
from messaging.sql.sessions import Sessions, in_transaction
from messaging.sql.tables import tables
from messaging.transport import Outgoing

_MAX_ERROR: Final = 1000
_SET_ASIDE: Final = timedelta(minutes=5)
"""When a row that waits for its turn is looked at again, should nobody have told that it has come."""


class SqlOutbox:
    """The outbox table behind a sessionmaker, as a relay uses it."""

    def __init__(self, sessions: Sessions, *, schema: str | None = None) -> None:
        self._sessions, self._schema = sessions, schema
        self._outbox = tables(schema).outbox

    async def claim(self, *, now: datetime, lease_until: datetime, limit: int) -> Claimed:
        """Write the lease into what is due and may leave, skipping what another relay is claiming.

        What has its turn later is set aside, so that it is looked at once and not each time. The row before it
        is locked for that: whoever deletes it afterwards finds what waits for it.
        """

        def work(session: Session) -> Claimed:
            connection = session.connection()
            due = connection.execute(self._claim_statement(now, lease_until, limit)).mappings().all()
            claimed = sorted((row for row in due if row["send_after"] == lease_until), key=lambda row: str(row["id"]))
            self._keep_due(connection, [row for row in due if row["send_after"] != lease_until], now)
            rows = claimed + self._followers(connection, claimed, limit - len(claimed))
            return Claimed([_row(row) for row in rows], more=len(due) == limit or len(rows) >= limit)

        return await in_transaction(self._sessions, work)

    def _claim_statement(self, now: datetime, lease_until: datetime, limit: int) -> Any:
        outbox = self._outbox
        # SQLite has neither row locks nor the clause: it renders without, and has one writer anyway.
        due = (
            select(outbox.c.id)
            .where(outbox.c.send_after <= now)
            .order_by(outbox.c.send_after, outbox.c.id)
            .limit(limit)
            .with_for_update(skip_locked=True, key_share=True)
        )
        first = self._first_of(outbox.c.ordering_key)
        may_leave = or_(outbox.c.ordering_key.is_(None), outbox.c.id == first)
        return (
            update(outbox)
            .where(outbox.c.id.in_(due.cte("due").select()))
            .values(send_after=case((may_leave, lease_until), else_=lease_until + _SET_ASIDE))
            .returning(*outbox.c, first.label("first_of_key"))
        )

    def _first_of(self, ordering_key: ColumnElement[Any]) -> ScalarSelect[str]:
        """The id of the row of this key whose turn it is; one look into the index."""
        of_key = self._outbox.alias("of_key")
        return (
            select(of_key.c.id)
            .where(of_key.c.ordering_key == ordering_key)
            .order_by(of_key.c.ordering_position, of_key.c.id)
            .limit(1)
            .correlate(self._outbox)
            .scalar_subquery()
        )

    def _keep_due(self, connection: Connection, set_aside: Sequence[RowMapping], now: datetime) -> None:
        """Take back what may have its turn by now: the row it should wait for is gone, or going."""
        if not set_aside:
            return
        outbox = self._outbox
        firsts = select(outbox.c.id).where(outbox.c.id.in_({row["first_of_key"] for row in set_aside}))
        locked = connection.execute(firsts.with_for_update(read=True, key_share=True, skip_locked=True))
        held = set(locked.scalars())
        if due := [row["id"] for row in set_aside if row["first_of_key"] not in held]:
            connection.execute(update(outbox).where(outbox.c.id.in_(due)).values(send_after=now))

    def _followers(self, connection: Connection, claimed: Sequence[RowMapping], room: int) -> list[RowMapping]:
        """What follows the first rows of keys. They need no lease: nobody claims them before those are gone."""
        firsts = [row["id"] for row in claimed if row["ordering_key"] is not None]
        if not firsts or room <= 0:
            return []
        outbox = self._outbox
        first = outbox.alias("first")
        position, depth = first.c.ordering_position, -(-room // len(firsts))
        statement = (
            select(outbox)
            .join(first, outbox.c.ordering_key == first.c.ordering_key)
            .where(first.c.id.in_(firsts), outbox.c.id != first.c.id)
            .where(outbox.c.ordering_position.between(position, position + depth))
            .order_by(outbox.c.ordering_position, outbox.c.id)
        )
        return list(connection.execute(statement).mappings())

    async def settle(self, sent: Sequence[str], put_off: Sequence[PutOff], *, now: datetime) -> None:
        """Delete what was confirmed, make due what waited for it, and write when the others are."""

        def work(session: Session) -> None:
            connection = session.connection()
            if sent:
                self._delete(connection, sent, now)
            if put_off:
                rows = [{"of_id": row.id, "due": row.send_after, "error": row.error[:_MAX_ERROR]} for row in put_off]
                connection.execute(self._put_off_statement(), rows)

        await in_transaction(self._sessions, work)

    def _delete(self, connection: Connection, ids: Sequence[str], now: datetime) -> None:
        outbox = self._outbox
        deleted = delete(outbox).where(outbox.c.id.in_(ids)).returning(outbox.c.ordering_key)
        keys = {key for key in connection.execute(deleted).scalars() if key is not None}
        if keys:
            first = self._first_of(bindparam("of_key", type_=outbox.c.ordering_key.type))
            due = update(outbox).where(outbox.c.id == first).values(send_after=now)
            connection.execute(due, [{"of_key": key} for key in sorted(keys)])

    def _put_off_statement(self) -> Executable:
        outbox = self._outbox
        return (
            update(outbox)
            .where(outbox.c.id == bindparam("of_id"))
            .values(
                send_after=bindparam("due"),
                last_error=bindparam("error"),
                send_attempts=outbox.c.send_attempts + 1,
            )
        )

    async def oldest(self) -> datetime | None:
        """The first by id, which rises with time; the ages of two processes' messages may be a moment apart."""
        outbox = self._outbox
        first = select(outbox.c.created_at).order_by(outbox.c.id).limit(1)
        return await in_transaction(self._sessions, lambda session: session.connection().execute(first).scalar())

    async def release(self, *, now: datetime) -> None:
        """End every lease: what claimed them is gone."""
        outbox = self._outbox
        statement = update(outbox).where(outbox.c.send_after > now).values(send_after=now)
        await in_transaction(self._sessions, lambda session: session.connection().execute(statement))


def _row(row: RowMapping) -> OutboxRow:
    envelope = Envelope(
        row["message_id"],
        row["body"].encode(),
        row["type"],
        correlation_id=row["correlation_id"],
        reply_to=row["reply_to"],
        content_type=row["content_type"],
        timestamp=row["timestamp"],
        app_id=row["app_id"],
        headers=json.loads(row["headers"]),
    )
    destination = Destination(
        row["routing_key"],
        row["exchange"],
        mandatory=row["mandatory"],
        absolute=row["absolute"],
        kind=row["exchange_kind"],
    )
    outgoing = Outgoing(envelope, destination, ordering_key=row["ordering_key"] or "")
    return OutboxRow(row["id"], outgoing, row["send_attempts"])
