"""What `saga doctor` tells of alarms: those that an engine with these settings would raise now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.cli.findings import Finding, Level

if TYPE_CHECKING:
    from orchestrator.registry import SagaRegistry
    from orchestrator.settings import OrchestratorSettings


async def alarms(settings: OrchestratorSettings) -> list[Finding]:
    """Ask what engines ask; a database that cannot be used is told by those who look at it."""
    from orchestrator.alarms import checks_of
    from orchestrator.cli.database import opened
    from orchestrator.cli.exits import CommandError
    from orchestrator.errors import SchemaMismatch
    from orchestrator.sql.store import SqlStore
    from orchestrator.watchdog import found

    checks = checks_of(settings, _definitions(settings))
    try:
        async with opened(settings) as engine:
            store = SqlStore(engine, schema=settings.database_schema, runs_engine=False)
            try:
                _, raised = await found(store, checks)
            finally:
                await store.close()
    except (CommandError, SchemaMismatch):
        return []
    except Exception as error:  # noqa: BLE001 - each driver has its own for what it may not read
        return [Finding(Level.WARN, "alarms", f"could not be asked: {error}", "may this role read the tables?")]
    told = [Finding(Level.WARN, "alarms", f"{alarm.kind}: {alarm.text}") for alarm in raised]
    return told or [Finding(Level.OK, "alarms", f"none of {len(checks)} is up")]


def _definitions(settings: OrchestratorSettings) -> SagaRegistry | None:
    """Those that say what is slow; without them that is not asked."""
    from orchestrator.app import Orchestrator
    from orchestrator.cli.exits import CommandError
    from orchestrator.cli.targets import loaded

    if not settings.app:
        return None
    try:
        app = loaded(settings.app)
    except CommandError:
        return None  # told by those who count dead letters
    return app.registry if isinstance(app, Orchestrator) else None
