"""Whose fault a database error is, by its code and never by its class."""

from __future__ import annotations

from typing import Final

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from messaging.outage import Fault

_CONFLICTS: Final = {"40001", "40P01", "55P03"}
_AWAY_CLASSES: Final = ("08", "28", "3D", "53", "57P", "58")
_SQLITE_CONFLICTS: Final = {5, 6}  # busy, locked
_SQLITE_AWAY: Final = {8, 10, 13, 14}  # read only, I/O error, full, cannot open
_READ_ONLY: Final = "25006"  # the connection led to a standby


def fault_of(error: BaseException, *, ours: bool = False) -> Fault:
    """Classify an error.

    Args:
        error: what was raised.
        ours: it came out of our own statements and not out of a user's function, so that a broken socket or
            a missing table means this database and nothing else.
    """
    if isinstance(error, PoolTimeout):
        return Fault.CONFLICT
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return Fault.AWAY
        return _fault_of_driver(error.orig, ours)
    if ours:
        return Fault.AWAY if isinstance(error, OSError) else _fault_of_driver(error, ours)
    return Fault.OTHER


def _fault_of_driver(error: BaseException | None, ours: bool) -> Fault:
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str):
        return _fault_of_state(state, ours)
    code = getattr(error, "sqlite_errorcode", None)
    if isinstance(code, int):
        return _fault_of_sqlite(code & 0xFF, ours)
    # A driver that cannot connect, or whose connection broke, has no code to give.
    lost = type(error).__name__ in {"OperationalError", "InterfaceError", "ConnectionDoesNotExistError"}
    return Fault.AWAY if lost else Fault.OTHER


def _fault_of_state(state: str, ours: bool) -> Fault:
    if state in _CONFLICTS:
        return Fault.CONFLICT
    if state == _READ_ONLY or state.startswith(_AWAY_CLASSES):
        return Fault.AWAY
    if ours and state.startswith("42"):
        return Fault.AWAY  # a table is missing or not ours to use: the operator migrates, or grants
    return Fault.OTHER


def _fault_of_sqlite(code: int, ours: bool) -> Fault:
    if code in _SQLITE_CONFLICTS:
        return Fault.CONFLICT
    return Fault.AWAY if code in _SQLITE_AWAY or (ours and code == 1) else Fault.OTHER
