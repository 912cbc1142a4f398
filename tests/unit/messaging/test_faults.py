"""Whose fault a database error is."""

from __future__ import annotations

import sqlite3

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from messaging.outage import Fault
from messaging.sql import fault_of


class DriverError(Exception):
    def __init__(self, sqlstate: str | None = None, sqlite_errorcode: int | None = None) -> None:
        super().__init__(sqlstate, sqlite_errorcode)
        if sqlstate:
            self.sqlstate = sqlstate
        if sqlite_errorcode:
            self.sqlite_errorcode = sqlite_errorcode


def wrapped(error: Exception, *, invalidated: bool = False) -> DBAPIError:
    return DBAPIError("", {}, error, connection_invalidated=invalidated)


@pytest.mark.parametrize(
    ("error", "in_handler", "in_ours"),
    [
        (wrapped(DriverError("40001")), Fault.CONFLICT, Fault.CONFLICT),
        (wrapped(DriverError("40P01")), Fault.CONFLICT, Fault.CONFLICT),
        (wrapped(DriverError("55P03")), Fault.CONFLICT, Fault.CONFLICT),
        (wrapped(DriverError("57P01")), Fault.AWAY, Fault.AWAY),
        (wrapped(DriverError("08006")), Fault.AWAY, Fault.AWAY),
        (wrapped(DriverError("53300")), Fault.AWAY, Fault.AWAY),
        (wrapped(DriverError("25006")), Fault.AWAY, Fault.AWAY),
        (wrapped(DriverError("23505")), Fault.OTHER, Fault.OTHER),
        (wrapped(DriverError("25P02")), Fault.OTHER, Fault.OTHER),
        (wrapped(DriverError("57014")), Fault.OTHER, Fault.OTHER),
        (wrapped(DriverError("42P01")), Fault.OTHER, Fault.AWAY),
        (wrapped(DriverError("23505"), invalidated=True), Fault.AWAY, Fault.AWAY),
        (wrapped(DriverError(sqlite_errorcode=sqlite3.SQLITE_BUSY)), Fault.CONFLICT, Fault.CONFLICT),
        (wrapped(DriverError(sqlite_errorcode=sqlite3.SQLITE_BUSY_SNAPSHOT)), Fault.CONFLICT, Fault.CONFLICT),
        (wrapped(DriverError(sqlite_errorcode=sqlite3.SQLITE_FULL)), Fault.AWAY, Fault.AWAY),
        (wrapped(DriverError(sqlite_errorcode=sqlite3.SQLITE_ERROR)), Fault.OTHER, Fault.AWAY),
        (IntegrityError("", {}, DriverError(sqlite_errorcode=2067)), Fault.OTHER, Fault.OTHER),
        (OperationalError("", {}, type("OperationalError", (Exception,), {})()), Fault.AWAY, Fault.AWAY),
        (PoolTimeout(), Fault.CONFLICT, Fault.CONFLICT),
        (ConnectionRefusedError(), Fault.OTHER, Fault.AWAY),
        (TimeoutError(), Fault.OTHER, Fault.AWAY),
        (DriverError("57P03"), Fault.OTHER, Fault.AWAY),
        (ValueError(), Fault.OTHER, Fault.OTHER),
    ],
)
def test_an_error_is_sorted_by_its_code_and_by_where_it_came_from(
    error: Exception, in_handler: Fault, in_ours: Fault
) -> None:
    assert (fault_of(error), fault_of(error, ours=True)) == (in_handler, in_ours)
