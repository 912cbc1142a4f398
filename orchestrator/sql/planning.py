"""Keeping PostgreSQL from a plan that its statistics make look cheap, and that is not."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection, func, select

_AVOIDED: Final = {"enable_seqscan": "off", "max_parallel_workers_per_gather": "0", "jit": "off"}


ROW_BY_ROW: Final = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off"}
"""Settings of an engine's own connections, whose statements find a batch's rows one by one.

A plan is kept as long as its connection: one made while tables were small or never analyzed would read all of them.
"""


@contextmanager
def along_indexes(connection: Connection) -> Generator[None]:
    """Have statements read tables along their indexes, by one process; two statements on PostgreSQL, none elsewhere.

    For those that read what is live: it lies together, as it was begun together. The planner takes it to be strewn over
    a table that is mostly what has ended, and would read all of that, with helpers and compiled code that take longer
    to begin than the reading takes.
    """
    with _avoiding(connection, _AVOIDED):
        yield


@contextmanager
def in_order_of_index(connection: Connection) -> Generator[None]:
    """Have statements take rows in the order of an index, and look up what belongs to each; else the same.

    For those that want the first thousands of many: the planner would read all, sort, and leave most of it.
    """
    with _avoiding(connection, {**_AVOIDED, **ROW_BY_ROW, "enable_bitmapscan": "off", "enable_sort": "off"}):
        yield


@contextmanager
def _avoiding(connection: Connection, avoided: Mapping[str, str]) -> Generator[None]:
    if connection.dialect.name != "postgresql":
        yield
        return
    before = connection.execute(select(*(func.current_setting(name) for name in avoided))).one()
    _set(connection, avoided)
    yield
    _set(connection, dict(zip(avoided, before, strict=True)))


def _set(connection: Connection, values: Mapping[str, str]) -> None:
    """Until the transaction ends at the latest."""
    connection.execute(select(*(func.set_config(name, value, True) for name, value in values.items())))
