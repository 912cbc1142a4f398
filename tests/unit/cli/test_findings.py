"""What `saga doctor` finds by itself, without a service."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from messaging.settings import MessagingSettings
from orchestrator.cli.findings import Level, broker, clock, database, packages, settings_read
from orchestrator.settings import OrchestratorSettings


def test_another_package_with_our_import_name_is_a_failure_with_the_remedy() -> None:
    (found,) = packages({"orchestrator": ["sagasmith", "orchestrator-core"], "messaging": ["sagasmith"]})

    assert found.level is Level.FAIL
    assert "orchestrator-core brings a module 'orchestrator' too" in found.text
    assert "pip uninstall orchestrator-core" in found.remedy


def test_our_package_alone_is_fine() -> None:
    assert [found.level for found in packages({"orchestrator": ["sagasmith"]})] == [Level.OK]


@pytest.mark.parametrize(
    ("variable", "likely"),
    [
        ("ORCHESTRATOR_DATABSE_URL", "ORCHESTRATOR_DATABASE_URL"),
        ("ORCHESTATOR_DATABASE_URL", "ORCHESTRATOR_DATABASE_URL"),
        ("MESSAGING_BROKER_URI", "MESSAGING_BROKER_URL"),
    ],
)
def test_a_misspelt_variable_is_told_with_the_likely_name(variable: str, likely: str, tmp_path: Path) -> None:
    (found,) = settings_read({variable: "x", "HOME": "/", "PATH": "/bin"}, tmp_path)

    assert found.level is Level.WARN
    assert found.text.startswith(variable)
    assert found.remedy == f"rename it to {likely}"


def test_what_is_spelt_right_is_not_complained_about(tmp_path: Path) -> None:
    environment = {"MESSAGING_BROKER_URL": "x", "orchestrator_database_url": "x", "ORCHESTRATOR_FAILPOINT": ""}

    assert [found.level for found in settings_read(environment, tmp_path)] == [Level.OK]


def test_misspelt_names_in_files_are_found_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# ORCHESTRATOR_NO=1\nexport ORCHESTRATOR_BATCHES=5\n")
    (tmp_path / "saga.toml").write_text("[messaging]\nbroker = 'x'\n[orchestrator]\nbatch = 5\n")

    found = [finding.text for finding in settings_read({}, tmp_path)]

    assert found == [
        "ORCHESTRATOR_BATCHES (.env) is no setting and is not read",
        "[messaging] broker (saga.toml) is no setting and is not read",
    ]


async def test_a_broker_that_is_away_is_unreachable_and_its_password_stays_secret() -> None:
    settings = MessagingSettings.model_validate(
        {"broker_url": "amqp://shop:secret@127.0.0.1:1/", "patience_seconds": 0.2}
    )
    found = await broker(settings)

    assert found.level is Level.FAIL and found.unreachable
    assert "secret" not in found.text
    assert "amqp://shop:***@127.0.0.1:1/" in found.text


async def test_a_missing_sqlite_file_is_not_created_by_looking(tmp_path: Path) -> None:
    file = tmp_path / "saga.db"
    (found,) = await database(OrchestratorSettings.model_validate({"database_url": f"sqlite+aiosqlite:///{file}"}))

    assert found.level is Level.FAIL and found.remedy == "saga migrate"
    assert not file.exists()


@pytest.mark.parametrize(("off", "level"), [(0, Level.OK), (90, Level.WARN), (-90, Level.WARN)])
def test_a_clock_that_is_not_the_databases_is_told(postgres_database: str, off: int, level: Level) -> None:
    engine = create_engine(postgres_database.replace("+asyncpg", "+psycopg"))
    with engine.connect() as connection:
        (found,) = clock(connection, lambda: datetime.now(UTC) + timedelta(seconds=off))
    engine.dispose()

    assert (found.level, found.subject) == (level, "clock")
    assert ("the database's are 1 min " in found.text) is (level is Level.WARN)


def test_a_database_on_this_machine_has_its_clock(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'saga.db'}")
    with engine.connect() as connection:
        assert clock(connection) == []
    engine.dispose()
