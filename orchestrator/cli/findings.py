"""What `saga doctor` looks at. Each check returns findings and never raises for what it is to find."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.cli.misspelt import misspelt_keys, misspelt_variables, variables_of
from orchestrator.words import duration

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from messaging.settings import MessagingSettings
    from orchestrator.settings import OrchestratorSettings

_OURS: Final = "sagasmith"
_PATIENCE: Final = timedelta(seconds=5)
_LATE: Final = timedelta(minutes=1)
_APART: Final = timedelta(seconds=1)


class Level(StrEnum):
    """How bad."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report, and what to do about it."""

    level: Level
    subject: str
    text: str
    remedy: str = ""
    unreachable: bool = False


def packages(owners: Mapping[str, Sequence[str]] | None = None) -> Iterator[Finding]:
    """Whether other installed packages bring modules of our names: pip lets them overwrite files."""
    owners = packages_distributions() if owners is None else owners
    others = {owner: name for name in ("orchestrator", "messaging") for owner in owners.get(name, ()) if owner != _OURS}
    for owner, name in sorted(others.items()):
        yield Finding(
            Level.FAIL,
            "packages",
            f"the package {owner} brings a module {name!r} too, and one overwrites the other",
            f"pip uninstall {owner}, then pip install --force-reinstall {_OURS}",
        )
    if not others:
        yield Finding(Level.OK, "packages", "no other package has modules named orchestrator or messaging")


def settings_read(environment: Mapping[str, str] | None = None, folder: Path | None = None) -> Iterator[Finding]:
    """Whether every setting that was meant is read."""
    folder = Path() if folder is None else folder
    variables = variables_of(os.environ if environment is None else environment, folder)
    unread = [(f"{name} ({variables[name]})", likely) for name, likely in misspelt_variables(variables)]
    unread += [(f"{key} (saga.toml)", likely) for key, likely in misspelt_keys(folder)]
    for name, likely in unread:
        remedy = f"rename it to {likely}" if likely else "remove it"
        yield Finding(Level.WARN, "settings", f"{name} is no setting and is not read", remedy)
    if not unread:
        yield Finding(Level.OK, "settings", "every variable and key that looks like a setting is one")


async def broker(settings: MessagingSettings) -> Finding:
    """Whether the broker answers."""
    from messaging.errors import TransportError
    from messaging.wiring import transport_from

    if settings.in_memory:
        return Finding(
            Level.OK,
            "broker",
            "messages stay in each process (memory://)",
            "MESSAGING_BROKER_URL=amqp://... for several",
        )
    seconds = min(settings.patience_seconds, _PATIENCE.total_seconds())
    hurried = settings.model_copy(update={"patience_seconds": seconds, "connect_timeout_seconds": seconds})
    transport = transport_from(hurried, app_id="saga doctor")
    try:
        await asyncio.wait_for(transport.open(), seconds * 2)
    except (TransportError, OSError, TimeoutError) as error:
        return Finding(
            Level.FAIL,
            "broker",
            f"{settings.shown_url} cannot be reached: {error}",
            "start it, or correct MESSAGING_BROKER_URL",
            unreachable=True,
        )
    finally:
        await transport.close()
    return Finding(Level.OK, "broker", f"{settings.shown_url} answers")


async def database(settings: OrchestratorSettings) -> list[Finding]:
    """Whether the database answers and is migrated, and whether something in it needs a person."""
    from orchestrator.cli.database import engine_of, refuse_missing_file, unreachable
    from orchestrator.cli.exits import CommandError

    try:
        refuse_missing_file(settings)
        engine = engine_of(settings)
    except CommandError as error:
        return [Finding(Level.FAIL, "database", error.text.partition(". Run")[0], "saga migrate")]
    try:
        async with engine.connect() as connection:
            behind = await connection.run_sync(_behind, settings.database_schema)
            found = [Finding(Level.OK, "database", f"{settings.shown_url} answers"), _schema(behind)]
            found += await connection.run_sync(clock)
            if not behind:
                found += await connection.run_sync(_trouble, settings.database_schema)
            return found
    except Exception as error:  # noqa: BLE001 - each driver has its own for a server that is away
        text = unreachable(settings, error).text.partition("\n")[0]
        remedy = "start it, or correct ORCHESTRATOR_DATABASE_URL"
        return [Finding(Level.FAIL, "database", text, remedy, unreachable=True)]
    finally:
        await engine.dispose()


def clock(connection: Connection, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> list[Finding]:
    """Whether this machine's clock agrees with the database's; nothing where both are the same."""
    from sqlalchemy import func, select

    if connection.dialect.name != "postgresql":
        return []
    asked = now()
    there: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    took = now() - asked
    apart = abs(there - asked - took / 2)
    text = f"this machine's clock and the database's are {duration(apart)} apart"
    if apart <= _APART + took:
        return [Finding(Level.OK, "clock", text)]
    told = f"{text}: what is said here of ages, and of which engines are alive, is wrong by as much"
    return [Finding(Level.WARN, "clock", told, "set the clocks of all machines by NTP")]


def _behind(connection: Connection, schema: str | None) -> str:
    from orchestrator.errors import SchemaMismatch
    from orchestrator.sql.revisions import check_revisions

    try:
        check_revisions(connection, schema=schema)
    except SchemaMismatch as error:
        return str(error)
    return ""


def _schema(behind: str) -> Finding:
    if behind:
        return Finding(Level.FAIL, "schema", behind.removesuffix(". Run: saga migrate"), "saga migrate")
    return Finding(Level.OK, "schema", "up to date")


def _trouble(connection: Connection, schema: str | None) -> list[Finding]:
    """Count what waits for a person."""
    from sqlalchemy import func, select

    from messaging.sql.tables import tables
    from orchestrator.cli.roll import roll
    from orchestrator.sql.backlog import backlog
    from orchestrator.sql.tables import in_schema, saga_instance, saga_step

    instance, step = in_schema(saga_instance, schema), in_schema(saga_step, schema)
    outbox = tables(schema).outbox

    def count(*conditions: object, of: object) -> int:
        return connection.execute(select(func.count()).select_from(of).where(*conditions)).scalar_one()  # type: ignore[arg-type]

    late = datetime.now(UTC) - _LATE
    return [
        _counted(count(instance.c.status == "blocked", of=instance), "blocked sagas", "saga list --status blocked"),
        _counted(
            count(step.c.send_after < late, of=step),
            "commands due for a minute and not sent",
            "is an engine running (saga run ...), and the broker reachable? send_error in saga_step says why",
        ),
        _counted(
            count(outbox.c.send_attempts > 0, of=outbox),
            "messages in the outbox that could not be sent so far",
            "last_error in message_outbox says why; they are tried again",
        ),
        _outbox_lag(count(of=outbox), backlog(connection, schema=schema).outbox_oldest_seconds),
        *roll(connection, schema),
        *_held(connection, schema),
    ]


def _held(connection: Connection, schema: str | None) -> Iterator[Finding]:
    from orchestrator.asking_holds import told
    from orchestrator.sql.holds import held, waiting

    for hold in held(connection, schema):
        number = waiting(connection, hold.saga, hold.version, schema)
        text = f"{hold.which} is held since {told(hold)}; sagas that wait for its release: {number}"
        version = "" if hold.version is None else f" --version {hold.version}"
        yield Finding(Level.WARN, "holds", text, f'saga release {hold.saga}{version} --reason "..."')


def _outbox_lag(messages: int, seconds: float) -> Finding:
    lag = timedelta(seconds=seconds)
    if lag < _LATE:
        return Finding(Level.OK, "sagas", f"the outbox is up to date: {messages} messages in it")
    return Finding(
        Level.WARN,
        "sagas",
        f"messages in the outbox: {messages}, the oldest for {duration(lag)}",
        "is an engine running (saga run ...), and the broker reachable? last_error in message_outbox says why",
    )


def _counted(number: int, what: str, remedy: str) -> Finding:
    if number:
        return Finding(Level.WARN, "sagas", f"{what}: {number}", remedy)
    return Finding(Level.OK, "sagas", f"{what}: none")
