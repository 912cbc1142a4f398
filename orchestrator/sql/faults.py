"""Which database errors pass by themselves, by code and never by class."""

from __future__ import annotations

from typing import Final

from sqlalchemy.exc import DBAPIError

from messaging.outage import Fault
from messaging.sql.faults import fault_of
from orchestrator.errors import ConcurrentUpdate

# A statement or a transaction took longer than its timeout: the database is slow now.
_TIMEOUTS: Final = {"57014", "25P03", "25P04"}


def is_transient(error: BaseException) -> bool:
    """Whether the same work may succeed when it is done again as a whole.

    A missing table or right counts as well: no saga is at fault, and the operator can mend it while the
    work waits.
    """
    if isinstance(error, TimeoutError | ConcurrentUpdate):
        return True
    if isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _TIMEOUTS:
        return True
    return fault_of(error, ours=True) is not Fault.OTHER
