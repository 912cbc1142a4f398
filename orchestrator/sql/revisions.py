"""Which schema a database has, and whether this code can work with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Column, Connection, MetaData, String, Table, inspect, select

from messaging.sql.tables import tables as messaging_tables
from orchestrator.errors import SchemaMismatch
from orchestrator.sql.tables import SCHEMA_REVISION, VERSION_TABLE, metadata_in


def _messaging_metadata(schema: str | None) -> MetaData:
    return messaging_tables(schema).metadata


@dataclass(frozen=True, slots=True)
class Branch:
    """One set of migrations: a directory below `versions`, its version table, its tables, what this code needs."""

    name: str
    version_table: str
    needed: str
    metadata: Callable[[str | None], MetaData]

    def table_names(self) -> frozenset[str]:
        """The names of its tables, without a schema."""
        return frozenset(table.name for table in self.metadata(None).tables.values())

    def includes(self, _: object, name: str | None, kind: str, reflected: bool, __: object) -> bool:
        """Whether a comparison of models and database is about this branch (Alembic's `include_object`)."""
        return kind != "table" or not reflected or name in self.table_names()


BRANCHES: Final = (
    Branch("messaging", "message_schema_version", "0002", _messaging_metadata),
    Branch("orchestrator", VERSION_TABLE, SCHEMA_REVISION, metadata_in),
)


def branch_named(name: str) -> Branch:
    """Find a branch.

    Raises:
        ValueError: there is none of this name.
    """
    for branch in BRANCHES:
        if branch.name == name:
            return branch
    known = ", ".join(branch.name for branch in BRANCHES)
    raise ValueError(f"there are no migrations named {name!r}. Known: {known}")


def include_object(candidate: object, name: str | None, kind: str, reflected: bool, compare_to: object) -> bool:
    """Keep a user's own Alembic off our tables: `context.configure(include_object=include_object)`."""
    return not (kind == "table" and reflected and compare_to is None and name in _our_tables())


def _our_tables() -> frozenset[str]:
    names = frozenset(branch.version_table for branch in BRANCHES)
    return names.union(*(branch.table_names() for branch in BRANCHES))


def stored_revision(connection: Connection, branch: Branch, schema: str | None) -> str | None:
    """Which revision of a branch a database has; None if it was never migrated."""
    if not inspect(connection).has_table(branch.version_table, schema=schema):
        return None
    table = Table(branch.version_table, MetaData(), Column("version_num", String(32)), schema=schema)
    return connection.execute(select(table.c.version_num)).scalar_one_or_none()


def check_revisions(connection: Connection, *, schema: str | None = None, only: str | None = None) -> None:
    """See to it that a database has the tables this code needs.

    A newer schema is fine: what a release still uses is only removed by the next.

    Args:
        connection: of the database.
        schema: where our tables are; None is the connection's default one.
        only: `messaging`, where the tables of the bus will do.

    Raises:
        SchemaMismatch: it is missing or too old.
    """
    for branch in BRANCHES if only is None else (branch_named(only),):
        found = stored_revision(connection, branch, schema)
        if found is None or found < branch.needed:
            has = f"has no {branch.name} tables" if found is None else f"is at {branch.name} revision {found}"
            where = "" if schema is None else f" (schema {schema!r})"
            url = connection.engine.url.render_as_string(hide_password=True)
            raise SchemaMismatch(
                f"the database {url}{where} {has}, and this release needs {branch.name} revision {branch.needed}. "
                f"Run: saga migrate{'' if only is None else f' --only {only}'}"
            )
