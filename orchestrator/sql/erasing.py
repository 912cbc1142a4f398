"""The statements that erase what ended sagas knew: rows, statuses and times stay, as does who asked for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, case, delete, insert, select, update

from orchestrator.instance import SagaStatus
from orchestrator.rising_ids import new_id
from orchestrator.sql.purging import in_lots, pending
from orchestrator.sql.tables import (
    in_schema,
    saga_audit,
    saga_event,
    saga_history,
    saga_instance,
    saga_item,
    saga_search,
    saga_signal,
    saga_state,
    saga_step,
    saga_unmatched,
)

ERASED: Final = '{"erased": true}'
"""What stands where a state, a message or an item was."""


def erase(
    connection: Connection, saga_ids: Sequence[UUID], reason: str, by: str, *, schema: str | None = None
) -> dict[UUID, str | None]:
    """Erase these and their children; say of each why it was refused, empty if it was not, None where there is none.

    What has ended, and has nothing to be told, ended for good: no parent of it lives that could order it back.
    """
    found = _with_children(connection, saga_ids, schema)
    told = pending(connection, list(found), schema)
    refused = {one: _why_not(one, found, told) if one in found else None for one in saga_ids}
    going = [one for one in saga_ids if refused[one] == ""]
    blank = [one for one, row in found.items() if one in going or row.root_id in going]
    for some in in_lots(blank):
        _blank(connection, some, schema)
    entries = dict.fromkeys(blank, "") | {one: why for one, why in refused.items() if why}
    _note(connection, entries, found, reason, by, schema)
    return refused


def _note(
    connection: Connection,
    entries: Mapping[UUID, str],
    found: Mapping[UUID, Any],
    reason: str,
    by: str,
    schema: str | None,
) -> None:
    asked = {"at": datetime.now(UTC), "action": "erase", "by": by, "reason": reason}
    rows = [
        {"id": new_id(), "saga_id": one, "before": found[one].status, "after": found[one].status, "refused": why}
        for one, why in entries.items()
    ]
    if rows:
        connection.execute(insert(in_schema(saga_audit, schema)), [row | asked for row in rows])


def _with_children(connection: Connection, saga_ids: Sequence[UUID], schema: str | None) -> Mapping[UUID, Any]:
    saga = in_schema(saga_instance, schema).c
    columns = (saga.id, saga.status, saga.root_id)
    either = saga.id.in_(saga_ids) | saga.root_id.in_(saga_ids)
    rows = connection.execute(select(*columns).where(either).order_by(saga.id).with_for_update())
    return {row.id: row for row in rows}


def _why_not(saga_id: UUID, found: Mapping[UUID, Any], told: set[UUID]) -> str:
    row = found[saga_id]
    if row.root_id is not None:
        return f"it is a child of saga {row.root_id}, where what it knew came from. Erase that one"
    for one in (row, *(child for child in found.values() if child.root_id == saga_id)):
        name = "it" if one is row else f"its child {one.id}"
        if not SagaStatus(one.status).terminal:
            return f"{name} is {one.status}, and only what has ended can be erased"
        if one.id in told:
            return f"something is still to be told to {'it' if one is row else name}. Try again later"
    return ""


def _blank(connection: Connection, ids: Sequence[UUID], schema: str | None) -> None:
    saga = in_schema(saga_instance, schema)
    values = {"state": ERASED, "error_text": _if_any(saga.c.error_text, ""), "revision": saga.c.revision + 1}
    connection.execute(update(saga).where(saga.c.id.in_(ids)).values(values))
    step = in_schema(saga_step, schema)
    messages = {"body": _if_any(step.c.body, ERASED), "reply": _if_any(step.c.reply, ERASED)}
    signal = in_schema(saga_signal, schema)
    aside = case((signal.c.error != "", "erased"), else_="")  # empty would mean that it is still to be told
    for table, blank in (
        (step, {**messages, "error_text": "", "send_error": ""}),
        (in_schema(saga_item, schema), {"item": ERASED}),
        (in_schema(saga_state, schema), {"state": ERASED}),
        (signal, {"body": ERASED, "error": aside}),
        (in_schema(saga_history, schema), {"text": ""}),
        (in_schema(saga_unmatched, schema), {"body": b"", "properties": "{}"}),
    ):
        connection.execute(update(table).where(table.c.saga_id.in_(ids)).values(blank))
    event, search = in_schema(saga_event, schema), in_schema(saga_search, schema)
    connection.execute(update(event).where(event.c.consumed_by.in_(ids)).values(body=ERASED))
    connection.execute(delete(search).where(search.c.saga_id.in_(ids)))


def _if_any(column: ColumnElement[str | None], blank: str) -> ColumnElement[str | None]:
    return case((column.is_not(None), blank), else_=None)
