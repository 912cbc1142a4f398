"""The transition system: which actions a world allows, and which world each leads to.

Whatever may happen to a running system is an action: a participant does its work, the engine takes a
batch, a process is killed between two lines, the broker makes a copy, time passes. `step` is where each
of them is carried out: by the engine as it is shipped, or by the few lines that stand for everybody else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any, Final

from pydantic import BaseModel

from messaging.codec import encode_body
from messaging.envelope import RETRY, Envelope
from messaging.envelope import SAGA_ID as SAGA_ID_HEADER
from messaging.messages import Event
from orchestrator.definition import Saga
from orchestrator.granting import LOCK_DEADLOCK
from orchestrator.instance import SagaInstance, SagaStatus, StepRecord, StepStatus
from orchestrator.memory import MemoryTables
from orchestrator.registry import SagaRegistry
from orchestrator.signal_codec import ACTIONS, signal_to_row
from orchestrator.signals import LocksDenied
from orchestrator.start import new_instance
from orchestrator.store import NewSignal
from orchestrator.testing.exploring.names import Names
from orchestrator.testing.exploring.participants import Doing, Participants
from orchestrator.testing.exploring.shell import HANDED_OVER, WRITTEN, Shell, finished
from orchestrator.testing.exploring.world import SAGA_ID, START, Answered, Sent, World


class Kind(Enum):
    """What may happen."""

    DO = "a participant takes a command"
    HANDLE = "the engine takes replies"
    EVENT = "the engine takes an event"
    WAKE = "the engine looks for what is due"
    SIGNALS = "the engine takes what it was asked"
    RESEND = "the engine finds what did not leave"
    SWEEP = "the engine joins events and waits"
    LOCKS = "the engine grants what is asked for"
    TAKEN = "another saga holds what is asked for"
    TIME = "time passes"
    HOLD_UP = "a message is held up"
    COPY = "a message comes once more"
    ASK = "an operator asks for something"


_MID_SEND: Final = {
    WRITTEN: "before it commits",
    "engine.committed": "after it has committed, before anything is sent",
    HANDED_OVER: "after it has sent one message",
    "engine.published": "before it knows what was sent",
}
_PLACES: Final = {
    Kind.HANDLE: {
        WRITTEN: "before it commits",
        "engine.committed": "after it has committed, before it acks and sends",
        "engine.acked": "after it has acked, before it sends",
        HANDED_OVER: "after it has sent one message",
    },
    Kind.EVENT: {
        "engine.events_kept": "before it acks",
        "engine.acked": "before it tells the saga",
        **_MID_SEND,
    },
    Kind.WAKE: _MID_SEND,
    Kind.SIGNALS: _MID_SEND,
    Kind.RESEND: {"engine.sends_claimed": "before it sends", HANDED_OVER: "after it has sent one message"},
}
"""Where the process may be killed; one that is not reached is no action."""


@dataclass(frozen=True, slots=True)
class Action:
    """Something that may happen next; its text tells it from the others of its world."""

    kind: Kind
    text: str
    cost: str = ""
    """Which part of `Spent` it raises."""
    subject: Any = None
    doing: Doing | None = None
    kill_at: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where an action leads, and what was seen of the engine on the way."""

    world: World
    sent: tuple[Sent, ...] = ()
    committed: bool = False
    acked_too_early: bool = False
    problems: tuple[str, ...] = ()
    """What the engine could not do at all: it raised, or gave a message up."""


class Model:
    """A saga with everything around it.

    Args:
        saga: the class, with policies as short as they are to be explored.
        state: what it starts with.
        participants: what commands may be answered.
        events: what happens outside, by the wait it is for.
        operators: words of what operators may ask for.
    """

    def __init__(
        self,
        saga: type[Saga[Any]],
        state: BaseModel,
        participants: Participants,
        events: dict[str, Event],
        operators: frozenset[str],
    ) -> None:
        self.saga, self._state, self._participants = saga, state, participants
        self._events, self._operators = events, operators
        self._registry = SagaRegistry([saga])
        self.names = Names(saga)

    def begin(self) -> World:
        """The saga is written, and nobody has looked yet."""
        saga = replace(new_instance(self.saga, self._state, None, "", START), id=SAGA_ID)
        tables = MemoryTables(sagas={SAGA_ID: saga}, wakes={SAGA_ID: START})
        return World(START, tables, to_come=tuple(self._events))

    # -- what may happen

    def actions(self, world: World) -> Iterator[Action]:
        """All that may happen next, whatever it costs.

        A command that is not held up is taken before anything else happens: what a participant does, and what
        the engine does without knowing of it, may change places, so that other orders lead to the same worlds.
        One that is held up, or a copy of an old one, arrives when its step has just changed: it was tried again,
        given up, undone, or the saga ended. To other steps it makes no difference.
        """
        if world.commands:
            yield from self._at_participant(world, world.commands[0])
            yield self._held_up(world, world.commands[0], self.names.command(world.commands[0]))
            return
        for sent in sorted(sent for sent in world.sent if sent.step.label in world.just_changed):
            yield Action(Kind.COPY, f"a copy of {self.names.command(sent)} arrives", "duplicates", sent)
        for sent in dict.fromkeys(sent for sent in world.late_commands if sent.step.label in world.just_changed):
            yield from self._at_participant(world, sent, at_last=True)
        yield from self._replies(world)
        looks = list(_looks(world))
        for kind in looks:
            yield from _killable(kind, kind.value)
        if not looks and not world.replies and (due := _next_due(world)) is not None:
            yield Action(Kind.TIME, "time passes", subject=due)
        yield from self._from_outside(world)

    def _at_participant(self, world: World, sent: Sent, *, at_last: bool = False) -> Iterator[Action]:
        for doing in self._participants.doings(sent, world):
            name = self.names.command(sent) + (", at last" if at_last else "")
            again = doing.outcome == RETRY and sent.attempt > 1  # whoever has a fault may keep it
            cost = "" if again else doing.cost
            yield Action(Kind.DO, f"{sent.participant} {doing.text.format(name)}", cost, sent, doing)

    def _held_up(self, world: World, message: Sent | Answered, name: str) -> Action:
        cost = "" if _is_slow(world, message) else "delays"
        return Action(Kind.HOLD_UP, f"{name} is held up", cost, message)

    def _replies(self, world: World) -> Iterator[Action]:
        prompt = list(dict.fromkeys(world.replies))
        late = dict.fromkeys(reply for reply in world.late_replies if reply.to.step.label in world.just_changed)
        for reply in prompt:
            yield from _killable(Kind.HANDLE, f"the engine takes {self.names.reply(reply)}", (reply,))
            yield self._held_up(world, reply, self.names.reply(reply))
            yield Action(Kind.COPY, f"the broker makes a copy of {self.names.reply(reply)}", "duplicates", reply)
        for reply in late:
            yield from _killable(Kind.HANDLE, f"the engine takes, late, {self.names.reply(reply)}", (reply,))
        if len(prompt) > 1:
            for batch in (tuple(prompt), tuple(reversed(prompt))):
                told = ", then ".join(map(self.names.reply, batch))
                yield Action(Kind.HANDLE, f"the engine takes in one batch {told}", subject=batch)

    def _from_outside(self, world: World) -> Iterator[Action]:
        saga = world.saga
        for step in sorted({row.step for row in world.tables.locks.values() if not row.held}):
            yield Action(
                Kind.TAKEN, f"another saga holds what {step} asks for, and would wait for it", "requests", step
            )
        for wait in self._events if not saga.status.terminal else ():
            first = wait in world.to_come
            waited_for = any(r.key.step == wait and r.status is StepStatus.WAITING for r in saga.steps.values())
            cost = ("" if waited_for else "stray_events") if first else "duplicates"
            again = "" if first else " again"
            yield from _killable(Kind.EVENT, f"the engine takes {self._event_name(wait)}{again}", wait, cost)
        if any(kept.pending and kept.signal.kind in ACTIONS for kept in world.tables.signals.values()):
            return  # one thing at a time
        for word in sorted(self._operators & _askable(saga.status, paused=saga.paused_at is not None)):
            cost = "" if word == "resume" else "requests"
            yield Action(Kind.ASK, f"an operator asks to {word} the saga", cost, word)

    def _event_name(self, wait: str) -> str:
        return f"{type(self._events[wait]).__name__} for {wait}"

    # -- what follows

    def step(self, world: World, action: Action) -> Outcome | None:
        """What an action leads to; None if the process never gets to where it was to be killed."""
        spent = world.spent
        if action.cost:
            spent = spent._replace(**{action.cost: getattr(spent, action.cost) + 1})
        before, subject = replace(world, spent=spent), action.subject
        match action.kind:
            case Kind.DO:
                assert action.doing is not None
                return Outcome(self._participants.after(subject, action.doing, _taken(before, subject)))
            case Kind.HOLD_UP:
                return Outcome(_held_up(_taken(before, subject), subject))
            case Kind.COPY:
                return Outcome(_copied(before, subject))
            case Kind.ASK:
                return Outcome(_asked(before, subject))
            case Kind.TAKEN:
                return Outcome(_denied(before, subject))
            case _:
                return self._engine_works(before, action)

    def _engine_works(self, world: World, action: Action) -> Outcome | None:
        if action.kind is Kind.TIME and not world.marks:
            after = replace(world, now=action.subject, just_changed=frozenset())
            return Outcome(_without_what_matters_no_more(after))
        shell = Shell(self._registry, world)
        problems: list[str] = []
        try:
            shell.run(lambda shell: self._work(shell, action), kill_at=action.kill_at)
            sent = shell.sent()
        except Exception as error:  # noqa: BLE001 - whatever the engine raises is a finding
            problems.append(f"the engine raised {type(error).__name__}: {error}")
            sent = []
        if action.kill_at and not shell.killed and not problems:
            return None
        problems += [f"a message was given up: {reason}" for reason in shell.broker.dead_letters]
        after = replace(
            world,
            now=action.subject if action.kind is Kind.TIME else world.now,
            tables=shell.store.tables,
            marks=shell.marks,
            just_changed=_just_changed(world.saga, shell.store.tables.sagas[SAGA_ID]),
            commands=(*world.commands, *sent),
            sent=world.sent.union(sent),
            **_left(world, action, shell.broker.acked),
        )
        after = _without_what_matters_no_more(after)
        return Outcome(after, tuple(sent), shell.store.commits > 0, shell.broker.acked_too_early, tuple(problems))

    async def _work(self, shell: Shell, action: Action) -> None:
        match action.kind:
            case Kind.HANDLE:
                await shell.deliver_replies(action.subject)
            case Kind.EVENT:
                await shell.deliver_event(self._envelope(action.subject))
            case Kind.WAKE:
                await shell.engine.wake(10, deadlines=True)
            case Kind.SIGNALS:
                await shell.engine.signals(10)
            case Kind.RESEND:
                await shell.engine.claim_unsent()
            case Kind.SWEEP:
                await shell.engine.match_events()
            case Kind.LOCKS:
                await shell.engine.settle_locks()
            case _:
                await shell.engine.flush_marks()

    def _envelope(self, wait: str) -> Envelope:
        event = self._events[wait]
        headers = {SAGA_ID_HEADER: str(SAGA_ID)}
        return Envelope(f"event-for-{wait}", encode_body(event), event.wire_name, headers=headers)


def _killable(kind: Kind, text: str, subject: Any = None, cost: str = "") -> Iterator[Action]:
    yield Action(kind, text, cost, subject)
    if not cost:
        for place, told in _PLACES.get(kind, {}).items():
            yield Action(kind, f"{text}, and is killed {told}", "crashes", subject, kill_at=place)


def _looks(world: World) -> Iterator[Kind]:
    """What the engine's next look at the database will find. Time does not pass before it has looked."""
    saga, tables = world.saga, world.tables
    if saga.wake_at is not None and saga.wake_at <= world.now:
        yield Kind.WAKE
    pending = [kept.signal.kind for kept in tables.signals.values() if kept.pending]
    if pending and (saga.paused_at is None or set(pending) & set(ACTIONS)):
        yield Kind.SIGNALS
    if any(not row.held for row in tables.locks.values()):
        yield Kind.LOCKS
    if any(instant <= world.now for instant in _sends(world)):
        yield Kind.RESEND
    waits = {(r.wire_name, r.awaited_key) for r in saga.steps.values() if r.status is StepStatus.WAITING}
    kept = {(one.event.wire_name, one.event.key) for one in tables.events.values() if one.consumed_by is None}
    if waits & kept and saga.paused_at is None and not saga.status.terminal:
        yield Kind.SWEEP


def _sends(world: World) -> list[datetime]:
    saga = world.saga
    if saga.paused_at is not None or saga.status.terminal:
        return []
    return [record.send_after for record in saga.steps.values() if record.send_after is not None]


def _next_due(world: World) -> datetime | None:
    instants = _sends(world)
    if world.saga.wake_at is not None:
        instants.append(world.saga.wake_at)
    return min(instants, default=None)


def _askable(status: SagaStatus, *, paused: bool) -> frozenset[str]:
    """What makes sense to ask of such a saga."""
    if status.terminal:
        return frozenset()
    stuck = {"retry", "skip", "resolve"} if status is SagaStatus.BLOCKED else set[str]()
    return frozenset({"cancel", "compensate", "abandon", "resume" if paused else "pause", *stuck})


def _denied(world: World, step: str) -> World:
    """As the engine denies what would be waited for in a circle."""
    denied = signal_to_row(LocksDenied(step, LOCK_DEADLOCK, "explored"))
    assert denied is not None
    asked = [row.id for row in world.tables.locks.values() if row.step == step]
    shell = Shell(SagaRegistry([]), world)

    async def deny() -> None:
        async with shell.store.transaction() as tx:
            await tx.settle_locks([], asked)
            await tx.add_signals([NewSignal(SAGA_ID, *denied)])

    finished(deny())
    return replace(world, tables=shell.store.tables)


def _asked(world: World, word: str) -> World:
    row = signal_to_row(ACTIONS[word](reason="explored", by="explorer"))
    assert row is not None
    shell = Shell(SagaRegistry([]), world)

    async def ask() -> None:
        async with shell.store.transaction() as tx:
            await tx.add_signals([NewSignal(SAGA_ID, *row)])

    finished(ask())
    return replace(world, tables=shell.store.tables)


def _left(world: World, action: Action, acked: set[int]) -> dict[str, Any]:
    """What is still on its way to the engine once it has settled these of what it took."""
    if action.kind is Kind.EVENT:
        return {"to_come": _without(world.to_come, action.subject) if acked else world.to_come}
    if action.kind is not Kind.HANDLE:
        return {}
    left = world
    for tag in acked:
        left = _taken(left, action.subject[tag])
    return {"replies": left.replies, "late_replies": left.late_replies}


def _just_changed(before: SagaInstance, after: SagaInstance) -> frozenset[str]:
    if after.status.terminal and not before.status.terminal:
        return frozenset(key.label for key in after.steps)
    steps = after.steps.items()
    return frozenset(key.label for key, record in steps if _phase(before.steps.get(key)) != _phase(record))


def _phase(record: StepRecord | None) -> object:
    return record and (record.status, record.round, record.attempt, record.send_attempts > 0)


def _is_slow(world: World, message: Sent | Answered) -> bool:
    """Whether one like it, of an earlier attempt, is held up: whoever is slow once may be slow again."""
    if isinstance(message, Sent):
        return any(late.step == message.step for late in world.late_commands)
    return any(late.to.step == message.to.step for late in world.late_replies)


def _taken(world: World, message: Sent | Answered) -> World:
    """Without one copy of a message that was on its way."""
    if isinstance(message, Sent):
        if message in world.commands:
            return replace(world, commands=_without(world.commands, message))
        return replace(world, late_commands=_without(world.late_commands, message))
    if message in world.replies:
        return replace(world, replies=_without(world.replies, message))
    return replace(world, late_replies=_without(world.late_replies, message))


def _held_up(world: World, message: Sent | Answered) -> World:
    """With a message that is late from now on."""
    if isinstance(message, Sent):
        late, quiet = (*world.late_commands, message), world.just_changed - {message.step.label}
        return replace(world, late_commands=tuple(sorted(late)), just_changed=quiet)
    late_replies, quiet = (*world.late_replies, message), world.just_changed - {message.to.step.label}
    return replace(world, late_replies=tuple(sorted(late_replies)), just_changed=quiet)


def _copied(world: World, message: Sent | Answered) -> World:
    """With one more copy of a message, to be taken now."""
    if isinstance(message, Sent):
        return replace(world, commands=(*world.commands, message))
    return replace(world, replies=tuple(sorted((*world.replies, message))))


def _without_what_matters_no_more(world: World) -> World:
    """Without what is late and answered another way meanwhile: it would be one more copy."""
    settled = {
        key
        for key, record in world.saga.steps.items()
        if record.status in (StepStatus.SUCCEEDED, StepStatus.REFUSED) and key.label not in world.just_changed
    }
    if not any(late.step in settled for late in world.late):
        return world
    return replace(
        world,
        late_commands=tuple(sent for sent in world.late_commands if sent.step not in settled),
        late_replies=tuple(reply for reply in world.late_replies if reply.to.step not in settled),
    )


def _without(items: tuple[Any, ...], item: Any) -> tuple[Any, ...]:
    if item not in items:
        return items
    at = items.index(item)
    return (*items[:at], *items[at + 1 :])
