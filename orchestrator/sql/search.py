"""What sagas can be found by: written in their transactions, and searched by index; at other paths, states are read.

A field is answered from the index where the first and the last few sagas of a name are in it. So what was started
before a field was marked is found as well, by reading states, until `saga reindex` has been run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Text,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    or_,
    select,
    text,
    union,
)
from sqlalchemy.dialects import postgresql, sqlite

from orchestrator.searchable import kept_text
from orchestrator.sql.hot import named
from orchestrator.sql.tables import in_schema, saga_instance, saga_search

_LOOKED_AT: Final = 10
_NULL: Final = "null"


# -- writing


def write_search(
    connection: Connection, changes: Mapping[UUID, Iterable[tuple[str, str | None]]], schema: str | None
) -> None:
    """Keep what sagas can be found by, in one statement; one more where something is kept no longer."""
    rows = [(saga_id, *one) for saga_id, pairs in changes.items() for one in dict(pairs).items()]
    gone = [{"of_id": saga_id, "of_field": field} for saga_id, field, value in rows if value is None]
    kept = [(saga_id, field, value) for saga_id, field, value in rows if value is not None]
    if gone:
        connection.execute(_delete(schema), gone)
    if not kept:
        return
    if connection.dialect.name == "postgresql":
        ids, fields, values = map(list, zip(*kept, strict=True))
        connection.execute(_upsert_at_once(schema), {"ids": ids, "fields": fields, "values": values})
    else:
        connection.execute(_upsert_each(), [dict(zip(("saga_id", "field", "value"), row, strict=True)) for row in kept])


@lru_cache
def _delete(schema: str | None) -> Any:
    search = in_schema(saga_search, schema).c
    return delete(in_schema(saga_search, schema)).where(
        search.saga_id == bindparam("of_id"), search.field == bindparam("of_field")
    )


@lru_cache
def _upsert_at_once(schema: str | None) -> Any:
    return text(
        named(
            schema,
            "INSERT INTO {saga_search} (saga_id, field, value) SELECT v.saga_id, v.field, v.value "
            "FROM unnest(CAST(:ids AS uuid[]), CAST(:fields AS text[]), CAST(:values AS text[])) "
            "AS v(saga_id, field, value) ON CONFLICT (saga_id, field) DO UPDATE SET value = excluded.value",
        )
    )


@lru_cache
def _upsert_each() -> Any:
    into = sqlite.insert(saga_search)
    return into.on_conflict_do_update(index_elements=["saga_id", "field"], set_={"value": into.excluded.value})


# -- reading


@dataclass(frozen=True, slots=True)
class Found:
    """How sagas are found by one path."""

    path: str
    names: tuple[str, ...] | None
    """The sagas that mark it, which are those that are meant; None: none does, so all are looked at."""
    behind: tuple[str, ...] = ()
    """Those of them of which some are older than the mark."""

    @property
    def by_index(self) -> bool:
        """Whether no state has to be read."""
        return self.names is not None and not self.behind

    def notice(self) -> str:
        """What to tell whoever asked, where states are read."""
        if self.behind:
            once = "; ".join(f"saga reindex {name}" for name in self.behind)
            return f"{self.path} was not always searchable: this reads every {', '.join(self.names or ())}. Run: {once}"
        mark = f"mark it: {self.path}: Annotated[..., Searchable]"
        if "." in self.path:
            mark = "copy it into a field of the state, and mark that as Searchable"
        return f"{self.path} is not searchable: this reads every saga; {mark}"


def how_found(connection: Connection, path: str, saga: str | None, schema: str | None) -> Found:
    """Whether a path is answered from the index: one statement, or two for each name of sagas."""
    if "." in path:
        return Found(path, None)
    names = (saga,) if saga is not None else tuple(_names(connection, schema))
    ends = {name: _of_the_ends(connection, path, name, schema) for name in names}
    marking = {name: (there, looked) for name, (there, looked) in ends.items() if there}
    if not marking and any(looked for _, looked in ends.values()):
        return Found(path, None)
    return Found(path, tuple(marking), tuple(name for name, (there, looked) in marking.items() if there < looked))


def saga_names(connection: Connection, *, schema: str | None = None) -> list[str]:
    """The names of the sagas there are; skips along the index from one to the next."""
    return list(_names(connection, schema))


def _names(connection: Connection, schema: str | None) -> Iterator[str]:
    name, last = in_schema(saga_instance, schema).c.name, ""
    while (found := connection.scalar(select(func.min(name)).where(name > last))) is not None:
        yield found
        last = found


def _of_the_ends(connection: Connection, field: str, name: str, schema: str | None) -> tuple[int, int]:
    """How many of the first and the last sagas of a name have this field, and how many these are."""
    instance, search = in_schema(saga_instance, schema).c, in_schema(saga_search, schema)
    of_name = select(instance.id).where(instance.name == name).limit(_LOOKED_AT)
    ends = union(
        select(of_name.order_by(instance.id).subquery()), select(of_name.order_by(instance.id.desc()).subquery())
    ).subquery()
    on = and_(search.c.saga_id == ends.c.id, search.c.field == field)
    there, looked = connection.execute(
        select(func.count(search.c.field), func.count()).select_from(ends.outerjoin(search, on))
    ).one()
    return there, looked


def condition(
    saga_id: ColumnElement[UUID], found: Found, wanted: str, dialect: str, schema: str | None
) -> ColumnElement[bool]:
    """That a saga has this text at a path, values as parameters."""
    if found.by_index:
        search = in_schema(saga_search, schema).c
        return saga_id.in_(select(search.saga_id).where(search.field == found.path, search.value == kept_text(wanted)))
    instance = in_schema(saga_instance, schema).c
    has_it = _on_postgresql if dialect == "postgresql" else _on_sqlite
    states = select(instance.id).where(instance.id == saga_id, has_it(instance.state, found.path.split("."), wanted))
    return (states if found.names is None else states.where(instance.name.in_(found.names))).exists()


def _on_postgresql(state: ColumnElement[str], path: list[str], wanted: str) -> ColumnElement[bool]:
    body = cast(state, postgresql.JSON)
    same = func.json_extract_path_text(body, *path) == wanted
    return same if wanted != _NULL else or_(same, func.json_typeof(func.json_extract_path(body, *path)) == _NULL)


def _on_sqlite(state: ColumnElement[str], path: list[str], wanted: str) -> ColumnElement[bool]:
    where = ".".join(["$", *(f'"{name}"' for name in path)])
    kind = func.json_type(state, where)
    # SQLite's own values of true and false are 1 and 0.
    word = case((kind.in_(("true", "false", _NULL)), kind), else_=cast(func.json_extract(state, where), Text))
    return word == wanted
