"""Where the dead letters are that commands look at: on the broker, or in the database where that is memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from messaging.dead_letters import KeepsDeadLetters
    from messaging.settings import MessagingSettings
    from orchestrator.app import Target
    from orchestrator.settings import OrchestratorSettings

_PATIENCE_SECONDS: Final = 10.0


@asynccontextmanager
async def opened_keeper(
    messaging: MessagingSettings, settings: OrchestratorSettings, *, patience_seconds: float = _PATIENCE_SECONDS
) -> AsyncGenerator[KeepsDeadLetters]:
    """Connect to what keeps the dead letters. Of a broker it changes nothing, and declares nothing.

    Args:
        messaging: where the broker is.
        settings: where the database is.
        patience_seconds: how long the broker is waited for, where the settings do not say less.

    Raises:
        TransportError: the broker cannot be reached.
        CommandError: the broker is memory, and the database cannot be reached.
    """
    if messaging.in_memory:
        async with _in_database(settings) as keeper:
            yield keeper
        return
    from messaging.serving import quieten_libraries
    from messaging.wiring import bare_transport_from

    quieten_libraries()
    patience = min(messaging.patience_seconds, patience_seconds)
    hurried = messaging.model_copy(update={"patience_seconds": patience})
    transport = bare_transport_from(hurried, app_id="saga dlq")
    try:
        await transport.open()
        yield transport
    finally:
        await transport.close()


@asynccontextmanager
async def _in_database(settings: OrchestratorSettings) -> AsyncGenerator[KeepsDeadLetters]:
    from sqlalchemy.ext.asyncio import async_sessionmaker

    from messaging.sql.dead_letters import SqlDeadLetters
    from orchestrator.cli.database import opened

    async with opened(settings) as engine:
        yield SqlDeadLetters(async_sessionmaker(engine), schema=settings.database_schema)


async def queues_meant(
    keeper: KeepsDeadLetters, named: Sequence[str], targets: Sequence[str], settings: OrchestratorSettings
) -> list[str]:
    """The queues to look at: those that are named; else all that are known and keep dead letters.

    Raises:
        CommandError: a target or the database cannot be used.
        UnknownQueue: a named queue keeps no dead letters.
    """
    from messaging.sql.dead_letters import SqlDeadLetters

    if named:
        return list(dict.fromkeys(named))
    if isinstance(keeper, SqlDeadLetters):
        return list(await keeper.queues())
    known = await known_queues(settings, targets)
    return [queue for queue in known if await keeper.dead_letter_count(queue) is not None]


async def known_queues(settings: OrchestratorSettings, targets: Sequence[str] = ()) -> list[str]:
    """The installation's own queues, and those of its participants and of the targets.

    Participants are known from the sagas of `targets` and of the configured app.

    Raises:
        CommandError: a target or the database cannot be used.
    """
    from orchestrator.cli.database import opened
    from orchestrator.cli.targets import loaded
    from orchestrator.service import Queues
    from orchestrator.sql.installation import installation_of

    parts = [loaded(target) for target in dict.fromkeys([*filter(None, [settings.app]), *targets])]
    async with opened(settings) as engine, engine.connect() as connection:
        installation = await connection.run_sync(installation_of, schema=settings.database_schema)
    own = Queues(installation.name)
    return list(dict.fromkeys([own.replies, own.events, *(queue for part in parts for queue in _queues_of(part))]))


def _queues_of(part: Target) -> Sequence[str]:
    from messaging.service import Service

    return [part.name] if isinstance(part, Service) else part.registry.participants
