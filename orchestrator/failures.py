"""What fails alike: sagas grouped by saga, step and error, numbers and ids aside. Reads only."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, select

from orchestrator.ids import earliest_id
from orchestrator.instance import SagaStatus
from orchestrator.views import FailedRow, view_of

MOST_FAILURES: Final = 10_000
_DIGITS: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|0x[0-9a-f]+|\d+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Sagas that failed alike: the same saga, step, reason and error, numbers and ids aside."""

    id: str
    """The fingerprint of what they have in common."""
    saga: str
    step: str
    reason: str
    """Why they are blocked; empty if they turned back."""
    error_code: str
    error_text: str
    """Of the newest of them."""
    count: int
    first: datetime
    last: datetime
    saga_ids: Sequence[UUID]


def failures(
    connection: Connection,
    *,
    saga: str | None = None,
    blocked_only: bool = True,
    since: datetime | None = None,
    schema: str | None = None,
) -> list[FailureGroup]:
    """Group sagas by what went wrong, the largest group first; the newest `MOST_FAILURES` are looked at.

    With `blocked_only` those that need an operator, else those too that turned back by themselves; with `since`
    those that were started then or later.
    """
    view = view_of(FailedRow, schema).c
    where: list[ColumnElement[bool]] = []
    if saga is not None:
        where.append(view.saga == saga)
    if blocked_only:
        where.append(view.status == SagaStatus.BLOCKED.value)
    if since is not None:
        where.append(view.saga_id >= earliest_id(since))
    statement = select(view_of(FailedRow, schema)).where(*where).order_by(view.saga_id.desc()).limit(MOST_FAILURES)
    rows = sorted((FailedRow(*row) for row in connection.execute(statement)), key=_kind)
    groups = [_group(kind, list(alike)) for kind, alike in groupby(rows, key=_kind)]
    return sorted(groups, key=lambda one: -one.count)


def _kind(row: FailedRow) -> tuple[str, str, str, str, str]:
    text = _DIGITS.sub("#", (row.error_text or "")[:500])
    step = row.blocked_step or row.failed_step or ""
    return row.saga, step, row.blocked_reason or "", row.error_code or "", text


def _group(kind: tuple[str, str, str, str, str], rows: list[FailedRow]) -> FailureGroup:
    saga, step, reason, code, _ = kind
    since = [row.since for row in rows]
    text = max(rows, key=lambda row: row.since).error_text or ""
    group_id = hashlib.sha256("\0".join(kind).encode()).hexdigest()[:16]
    ids = [row.saga_id for row in rows]
    return FailureGroup(group_id, saga, step, reason, code, text, len(rows), min(since), max(since), ids)
