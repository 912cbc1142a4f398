"""Everything there is while a saga is explored: what the store holds, what is under way, what participants did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Final, NamedTuple
from uuid import UUID

from messaging.inbox import Claim
from orchestrator.instance import Direction, SagaInstance, StepKey, StepStatus
from orchestrator.memory import MemoryTables
from orchestrator.testing.exploring.family import label_at, seated
from orchestrator.testing.exploring.identity import identity_of

START: Final = datetime(2030, 1, 1, tzinfo=UTC)
SAGA_ID: Final = UUID("00000000-0000-7000-8000-000000000001")
"""That of the first saga."""


class Sent(NamedTuple):
    """A command as it left: one attempt of one direction of a step."""

    seat: str
    """Whose step it is, see `family`."""
    step: StepKey
    round: int
    attempt: int
    message_id: str
    idempotency_key: str
    compensates: str
    participant: str
    wire_name: str
    body: str

    @property
    def label(self) -> str:
        """The step, of whichever saga, in one word."""
        return label_at(self.seat, self.step)


class Answered(NamedTuple):
    """A reply on its way back."""

    to: Sent
    outcome: str
    error_code: str
    body: str
    within: float = 0
    """Seconds until which the definitive answer comes, of one that only says it was accepted."""


class Seated(NamedTuple):
    """A step of one of the sagas: a local one whose function is to be run, or a wait."""

    seat: str
    step: StepKey

    @property
    def label(self) -> str:
        """The step, of whichever saga, in one word."""
        return label_at(self.seat, self.step)


class Spent(NamedTuple):
    """What has gone wrong on the way here, by kind. Each kind has a bound, and so has the sum of all but refusals."""

    delays: int = 0
    """Commands, replies and redeemed tokens that came late: after anything else, or so late that it is never."""
    duplicates: int = 0
    crashes: int = 0
    retries: int = 0
    """Faults that participants reported, and functions of local steps that raised."""
    refused_undos: int = 0
    stray_events: int = 0
    """Events that came when nobody waited."""
    requests: int = 0
    """What operators asked for."""
    refusals: int = 0

    @property
    def faults(self) -> int:
        """All but refusals, which are business as usual."""
        return sum(self) - self.refusals


NOTHING: Final = Spent()


@dataclass(frozen=True, eq=False)
class World:
    """One state of the whole system, at rest: no transaction is open, nothing is half done.

    Worlds are equal if the same may follow from them: instants count by their distance from `now`, and what
    is only kept for people to read does not count. The tables are not to be changed. Steps are named by their
    labels, see `label_at`.
    """

    now: datetime
    tables: MemoryTables
    marks: tuple[UUID, ...] = ()
    """What the engine's process knows to be confirmed and has not written yet; lost when it is killed."""
    local: tuple[Seated, ...] = ()
    """Functions that the engine's process is about to run; lost when it is killed."""
    commands: tuple[Sent, ...] = ()
    """On their way to participants, which take them before anything else happens."""
    replies: tuple[Answered, ...] = ()
    """On their way to the engine, which takes them in any order, before time passes."""
    tokens: tuple[Sent, ...] = ()
    """Accepted by their participants, and to be answered by their reply tokens before time passes."""
    late_commands: tuple[Sent, ...] = ()
    """Held up: they arrive when something about their step has just changed, or never. Sorted."""
    late_replies: tuple[Answered, ...] = ()
    late_tokens: tuple[Sent, ...] = ()
    redeemed: frozenset[Sent] = frozenset()
    """Whose tokens were redeemed, whatever came of it."""
    just_changed: frozenset[str] = frozenset()
    """Steps of which something has just changed, or all of a saga once that has ended."""
    came: frozenset[str] = frozenset()
    """Waits whose event the engine has taken."""
    ledger: tuple[tuple[str, Claim], ...] = ()
    """The inboxes of all participants that dedupe, by idempotency key."""
    in_effect: frozenset[str] = frozenset()
    """Steps, of items too, that participants have carried out and not undone."""
    written: tuple[tuple[str, int], ...] = ()
    """How often the functions of local steps have run in committed transactions, less their undos. Sorted."""
    sent: frozenset[Sent] = frozenset()
    """All that ever reached the broker."""
    ids: int = 0
    """How many ids its rows were given out."""
    spent: Spent = NOTHING

    @cached_property
    def sagas(self) -> Mapping[str, SagaInstance]:
        """All of them as committed, by their seats."""
        return seated(self.tables.sagas)

    @property
    def saga(self) -> SagaInstance:
        """The first one, as committed."""
        return self.tables.sagas[SAGA_ID]

    @property
    def under_way(self) -> tuple[int, ...]:
        """How much is on its way: what most changes change, and is quickly compared."""
        prompt = len(self.commands), len(self.replies), len(self.tokens), len(self.local)
        return *prompt, len(self.late_commands), len(self.late_replies), len(self.late_tokens)

    @property
    def late(self) -> Iterator[Sent]:
        """The commands that are late, and those whose replies are, or whose tokens."""
        yield from self.late_commands
        yield from (reply.to for reply in self.late_replies)
        yield from self.late_tokens

    @property
    def happened(self) -> frozenset[str]:
        """Steps that participants have carried out and not undone, and local ones whose function has run."""
        return self.in_effect | {label for label, times in self.written if times}

    @property
    def accepted(self) -> frozenset[str]:
        """Steps that somebody has in hand who has not answered yet: they may have happened."""
        return frozenset(sent.label for sent in (*self.tokens, *self.late_tokens))

    @cached_property
    def identity(self) -> bytes:
        """A digest of all that decides what may follow, but for what may yet go wrong."""
        return identity_of(self, frozenset(), copies=True)

    @cached_property
    def identity_without_copies(self) -> bytes:
        """The same where no copy of an old message can come any more: of what is undone only that counts."""
        undone = {
            label_at(seat, key)
            for seat, saga in self.sagas.items()
            for key, record in saga.steps.items()
            if key.direction is Direction.COMPENSATION and record.status is StepStatus.SUCCEEDED
        }
        under_way = {sent.label for sent in (*self.commands, *self.tokens, *self.late)}
        under_way |= {reply.to.label for reply in self.replies}
        return identity_of(self, frozenset(undone - under_way), copies=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, World) and (self.identity, self.spent) == (other.identity, other.spent)

    def __hash__(self) -> int:
        return hash((self.identity, self.spent))
