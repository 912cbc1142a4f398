"""One life of a consumer in its group: everything that the server is asked on its behalf."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from messaging.dead_letter_notes import bounded_detail, bounded_reason
from messaging.queue_state import QueueState
from messaging.redis import scripts
from messaging.redis.keys import QueueKeys
from messaging.redis.lua import run
from messaging.redis.server import Client

_DELAYED_AT_ONCE: Final = 100
_NOBODY: Final = "@given-back"


@dataclass(frozen=True, slots=True)
class Arrival:
    """An entry as it came."""

    entry: bytes
    """Its id in the stream."""
    fields: list[bytes]
    deliveries: int = 1


@dataclass(frozen=True, slots=True)
class Consumer:
    """A name in the consumer group of a queue, and what is done under it.

    All methods raise `NotSent` or a `RedisError` when the server is away or refuses.
    """

    client: Client
    queue: QueueKeys
    name: str
    dead_after: timedelta

    async def join(self, previous: str) -> bool:
        """Enter the group and leave what an earlier self had to anybody; false when there is no such queue."""
        queue = self.queue
        return bool(await run(self.client, scripts.JOIN, [queue.stream, queue.alive], self.name, previous))

    async def keep(self) -> tuple[bool, timedelta | None]:
        """Say that we live, and let what is due among the delayed come.

        Returns whether we still counted as alive, and when the next of the delayed is due.
        """
        queue = self.queue
        keys = [queue.stream, queue.about, queue.alive, queue.delayed]
        alive, next_ms = await run(self.client, scripts.KEEP, keys, self.name, _DELAYED_AT_ONCE)
        return bool(alive), None if next_ms < 0 else timedelta(milliseconds=next_ms)

    async def claim(self, at_most: int) -> list[Arrival]:
        """Take over what the dead have left; what is over its delivery limit goes to the dead letters."""
        queue = self.queue
        keys = [queue.stream, queue.about, queue.alive, queue.dead]
        arguments = (self.name, _milliseconds(self.dead_after), at_most, _now())
        claimed: list[Any] = await run(self.client, scripts.CLAIM, keys, *arguments)
        return [Arrival(entry, fields, deliveries) for entry, deliveries, fields in claimed]

    async def read(self, reader: Client, at_most: int, block: timedelta) -> list[Arrival]:
        """Wait for new entries, not longer than `block`."""
        stream = self.queue.stream
        answer: list[Any] | None = await reader.command(
            *("XREADGROUP", "GROUP", stream, self.name, "COUNT", at_most),
            *("BLOCK", max(1, _milliseconds(block)), "STREAMS", stream, ">"),
        )
        return [Arrival(entry, fields) for _, entries in answer or () for entry, fields in entries]

    async def ack(self, entries: Sequence[tuple[bytes, bytes]]) -> int:
        """Settle entries, each with its handling key; returns how many still were to be."""
        arguments = [word for entry in entries for word in entry]
        settled: int = await run(self.client, scripts.ACK, [self.queue.stream], *arguments)
        return settled

    async def put_off(self, entry: bytes, attempt: int, after: timedelta, part: Sequence[bytes] = ()) -> bool:
        """Have an entry, or the fields of a part of it, come again later; false when it was not in our hands."""
        keys = [self.queue.stream, self.queue.delayed]
        delay = max(0, _milliseconds(after))
        return bool(await run(self.client, scripts.PUT_OFF, keys, self.name, entry, attempt, delay, *part))

    async def bury(self, entry: bytes, reason: str, detail: str, part: Sequence[bytes] = ()) -> bool:
        """Move an entry, or the fields of a part of it, to the dead letters; false when it was not in our hands."""
        keys = [self.queue.stream, self.queue.dead]
        words = (self.name, entry, bounded_reason(reason), bounded_detail(detail), _now())
        return bool(await run(self.client, scripts.BURY, keys, *words, *part))

    async def give_back(self, keep: Sequence[bytes]) -> None:
        """Let anybody have what is in our hands, but for some, as if we had not had it."""
        keys = [self.queue.stream, self.queue.alive]
        await run(self.client, scripts.GIVE_BACK, keys, self.name, _NOBODY, *keep)

    async def depart(self) -> None:
        """Leave everything to anybody."""
        await run(self.client, scripts.DEPART, [self.queue.stream, self.queue.alive], self.name)

    async def backlog(self) -> int:
        """How many entries are in nobody's hands."""
        state = await state_of(self.client, self.queue, self.dead_after)
        return 0 if state is None else state.ready


async def state_of(client: Client, queue: QueueKeys, dead_after: timedelta) -> QueueState | None:
    """What a queue is like; None when there is none.

    Raises `NotSent` or a `RedisError` when the server is away or refuses.
    """
    found: list[int] = await run(client, scripts.STATE, [queue.stream, queue.alive], _milliseconds(dead_after))
    return QueueState(*found) if found else None


def _milliseconds(duration: timedelta) -> int:
    return round(duration / timedelta(milliseconds=1))


def _now() -> str:
    return datetime.now(UTC).isoformat()
