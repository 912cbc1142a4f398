"""Which actions a world allows: whatever may happen next, whatever it costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from messaging.envelope import RETRY
from messaging.messages import Event
from orchestrator.instance import SagaInstance, StepKey, StepStatus
from orchestrator.plan import LocalLeaf
from orchestrator.signal_codec import ACTIONS
from orchestrator.testing.exploring.actions import Action, Kind, killable
from orchestrator.testing.exploring.family import Family, bare
from orchestrator.testing.exploring.functions import Functions, endings
from orchestrator.testing.exploring.looks import askable, looks, next_due
from orchestrator.testing.exploring.moves import is_slow
from orchestrator.testing.exploring.names import Names
from orchestrator.testing.exploring.participants import Participants
from orchestrator.testing.exploring.world import Answered, Seated, Sent, World


@dataclass(frozen=True, slots=True)
class Surroundings:
    """All that is around the sagas of an exploration.

    Attributes:
        participants: what commands may be answered.
        events: what happens outside, by the seat and the name of the wait it is for.
        functions: what stands in for local steps.
        operators: words of what operators may ask for.
    """

    participants: Participants
    events: Mapping[tuple[str, str], Event]
    functions: Functions
    operators: frozenset[str]


class Choices:
    """What may happen next.

    A command that is not held up is taken before anything else happens: what a participant does, and what
    the engine does without knowing of it, may change places, so that other orders lead to the same worlds.
    One that is held up, or a copy of an old one, arrives when its step has just changed: it was tried again,
    given up, undone, or its saga ended. To other steps it makes no difference.
    """

    def __init__(self, family: Family, names: Names, around: Surroundings) -> None:
        self._family, self._names, self._around = family, names, around

    def of(self, world: World) -> Iterator[Action]:
        """All actions of a world."""
        if world.commands:
            yield from self._at_participant(world, world.commands[0])
            yield self._held_up(world, world.commands[0], self._names.command(world.commands[0]))
            return
        for sent in sorted(sent for sent in world.sent if sent.label in world.just_changed):
            yield Action(Kind.COPY, f"a copy of {self._names.command(sent)} arrives", "duplicates", sent)
        for sent in dict.fromkeys(sent for sent in world.late_commands if sent.label in world.just_changed):
            yield from self._at_participant(world, sent, at_last=True)
        yield from self._replies(world)
        yield from self._tokens(world)
        for due in world.local:
            yield from self._local(world, due)
        found = list(looks(world))
        for kind in found:
            yield from killable(kind, kind.value)
        at_rest = not (found or world.replies or world.tokens or world.local)
        if at_rest and (due_at := next_due(world)) is not None:
            yield Action(Kind.TIME, "time passes", subject=due_at)
        yield from self._from_outside(world)

    # -- participants

    def _at_participant(self, world: World, sent: Sent, *, at_last: bool = False) -> Iterator[Action]:
        for doing in self._around.participants.doings(sent, world):
            name = self._names.command(sent) + (", at last" if at_last else "")
            again = doing.outcome == RETRY and sent.attempt > 1  # whoever has a fault may keep it
            cost = "" if again else doing.cost
            yield Action(Kind.DO, f"{sent.participant} {doing.text.format(name)}", cost, sent, doing)

    def _held_up(self, world: World, message: Sent | Answered, name: str) -> Action:
        cost = "" if is_slow(world, message) else "delays"
        return Action(Kind.HOLD_UP, f"{name} is held up", cost, message)

    def _tokens(self, world: World) -> Iterator[Action]:
        for sent in world.tokens:
            yield from self._redeemed(sent)
            yield self._held_up(world, sent, f"the reply token of {self._names.command(sent)}")
        for sent in world.late_tokens:
            if sent.label in world.just_changed:
                yield from self._redeemed(sent, ", at last")
        for sent in sorted(world.redeemed):
            if sent.label in world.just_changed or _is_asked(world, sent):
                yield from self._redeemed(sent, ", once more", "duplicates")

    def _redeemed(self, sent: Sent, how: str = "", cost: str = "") -> Iterator[Action]:
        for told, cost_of_answer, answer in self._around.participants.by_token(sent):
            text = f"somebody redeems the reply token of {self._names.command(sent)}{how}: {told}"
            yield Action(Kind.TOKEN, text, cost or cost_of_answer, (sent, answer))

    # -- the engine

    def _replies(self, world: World) -> Iterator[Action]:
        prompt = list(dict.fromkeys(world.replies))
        late = dict.fromkeys(reply for reply in world.late_replies if reply.to.label in world.just_changed)
        for reply in prompt:
            yield from killable(Kind.HANDLE, f"the engine takes {self._names.reply(reply)}", (reply,))
            yield self._held_up(world, reply, self._names.reply(reply))
            yield Action(Kind.COPY, f"the broker makes a copy of {self._names.reply(reply)}", "duplicates", reply)
        for reply in late:
            yield from killable(Kind.HANDLE, f"the engine takes, late, {self._names.reply(reply)}", (reply,))
        if len(prompt) > 1:
            for batch in (tuple(prompt), tuple(reversed(prompt))):
                told = ", then ".join(map(self._names.reply, batch))
                yield Action(Kind.HANDLE, f"the engine takes in one batch {told}", subject=batch)

    def _local(self, world: World, due: Seated) -> Iterator[Action]:
        leaf = self._family.definition(due.seat).plan.leaves[due.step.step]
        record = world.sagas[due.seat].steps[due.step]
        assert isinstance(leaf, LocalLeaf)
        for ends in endings(leaf, record, self._around.functions):
            text = f"the engine runs {self._names.local(due)}{ends.text}"
            yield from killable(Kind.LOCAL, text, (due, ends), ends.cost)

    # -- from outside

    def _from_outside(self, world: World) -> Iterator[Action]:
        seats = {saga.id: seat for seat, saga in world.sagas.items()}
        asks = {Seated(seats[row.saga_id], StepKey(row.step)) for row in world.tables.locks.values() if not row.held}
        for place in sorted(asks):
            text = f"another saga holds what {self._names.step(place)} asks for, and would wait for it"
            yield Action(Kind.TAKEN, text, "requests", place)
        for seat, saga in world.sagas.items():
            yield from self._events(world, seat, saga)
        if any(kept.pending and kept.signal.kind in ACTIONS for kept in world.tables.signals.values()):
            return  # one thing at a time
        for seat, saga in world.sagas.items():
            for word in sorted(self._around.operators & askable(saga.status, paused=saga.paused_at is not None)):
                cost = "" if word == "resume" else "requests"
                yield Action(Kind.ASK, f"an operator asks to {word} {self._names.saga(seat)}", cost, (saga.id, word))

    def _events(self, world: World, seat: str, saga: SagaInstance) -> Iterator[Action]:
        if saga.status.terminal:
            return
        for wait in self._family.definition(seat).plan.waits():
            place = Seated(seat, StepKey(wait.name))
            record = saga.steps.get(place.step)
            waited_for = record is not None and record.status is StepStatus.WAITING
            first = place.label not in world.came
            cost = ("" if waited_for else "stray_events") if first else "duplicates"
            event = type(self._around.events[bare(seat), wait.name]).__name__
            text = f"the engine takes {event} for {self._names.step(place)}{'' if first else ' again'}"
            yield from killable(Kind.EVENT, text, place, cost)


def _is_asked(world: World, sent: Sent) -> bool:
    """Whether a redeemed token waits for the engine: then another may join it."""
    saga = world.sagas[sent.seat].id
    signals = world.tables.signals.values()
    return any(kept.pending and kept.signal.kind == "complete" and kept.signal.saga_id == saga for kept in signals)
