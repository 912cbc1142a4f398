"""The transition system: which actions a world allows, and which world each leads to.

Whatever may happen to a running system is an action: a participant does its work, the engine takes a
batch, a process is killed between two lines, the broker makes a copy, time passes. `step` is where each
of them is carried out: by the engine as it is shipped, or by the few lines that stand for everybody else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from messaging.codec import encode_body
from messaging.envelope import SAGA_ID as SAGA_ID_HEADER
from messaging.envelope import SUCCESS, Envelope
from orchestrator.definition import Saga
from orchestrator.memory import MemoryTables
from orchestrator.registry import SagaRegistry
from orchestrator.signal_codec import signal_from_row
from orchestrator.signals import CompleteRequested
from orchestrator.start import new_instance
from orchestrator.testing.exploring import asking
from orchestrator.testing.exploring.actions import Action, Kind, Outcome
from orchestrator.testing.exploring.choices import Choices, Surroundings
from orchestrator.testing.exploring.family import Family, bare, label_at
from orchestrator.testing.exploring.functions import NotExplorable, Running, SessionUsed
from orchestrator.testing.exploring.moves import (
    copied,
    held_up,
    just_changed,
    left,
    taken,
    without,
    without_what_matters_no_more,
)
from orchestrator.testing.exploring.names import Names
from orchestrator.testing.exploring.shell import Shell
from orchestrator.testing.exploring.world import SAGA_ID, START, Seated, World

_MOST_DUE = 100


class Model:
    """A saga, those it starts, and everything around them.

    Args:
        saga: the class, with policies as short as they are to be explored.
        state: what it starts with.
        around: participants, events, operators.
    """

    def __init__(self, saga: type[Saga[Any]], state: BaseModel, around: Surroundings) -> None:
        self.saga, self._state, self._around = saga, state, around
        self.family = Family(saga)
        self._registry = SagaRegistry([saga])
        self.names = Names(self.family)
        self._choices = Choices(self.family, self.names, around)

    def begin(self) -> World:
        """The saga is written, and nobody has looked yet."""
        saga = replace(new_instance(self.saga, self._state, None, "", START), id=SAGA_ID)
        return World(START, MemoryTables(sagas={SAGA_ID: saga}, wakes={SAGA_ID: START}))

    def actions(self, world: World) -> Iterator[Action]:
        """All that may happen next, whatever it costs."""
        return self._choices.of(world)

    def step(self, world: World, action: Action) -> Outcome | None:
        """What an action leads to; None if the process never gets to where it was to be killed."""
        spent = world.spent
        if action.cost:
            spent = spent._replace(**{action.cost: getattr(spent, action.cost) + 1})
        before, subject = replace(world, spent=spent), action.subject
        match action.kind:
            case Kind.DO:
                assert action.doing is not None
                return Outcome(self._around.participants.after(subject, action.doing, taken(before, subject)))
            case Kind.HOLD_UP:
                return Outcome(held_up(before, subject))
            case Kind.COPY:
                return Outcome(copied(before, subject))
            case Kind.TOKEN:
                return Outcome(asking.redeemed(before, *subject))
            case Kind.ASK:
                return Outcome(asking.asked(before, *subject))
            case Kind.TAKEN:
                return Outcome(asking.denied(before, before.sagas[subject.seat].id, subject.step.step))
            case _:
                return self._engine_works(before, action)

    def _engine_works(self, world: World, action: Action) -> Outcome | None:
        if action.kind is Kind.TIME and not world.marks:
            after = replace(world, now=action.subject, just_changed=frozenset())
            return Outcome(without_what_matters_no_more(after))
        shell = Shell(self._registry, world)
        problems: list[str] = []
        try:
            shell.run(lambda shell: self._work(shell, action), kill_at=action.kill_at)
            sent = shell.sent()
        except SessionUsed as used:
            raise self._needs_function(used) from None
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
            local=without(shell.local, action.subject[0]) if action.kind is Kind.LOCAL else shell.local,
            written=shell.written,
            ids=shell.store.ids.given_out,
            commands=(*world.commands, *sent),
            sent=world.sent.union(sent),
            **left(world, action, shell.broker.acked),
        )
        after = replace(after, just_changed=just_changed(world, after), in_effect=_by_tokens(world, after))
        after = without_what_matters_no_more(after)
        return Outcome(after, tuple(sent), shell.store.commits > 0, shell.broker.acked_too_early, tuple(problems))

    async def _work(self, shell: Shell, action: Action) -> None:
        match action.kind:
            case Kind.HANDLE:
                await shell.deliver_replies(action.subject)
            case Kind.EVENT:
                await shell.deliver_event(self._envelope(shell, action.subject))
            case Kind.LOCAL:
                due, ends = action.subject
                await shell.run_local(due, Running(due, ends))
            case Kind.WAKE:
                await shell.engine.wake(_MOST_DUE, deadlines=True)
            case Kind.SIGNALS:
                await shell.engine.signals(_MOST_DUE)
            case Kind.RESEND:
                await shell.engine.claim_unsent()
            case Kind.SWEEP:
                await shell.engine.match_events()
            case Kind.LOCKS:
                await shell.engine.settle_locks()
            case _:
                await shell.engine.flush_marks()

    def _needs_function(self, used: SessionUsed) -> NotExplorable:
        step = used.place.step.step
        saga = self.family.definition(used.place.seat).__name__
        return NotExplorable(
            f"{step} of {saga} uses its session (session.{used.name}), and there is no database in an exploration. Say "
            f"what it does to the state: explore(..., functions={{{step}: [a_function_of_the_state]}})"
        )

    def _envelope(self, shell: Shell, wait: Seated) -> Envelope:
        event = self._around.events[bare(wait.seat), wait.step.step]
        headers = {SAGA_ID_HEADER: str(shell.saga_at(wait.seat).id)}
        return Envelope(f"event-for-{wait.label}", encode_body(event), event.wire_name, headers=headers)


def _by_tokens(before: World, after: World) -> frozenset[str]:
    """What is in effect, now that tokens were redeemed and answered: whoever hears that it counts has done it."""
    new = [entry for id_, entry in after.tables.audit.items() if id_ not in before.tables.audit]
    done = {_done_by(after, entry.signal_id) for entry in new if entry.action == "complete" and not entry.refused}
    return after.in_effect | (done - {""})


def _done_by(world: World, signal_id: Any) -> str:
    kept = world.tables.signals[signal_id]
    asked = signal_from_row(kept.signal.kind, kept.signal.body)
    assert isinstance(asked, CompleteRequested)
    seat = next(seat for seat, saga in world.sagas.items() if saga.id == kept.signal.saga_id)
    return label_at(seat, asked.reply.key) if asked.outcome == SUCCESS else ""
