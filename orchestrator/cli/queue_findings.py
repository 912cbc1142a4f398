"""What `saga doctor` finds in the broker's queues: who takes from them, and what died in them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.cli.findings import Finding, Level

if TYPE_CHECKING:
    from messaging.dead_letters import KeepsDeadLetters
    from messaging.settings import MessagingSettings
    from orchestrator.settings import OrchestratorSettings


async def queues(messaging: MessagingSettings, settings: OrchestratorSettings, targets: Sequence[str]) -> list[Finding]:
    """Whether somebody takes from each queue that is known, and whether messages that nobody could use wait there."""
    from messaging.errors import TransportError
    from orchestrator.cli.dead_letters import known_queues, opened_keeper, queues_meant
    from orchestrator.cli.exits import USAGE, CommandError
    from orchestrator.errors import SchemaMismatch

    try:
        async with opened_keeper(messaging, settings) as keeper:
            found = [one async for one in _taken(keeper, await known_queues(settings, targets))]
            kept = await queues_meant(keeper, (), targets, settings)
            counts = {queue: await keeper.dead_letter_count(queue) or 0 for queue in kept}
    except (TransportError, CommandError, SchemaMismatch) as error:
        if isinstance(error, CommandError) and error.code == USAGE:
            raise
        why = str(error).partition("\n")[0]
        return [Finding(Level.WARN, "letters", f"dead letters could not be counted: {why}", "see above")]
    lying = list(_lying(counts)) or [Finding(Level.OK, "letters", f"no dead letters in {_queues(len(counts))}")]
    return [*found, *lying]


async def _taken(keeper: KeepsDeadLetters, known: Sequence[str]) -> AsyncIterator[Finding]:
    """Of each queue, who takes from it; where the broker is memory nobody else can tell."""
    from messaging.queue_state import TellsOfQueues

    if not isinstance(keeper, TellsOfQueues):
        return
    for queue in known:
        state = await keeper.queue_state(queue)
        if state is None:
            text = f"there is no queue {queue}: nothing that goes to it can be sent"
            yield Finding(Level.WARN, "queues", text, "start what takes from it: saga run MODULE:ATTRIBUTE")
        elif not state.consumers:
            text = f"nobody takes from queue {queue}; messages that wait in it: {state.ready}"
            yield Finding(Level.WARN, "queues", text, "start what takes from it: saga run MODULE:ATTRIBUTE")
        else:
            text = f"queue {queue}: consumers: {state.consumers}, messages that wait in it: {state.ready}"
            yield Finding(Level.OK, "queues", text)


async def coalescing(
    messaging: MessagingSettings, settings: OrchestratorSettings, targets: Sequence[str]
) -> list[Finding]:
    """Whether batches go to queues that are known; without sagas to look at nobody can say."""
    from orchestrator.cli.dead_letters import known_queues
    from orchestrator.cli.exits import CommandError
    from orchestrator.errors import SchemaMismatch

    if not messaging.coalesce_to or not (settings.app or targets):
        return []
    try:
        known = await known_queues(settings, targets)
    except (CommandError, SchemaMismatch):
        return []  # told by those who look at the database and the targets
    unknown = [queue for queue in messaging.coalesce_to if queue not in known]
    if not unknown:
        return [Finding(Level.OK, "broker", f"batches go to {', '.join(messaging.coalesce_to)}")]
    text = f"MESSAGING_COALESCE_TO names {', '.join(unknown)}: no saga here sends commands there, or is answered there"
    return [Finding(Level.WARN, "broker", text, f"correct it; known are {', '.join(known)}")]


def _lying(counts: Mapping[str, int]) -> Iterator[Finding]:
    for queue, count in counts.items():
        if count:
            text = f"dead letters of queue {queue}: {count}"
            yield Finding(Level.WARN, "letters", text, f"saga dlq list --queue {queue}")


def _queues(count: int) -> str:
    return "any queue" if not count else f"{count} queue{'s' * (count != 1)}"
