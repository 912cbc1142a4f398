"""The statements that delete what has ended: the same on every database, one for each table, whatever the batch.

A tree is taken whole. First its rows are locked, so that no engine decides for any of its sagas; then statements of
their own, which see what was committed until then, look whether all have ended and nothing is pending.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import accumulate, chain
from typing import Any, Final, TypeVar
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Delete,
    Select,
    Table,
    Update,
    and_,
    delete,
    exists,
    func,
    or_,
    select,
    tuple_,
    update,
)

from orchestrator.event_starts import STARTED_NOTHING
from orchestrator.instance import Pin, SagaStatus
from orchestrator.retention import TERMINAL, EndedTree, EndedTrees, Place, Rest
from orchestrator.signal_codec import UPGRADE
from orchestrator.sql.tables import (
    in_schema,
    saga_attempt,
    saga_audit,
    saga_bulk,
    saga_bulk_item,
    saga_event,
    saga_history,
    saga_installation,
    saga_instance,
    saga_item,
    saga_key,
    saga_lock,
    saga_request,
    saga_search,
    saga_signal,
    saga_state,
    saga_step,
    saga_unmatched,
)

T = TypeVar("T")

_TERMINAL: Final = [status.value for status in TERMINAL]
_LONGEST_CLAIM: Final = timedelta(days=1)
_AT_ONCE: Final = 500
"""Ids, or keys, in one statement."""
_HANGS_ON_A_SAGA: Final = (
    *(saga_step, saga_attempt, saga_item, saga_search, saga_state, saga_signal),
    *(saga_history, saga_unmatched, saga_lock),
)


def claim_purge(connection: Connection, now: datetime, every: timedelta, schema: str | None) -> bool:
    """One statement. A claim that is far ahead is that of a clock which was wrong."""
    installation = in_schema(saga_installation, schema)
    until = installation.c.purge_at
    free = or_(until.is_(None), until <= now, until > now + every + _LONGEST_CLAIM)
    return bool(connection.execute(update(installation).where(free).values(purge_at=now + every)).rowcount)


def ended(
    status: SagaStatus, before: datetime, after: Place | None, limit: int, schema: str | None = None
) -> Select[Any, Any, Any, Any, Any, Any]:
    """First sagas that have ended so, along an index of their own."""
    saga = in_schema(saga_instance, schema).c
    which = [saga.parent_id.is_(None), saga.status == status.value, saga.ended_at < before]
    if after is not None:
        which.append(tuple_(saga.ended_at, saga.id) > (after.ended_at, after.id))
    columns = (saga.id, saga.name, saga.version, saga.fingerprint, saga.business_key, saga.ended_at)
    return select(*columns).where(*which).order_by(saga.ended_at, saga.id).limit(limit)


def lock_ended(
    connection: Connection, status: SagaStatus, before: datetime, after: Place | None, limit: int, schema: str | None
) -> EndedTrees:
    """Three statements, two more when some have children; the first passes over what others hold."""
    found = ended(status, before, after, limit, schema).with_for_update(skip_locked=True)
    roots = connection.execute(found).all()
    sizes = _sizes(connection, [row.id for row in roots], schema)
    taken = roots[: _within(limit, [1 + sizes[row.id] for row in roots])]
    children = _whole_families(connection, [row.id for row in taken], sizes, schema)
    trees = [
        EndedTree(
            status,
            row.ended_at,
            {row.id: Pin(row.name, row.version, row.fingerprint)} | children[row.id],
            None if row.business_key is None else (row.name, row.business_key),
        )
        for row in taken
        if row.id in children
    ]
    told = pending(connection, [one for tree in trees for one in tree.sagas], schema)
    going = tuple(tree for tree in trees if told.isdisjoint(tree.sagas))
    further = Place(taken[-1].ended_at, taken[-1].id) if taken and (taken != roots or len(roots) == limit) else None
    return EndedTrees(going, len(taken) - len(going), further)


def _within(limit: int, sizes: Sequence[int]) -> int:
    """How many from the first on are together no more than this; but the first, however large."""
    sums = list(accumulate(sizes))
    return max(1, sum(one <= limit for one in sums))


def _sizes(connection: Connection, roots: Sequence[UUID], schema: str | None) -> Counter[UUID]:
    """How many children each has, and they have."""
    saga = in_schema(saga_instance, schema).c
    counted = select(saga.root_id, func.count()).where(saga.root_id.in_(roots)).group_by(saga.root_id)
    return Counter({row[0]: row[1] for row in connection.execute(counted)})


def _whole_families(
    connection: Connection, roots: Sequence[UUID], sizes: Counter[UUID], schema: str | None
) -> dict[UUID, dict[UUID, Pin]]:
    """The children of each, where all of them could be locked and have ended; the others are left out."""
    families: dict[UUID, dict[UUID, Pin]] = {root: {} for root in roots}
    parents = [root for root in roots if sizes[root]]  # who has ended without children gets none any more
    if not parents:
        return families
    saga = in_schema(saga_instance, schema).c
    columns = (saga.id, saga.root_id, saga.name, saga.version, saga.fingerprint)
    over = select(*columns).where(saga.root_id.in_(parents), saga.status.in_(_TERMINAL)).order_by(saga.id)
    for row in connection.execute(over.with_for_update(skip_locked=True)):
        families[row.root_id][row.id] = Pin(row.name, row.version, row.fingerprint)
    # Again: a child that goes on may have had children until it was looked at.
    sizes = _sizes(connection, parents, schema)
    return {root: family for root, family in families.items() if len(family) == sizes[root]}


def pending(connection: Connection, saga_ids: Sequence[UUID], schema: str | None) -> set[UUID]:
    """Those of these sagas that have yet to be told something."""
    signal = in_schema(saga_signal, schema).c
    found = (select(signal.saga_id).where(signal.saga_id.in_(some), _to_be_told(signal)) for some in in_lots(saga_ids))
    return set(chain.from_iterable(connection.scalars(one) for one in found))


def _untaken(signal: Any) -> ColumnElement[bool]:
    return and_(signal.taken_at.is_(None), signal.error == "")


def _to_be_told(signal: Any) -> ColumnElement[bool]:
    """Nobody may ever have the version that an upgrade names, and of what has ended it would be refused."""
    return and_(_untaken(signal), ~signal.kind.startswith(UPGRADE))


def purge(connection: Connection, trees: Sequence[EndedTree], now: datetime, schema: str | None) -> None:
    """For each few hundred sagas one statement, in which all tables lose their rows; on SQLite one for each table."""
    saga = in_schema(saga_instance, schema)
    keys = {tree.id: tree.key for tree in trees if tree.key is not None}
    for ids in in_lots([one for tree in trees for one in tree.sagas]):
        held = [keys[one] for one in ids if one in keys]
        first = [*_remembering_ends(held, ids, now, schema), *_hanging(ids, schema), *_letting_go(ids, now, schema)]
        last = delete(saga).where(saga.c.id.in_(ids))
        if connection.dialect.name == "postgresql":
            last = last.add_cte(*(one.cte(f"part_{number}") for number, one in enumerate(first)))
            first = []
        for statement in (*first, last):
            connection.execute(statement)


def _remembering_ends(
    keys: Sequence[tuple[str, str]], ids: Sequence[UUID], now: datetime, schema: str | None
) -> Iterator[Update]:
    """A key that another saga has taken over since is left alone."""
    key, saga = in_schema(saga_key, schema), in_schema(saga_instance, schema)
    if keys:
        status = select(saga.c.status).where(saga.c.id == key.c.saga_id).scalar_subquery()
        theirs = (tuple_(key.c.name, key.c.business_key).in_(keys), key.c.saga_id.in_(ids))
        yield update(key).where(*theirs).values(purged_at=now, ended_as=status)


def _hanging(ids: Sequence[UUID], schema: str | None) -> Iterator[Delete]:
    for table in _HANGS_ON_A_SAGA:
        hanging = in_schema(table, schema)
        yield delete(hanging).where(hanging.c.saga_id.in_(ids))


def _letting_go(ids: Sequence[UUID], now: datetime, schema: str | None) -> Iterator[Delete | Update]:
    """Events that may still come again stay, as ones that nobody looks for and that go once they have expired."""
    event = in_schema(saga_event, schema)
    theirs, expired = event.c.consumed_by.in_(ids), event.c.expires_at <= now
    yield delete(event).where(theirs, expired)
    yield update(event).where(theirs, ~expired).values(wire_name="", body="", consumed_at=None, consumed_by=None)


def purge_rest(connection: Connection, rest: Rest, before: datetime, limit: int, schema: str | None) -> int:
    """Two statements, for each few hundred."""
    table, old = _old(rest, before, schema)
    (key,) = table.primary_key
    found = select(key).where(old).limit(limit).with_for_update(skip_locked=True)
    ids = list(connection.scalars(found))
    for some in in_lots(ids):
        if rest is Rest.BULKS:
            item = in_schema(saga_bulk_item, schema)
            connection.execute(delete(item).where(item.c.bulk_id.in_(some)))
        connection.execute(delete(table).where(key.in_(some)))
    return len(ids)


def _old(rest: Rest, before: datetime, schema: str | None) -> tuple[Table, ColumnElement[bool]]:
    saga = in_schema(saga_instance, schema)
    match rest:
        case Rest.EVENTS:
            event = in_schema(saga_event, schema)
            of_nobody = or_(event.c.consumed_by.is_(None), event.c.consumed_by == STARTED_NOTHING)
            return event, and_(of_nobody, event.c.expires_at < before)
        case Rest.UNMATCHED:
            unmatched = in_schema(saga_unmatched, schema)
            return unmatched, unmatched.c.arrived_at < before
        case Rest.AUDIT:
            audit = in_schema(saga_audit, schema)
            return audit, and_(audit.c.at < before, ~exists().where(saga.c.id == audit.c.saga_id))
        case Rest.BULKS:
            bulk = in_schema(saga_bulk, schema)
            return bulk, and_(bulk.c.created_at < before, bulk.c.next_at.is_(None))
        case Rest.REQUESTS:
            request = in_schema(saga_request, schema)
            return request, request.c.created_at < before
        case Rest.SIGNALS:
            signal = in_schema(saga_signal, schema)
            gone = ~exists().where(saga.c.id == signal.c.saga_id)
            return signal, and_(signal.c.arrived_at < before, _untaken(signal.c), gone)


def count_rest(connection: Connection, rest: Rest, before: datetime, *, schema: str | None = None) -> int:
    """How many rows `purge_rest` would delete. Reads only."""
    table, old = _old(rest, before, schema)
    return connection.scalar(select(func.count()).select_from(table).where(old)) or 0


def count_ended(
    connection: Connection, status: SagaStatus, before: datetime, *, schema: str | None = None
) -> tuple[int, int]:
    """How many trees, and how many sagas in them, `lock_ended` would find if it found all. Reads only."""
    root = in_schema(saga_instance, schema).alias("root")
    member, signal = in_schema(saga_instance, schema).alias("member"), in_schema(saga_signal, schema)
    told = exists().where(signal.c.saga_id == member.c.id, _to_be_told(signal.c))
    child = member.c.root_id == root.c.id
    itself = exists().where(signal.c.saga_id == root.c.id, _to_be_told(signal.c))
    goes_on = exists().where(child, or_(member.c.status.not_in(_TERMINAL), told))
    size = select(func.count()).where(child).scalar_subquery()
    going = (root.c.parent_id.is_(None), root.c.status == status.value, root.c.ended_at < before, ~itself, ~goes_on)
    trees, children = connection.execute(select(func.count(), func.coalesce(func.sum(size), 0)).where(*going)).one()
    return trees, trees + int(children)


def in_lots(ids: Sequence[T]) -> Iterator[Sequence[T]]:
    """A few hundred at a time: the parameters of a statement are bounded."""
    return (ids[first : first + _AT_ONCE] for first in range(0, len(ids), _AT_ONCE))
