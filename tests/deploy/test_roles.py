"""The roles that we recommend on PostgreSQL can do their work, and nothing beside it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege, ReadOnlySqlTransaction

from orchestrator.instance import SagaStatus
from orchestrator.sql.migrate import upgrade
from tests.deploy.files import DEPLOY
from tests.support.databases import fresh_database
from tests.unit.engine.shop import shop

ROLES = ("saga_migrate", "saga_run", "saga_read")


@dataclass(frozen=True)
class Roles:
    """Roles of a test's own, in a database of its own; they are those of the scripts but for their names."""

    admin_url: str
    suffix: str
    password: str

    def url(self, role: str) -> str:
        parts = urlsplit(self.admin_url)
        where = f"{parts.hostname}:{parts.port or 5432}"
        return urlunsplit(parts._replace(netloc=f"{role}{self.suffix}:{self.password}@{where}"))

    def run(self, url: str, script: str) -> list[tuple[object, ...]]:
        for role in ROLES:
            script = script.replace(role, role + self.suffix)
        with psycopg.connect(url.replace("+asyncpg", ""), connect_timeout=10) as connection:
            answer = connection.execute(script.encode())
            return answer.fetchall() if answer.description else []

    def script(self, url: str, name: str) -> None:
        self.run(url, (DEPLOY / "postgresql" / name).read_text("utf-8"))

    def ask(self, role: str, statement: str) -> list[tuple[object, ...]]:
        return self.run(self.url(role), statement)


@contextmanager
def roles_in(admin_url: str) -> Iterator[Roles]:
    suffix, password = f"_t{secrets.token_hex(4)}", secrets.token_hex(8)
    try:
        with fresh_database(admin_url) as url:
            roles = Roles(url, suffix, password)
            roles.script(url, "roles.sql")
            roles.run(url, "; ".join(f"ALTER ROLE {role} PASSWORD '{password}'" for role in ROLES))
            yield roles
    finally:
        with psycopg.connect(admin_url, autocommit=True, connect_timeout=10) as connection:
            for role in ROLES:
                connection.execute(f'DROP ROLE IF EXISTS "{role}{suffix}"'.encode())


@pytest.fixture(scope="module")
def roles(postgres_url: str) -> Iterator[Roles]:
    with roles_in(postgres_url) as roles:
        upgrade(roles.url("saga_migrate"))
        for _ in range(2):
            roles.script(roles.url("saga_migrate"), "views.sql")
        yield roles


async def test_the_role_that_runs_is_enough_for_an_engine(roles: Roles, tmp_path: Path) -> None:
    async with shop(tmp_path, url=roles.url("saga_run")) as at:
        _, status = await at.ended("refused")

    assert status is SagaStatus.COMPENSATED
    (row,) = roles.ask("saga_read", "SELECT status, failed_step FROM saga_status")
    assert row == ("compensated", "ShippingOrder")


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE saga_search",
        "TRUNCATE saga_search",
        "ALTER TABLE saga_search ADD COLUMN more text",
        "CREATE TABLE more (id int)",
        "UPDATE saga_schema_version SET version_num = '0001'",
        "UPDATE message_schema_version SET version_num = '0001'",
    ],
)
def test_the_role_that_runs_changes_no_table(roles: Roles, statement: str) -> None:
    with pytest.raises(InsufficientPrivilege):
        roles.ask("saga_run", statement)


def test_the_role_that_reads_reads_what_operators_asked_and_why_messages_fit_no_saga(roles: Roles) -> None:
    asked = "SELECT at, action, by, reason, refused FROM saga_audit"
    roles.ask("saga_read", f"{asked}; SELECT at, kind, step, text FROM saga_history")
    assert roles.ask("saga_read", "SELECT arrived_at, message_id, reason, saga_id FROM saga_unmatched") == []
    for secret in ("body", "properties"):
        with pytest.raises(InsufficientPrivilege):
            roles.ask("saga_read", f"SELECT {secret} FROM saga_unmatched")


def test_the_role_that_reads_reads_every_view_without_secrets_and_no_table(roles: Roles) -> None:
    named = roles.ask("saga_migrate", "SELECT viewname FROM pg_views WHERE schemaname = 'public'")
    views = [str(name) for (name,) in named if name != "saga_state_history"]
    assert {"saga_status", "saga_timeline", "saga_stuck", "saga_lock_wait", "saga_latency"} <= set(views)
    roles.ask("saga_read", "; ".join(f"SELECT * FROM {view} LIMIT 1" for view in views))

    secret = ("saga_instance", "saga_step", "saga_unmatched", "saga_installation", "message_outbox")
    for table in (*secret, "saga_state", "saga_state_history"):
        with pytest.raises(InsufficientPrivilege):
            roles.ask("saga_read", f"SELECT * FROM {table}")


@pytest.mark.parametrize(
    ("statement", "refused"),
    [
        ("INSERT INTO saga_key VALUES ('a', 'b', gen_random_uuid(), now())", ReadOnlySqlTransaction),
        ("SET default_transaction_read_only = off; COMMIT; DELETE FROM saga_key", InsufficientPrivilege),
        ("SET default_transaction_read_only = off; COMMIT; CREATE TABLE more (id int)", InsufficientPrivilege),
    ],
)
def test_the_role_that_reads_writes_nothing(roles: Roles, statement: str, refused: type[Exception]) -> None:
    with pytest.raises(refused):
        roles.ask("saga_read", statement)
