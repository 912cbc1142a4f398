"""Sagas found by what their states say, over HTTP: what may be asked, and what is told of how it was found.

Whoever can compare a field can guess it. So where states are read, only those are whose definition is known here, and
does not call the field a secret; fields that are searchable never are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from orchestrator.errors import SearchRefused
from orchestrator.redacted import hides
from orchestrator.searchable import SearchValue, asked, asked_in_words
from orchestrator.status import SagaFilter, scanned
from orchestrator.web.problems import Problem

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from orchestrator.registry import SagaRegistry
    from orchestrator.sql.search import Found

_INVALID = (
    "where: write FIELD=VALUE, such as customer=c-17 or address.city=Bonn, once for each field: its name in the JSON "
    "of the state, of letters, digits, _ and -, with a dot before what is inside of it"
)


def read_where(where: Sequence[str] | Mapping[str, SearchValue]) -> dict[str, str]:
    """What is looked for in states.

    Raises:
        Problem: it cannot be.
    """
    try:
        return asked(where) if isinstance(where, Mapping) else asked_in_words(where)
    except SearchRefused as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", _INVALID) from error


def allowed(
    connection: Connection, which: SagaFilter, registry: SagaRegistry | None, schema: str | None
) -> tuple[SagaFilter, list[Found]]:
    """What is asked without what nobody may be told, and the paths for which states are read.

    Raises:
        Problem: nothing is left of it.
    """
    found = scanned(connection, which, schema=schema)
    if not found:
        return which, found
    if registry is None:
        raise _refused(
            "only definitions say what is secret, which are not known here. Start with --app MODULE:ATTRIBUTE, or set "
            "ORCHESTRATOR_APP"
        )
    paths = [one.path.split(".") for one in found]
    meant = [saga for saga in registry if which.saga in (None, saga.name)]
    open_here = [(saga.name, saga.version) for saga in meant if not any(hides(saga.state_type, one) for one in paths)]
    if not open_here:
        raise _refused("no definition is known here that has it and does not call it a secret")
    return replace(which, definitions=open_here), found


def refuse_scans(found: Sequence[Found]) -> None:
    """Do not read every saga again and again.

    Raises:
        Problem: that would be needed.
    """
    if found:
        raise _refused("a list that reads every saga cannot be followed. Ask now and then")


def _refused(why: str) -> Problem:
    text = f"a field that was asked for is not searchable, and {why}; or mark the field as Searchable"
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "not-searchable", text)
