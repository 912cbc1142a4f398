"""Migrations give the tables that the code describes, on both databases, and disturb nobody else's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, create_engine, inspect, make_url, text

from messaging.sql import messaging_metadata
from orchestrator.errors import SchemaMismatch
from orchestrator.sql import SqlStore, include_object
from orchestrator.sql.migrate import check, downgrade, migrations_directory, upgrade
from orchestrator.sql.revisions import BRANCHES, Branch
from orchestrator.sql.tables import metadata


def revisions(branch: str) -> list[Path]:
    return sorted((migrations_directory() / "versions" / branch).glob("0*.py"))


ALL = [f"{branch} {file.name[:4]}" for branch in ("messaging", "orchestrator") for file in revisions(branch)]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'sagas.db'}"
    return str(request.getfixturevalue("postgres_database"))


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    blocking = make_url(url)
    if blocking.get_backend_name() == "postgresql":
        blocking = blocking.set(drivername="postgresql+psycopg")
    engine = create_engine(blocking)
    yield engine
    engine.dispose()


def differences(connection: Connection, branch: Branch, schema: str | None = None) -> list[Any]:
    options = {
        "include_object": branch.includes,
        "include_schemas": schema is not None,
        "include_name": lambda name, kind, _: kind != "schema" or name == schema,
        "compare_type": True,
        "compare_server_default": True,
        "version_table": branch.version_table,
        "version_table_schema": schema,
    }
    return compare_metadata(MigrationContext.configure(connection, opts=options), branch.metadata(schema))


def names(engine: Engine) -> set[str]:
    found = inspect(engine)
    return {*found.get_table_names(), *found.get_view_names()}


@pytest.mark.parametrize("branch", BRANCHES, ids=lambda branch: branch.name)
def test_models_and_migrations_agree(url: str, engine: Engine, branch: Branch) -> None:
    upgrade(url)
    with engine.connect() as connection:
        assert differences(connection, branch) == []


def test_a_difference_between_models_and_migrations_would_be_seen(url: str, engine: Engine) -> None:
    upgrade(url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE saga_key ADD COLUMN surplus integer"))
        connection.execute(text("DROP INDEX ix_saga_step_unsent"))
        kinds = {difference[0] for difference in differences(connection, BRANCHES[1])}
    assert kinds == {"remove_column", "add_index"}


@pytest.mark.parametrize("table", metadata.sorted_tables, ids=lambda table: table.name)
def test_checks_of_the_models_are_in_the_migrations(table: Table) -> None:
    script = upgrade("sqlite://", sql=True)
    for constraint in table.constraints:
        if "ck_" in str(constraint.name):
            assert str(constraint.sqltext) in script  # type: ignore[attr-defined]


def test_everything_goes_up_and_down_and_up_again(url: str, engine: Engine) -> None:
    assert check(url) == ALL
    upgrade(url)
    assert check(url) == []
    downgrade(url)
    assert names(engine) <= {"saga_schema_version", "message_schema_version"}
    assert check(url) == ALL
    upgrade(url)
    upgrade(url)
    assert check(url) == []


def test_a_participants_database_gets_the_tables_of_the_bus_alone(url: str, engine: Engine) -> None:
    upgrade(url, only="messaging")
    assert names(engine) == {"message_schema_version", *messaging_metadata.tables}
    assert check(url, only="messaging") == []
    assert check(url) == [one for one in ALL if one.startswith("orchestrator")]


def test_unknown_migrations_are_refused_by_name(url: str) -> None:
    with pytest.raises(ValueError, match=r"no migrations named 'sagas'\. Known: messaging, orchestrator"):
        upgrade(url, only="sagas")


def test_the_first_migration_names_the_installation_for_good(url: str, engine: Engine) -> None:
    def installation() -> tuple[Any, ...]:
        with engine.connect() as connection:
            return tuple(connection.execute(text("SELECT name, id, created_at FROM saga_installation")).one())

    upgrade(url, installation="it's the shop")
    first = installation()
    upgrade(url, installation="another")
    assert installation() == first
    assert first[0] == "it's the shop"


def test_the_script_of_sql_makes_the_same_tables(url: str, engine: Engine) -> None:
    script = upgrade(url, sql=True, installation="it's the shop")
    assert names(engine) == set()
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        if engine.dialect.name == "sqlite":
            driver.executescript(script)
        else:
            driver.autocommit = True
            driver.execute(script)
    assert check(url) == []
    with engine.connect() as connection:
        assert [differences(connection, branch) for branch in BRANCHES] == [[], []]
        assert connection.execute(text("SELECT name FROM saga_installation")).scalar_one() == "it's the shop"
    assert "DROP TABLE saga_instance" in downgrade(url, sql=True)


def test_everything_can_live_in_a_schema_of_its_own(postgres_database: str) -> None:
    upgrade(postgres_database, schema="sagas")
    engine = create_engine(make_url(postgres_database).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        assert inspect(connection).get_table_names(schema="public") == []
        assert [differences(connection, branch, "sagas") for branch in BRANCHES] == [[], []]
    engine.dispose()
    assert check(postgres_database, schema="sagas") == []
    assert check(postgres_database) == ALL
    downgrade(postgres_database, schema="sagas")
    assert check(postgres_database, schema="sagas") == ALL


def test_a_users_own_autogenerate_leaves_our_tables_alone(url: str, engine: Engine) -> None:
    upgrade(url)
    theirs = MetaData()
    Table("orders", theirs, Column("id", Integer, primary_key=True))

    def operations(**options: Any) -> list[tuple[str, str]]:
        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts=options)
            return sorted((op[0], op[1].name) for op in compare_metadata(context, theirs) if "table" in op[0])

    assert ("remove_table", "saga_instance") in operations()
    assert operations(include_object=include_object) == [("add_table", "orders")]


def test_comments_tell_people_what_the_views_say(postgres_database: str) -> None:
    upgrade(postgres_database)
    engine = create_engine(make_url(postgres_database).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        words = connection.execute(text("SELECT obj_description('saga_status'::regclass)")).scalar_one()
    engine.dispose()
    assert words == "Where every saga is: one row a saga"


async def test_a_store_on_a_database_without_our_tables_says_what_to_run(url: str) -> None:
    store = SqlStore(url)
    with pytest.raises(SchemaMismatch, match=r"no messaging tables.*Run: saga migrate"):
        await store.open()
    upgrade(url, only="messaging")
    with pytest.raises(SchemaMismatch, match="no orchestrator tables"):
        await store.open()
    upgrade(url)
    await store.open()
    await store.close()


async def test_a_newer_schema_is_accepted(url: str, engine: Engine) -> None:
    upgrade(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE saga_schema_version SET version_num = '9999'"))
    store = SqlStore(url)
    await store.open()
    await store.close()
    assert check(url) == []


def test_a_migrated_sqlite_file_keeps_a_write_ahead_log(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'sagas.db'}"
    upgrade(url)
    engine = create_engine(url)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
    engine.dispose()
