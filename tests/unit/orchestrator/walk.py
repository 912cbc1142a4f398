"""Random walks through a saga: whatever may come, in any order, with the rules checked after each decision.

Here stand the engine, the store, the broker, the participants and the operators, each in a few lines, and
each free to do at any moment whatever the real one may do. Which one acts, and how, is read off bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from messaging.envelope import ACCEPTED, FAILURE, RETRY, SUCCESS
from messaging.messages import Failure
from orchestrator import Saga, SagaStatus
from orchestrator.compiling import names_locks
from orchestrator.instance import (
    LOCKS,
    RESOLVED,
    SKIPPED,
    BlockedReason,
    Direction,
    Item,
    Pin,
    SagaInstance,
    StepKey,
    StepRecord,
    StepStatus,
)
from orchestrator.locks import LOCK_TIMEOUT
from orchestrator.plan import Branch, ChildLeaf, DelayLeaf, ItemsLeaf, LeafPlan, LocalLeaf
from orchestrator.roster import at_hand
from orchestrator.signals import (
    AbandonRequested,
    ActionRequested,
    CancelRequested,
    ChildEnded,
    ChildOrdered,
    CodeFailed,
    CompensateRequested,
    CompleteRequested,
    DeadlinePassed,
    Decision,
    EventMatched,
    Incoming,
    LocalFailed,
    LocalFinished,
    LocksAsked,
    LocksDenied,
    LocksGranted,
    LocksLetGo,
    PauseRequested,
    ReplyReceived,
    ResolveRequested,
    ResumeRequested,
    RetryRequested,
    SkipRequested,
)
from orchestrator.transitions import TRANSITIONS, decide
from orchestrator.tree import happened

GRACE = timedelta(seconds=30)
START = datetime(2030, 1, 1, tzinfo=UTC)
UNDONE = (SagaStatus.COMPENSATED, SagaStatus.COMPENSATED_WITH_EXCEPTIONS)
STEPS_OF_A_DRIVE = 400


def _reachable() -> dict[SagaStatus, set[SagaStatus]]:
    """What one decision may end at: any number of transitions."""
    reached = {status: {status} for status in SagaStatus}
    for _ in SagaStatus:
        for found in reached.values():
            found |= {after for status in found for after in TRANSITIONS[status]}
    return reached


REACHABLE = _reachable()


class Walk:
    """One saga on one random walk."""

    def __init__(self, saga: Saga[Any], state: str) -> None:
        self.saga, self.plan, self.now = saga, saga.plan, START
        pin = Pin(saga.name, 1, saga.plan.fingerprint)
        deadline = START + saga.deadline if saga.deadline else None
        self.instance = SagaInstance(
            UUID(int=1), pin, SagaStatus.RUNNING, state, 0, START, START, START, deadline=deadline
        )
        self.kept: dict[StepKey, StepRecord] = {}
        """All rows, as the store has them; `instance` has those that are loaded."""
        self.items: tuple[Item, ...] = ()
        self.handed: dict[StepKey, dict[int, int]] = {}
        """Attempts that were given to the broker, with their rounds: participants may answer these."""
        self.refusals: set[StepKey] = set()
        self.ids: dict[UUID, tuple[StepKey, int, int]] = {}
        self.parked: list[Incoming] = []
        """What came while the saga was paused."""
        self.local: dict[StepKey, None] = {}
        """Functions that some process has in hand to run, once or more often."""
        self.ran: set[StepKey] = set()
        self.children: dict[UUID, SagaStatus] = {}
        """Child sagas, each where it is."""
        self.asked: set[str] = set()
        """Steps that have asked for what they name, by the labels of their keys."""
        self.held: set[str] = set()
        """Steps that were granted it."""
        self.decisions = 0
        self.stubborn: set[str] = set()
        """Steps whose participants never do what they are told, until the drive at the end."""
        self.undoes_badly = False
        """Whether undoing goes badly."""
        self.smooth = False
        """Whether the other participants refuse nothing, so that the saga gets far."""
        self._pending: Decision | None = None

    # -- the walk

    def go(self, choices: bytes) -> None:
        """Let each byte decide what happens next, then let everything answer until the saga ends.

        The first says which participants are stubborn.
        """
        names = list(self.plan.leaves)
        self.stubborn = {names[choices[0] // 2 % len(names)]} if choices[0] % 2 else set[str]()
        self.undoes_badly = choices[0] % 5 == 0
        self.smooth = choices[0] % 3 == 0
        self.tell(DeadlinePassed())
        for choice in choices:
            ACTS[choice % len(ACTS)](self, choice // len(ACTS))
        self.save()
        self.drive_on()

    def drive_on(self) -> None:
        """With participants that answer at last, and operators that resume and retry, every saga ends."""
        for _ in range(STEPS_OF_A_DRIVE):
            if self.instance.status.terminal:
                return
            if self.instance.paused_at:
                self.resume(0)
            if self.instance.status is SagaStatus.BLOCKED:
                self.tell(RetryRequested("mended"))
                assert self._last.accepted
            self.save()
            self.sweep(0)
            for record in list(self.instance.steps.values()):
                if record.status.open:
                    self._answer_at_last(record)
            if not self.instance.status.terminal:
                self.pass_time(0)
        raise AssertionError(f"it neither ends nor blocks: {self.instance}")

    def _answer_at_last(self, record: StepRecord) -> None:
        leaf = self.plan.leaves[record.key.step]
        if record.wire_name == LOCKS:
            self._grant(record.key.label)
        elif isinstance(leaf, DelayLeaf | ItemsLeaf):
            self.pass_time(0)
        elif isinstance(leaf, LocalLeaf):
            self._run(record)
        elif isinstance(leaf, ChildLeaf):
            going = self.children[UUID(record.awaited_key)]
            assert going is not SagaStatus.COMPLETED, "a completed child was not ordered back"
            assert going is not SagaStatus.RUNNING or not self._goes_back, "a child in flight was not cancelled"
            completes = going is SagaStatus.RUNNING
            self._child_ends(record, SagaStatus.COMPLETED if completes else SagaStatus.COMPENSATED)
        elif record.status is StepStatus.WAITING:
            self.tell(EventMatched(record.key, UUID(int=9), "{}", self.now))
        elif record.attempt in self.handed.get(record.key, {}):
            self.tell(ReplyReceived(record.key, record.round, record.attempt, SUCCESS, "{}"))
        self.save()

    # -- what may happen

    def reply(self, how: int) -> None:
        """Some participant answers some attempt that reached it, not for the first time maybe."""
        if attempts := [(key, a) for key, sent in self.handed.items() for a in sent]:
            key, attempt = attempts[-1 - how % min(len(attempts), 4)]
            answers = (RETRY, ACCEPTED) if self.smooth else (SUCCESS, SUCCESS, FAILURE, RETRY, ACCEPTED)
            outcome = answers[how % len(answers)]
            if outcome == FAILURE:
                self.refusals.add(key)
            self.tell(ReplyReceived(key, self.handed[key][attempt], attempt, outcome, "{}", "busy"))

    def redeem(self, how: int) -> None:
        """Somebody redeems the token of some attempt, which counts like a reply; or is told why not."""
        if attempts := [(key, a) for key, sent in self.handed.items() for a in sent]:
            key, attempt = attempts[-1 - how % min(len(attempts), 4)]
            outcome = FAILURE if how % 5 == 4 and not self.smooth else SUCCESS
            if outcome == FAILURE:
                self.refusals.add(key)
            asked = CompleteRequested(
                "approved",
                key.label,
                direction=key.direction.value,
                round=self.handed[key][attempt],
                attempt=attempt,
                outcome=outcome,
            )
            self.tell(asked)
            assert self._last.accepted == (not self._last.refused), "told neither that it counts nor why not"

    def succeed(self, how: int) -> None:
        """The participant of an open command does what it is told, unless this walk has a stubborn one."""
        record = self._some_open(how)
        if record is None:
            self.pass_time(how)
        elif record.key.step in self.stubborn or (self.undoes_badly and record.compensates):
            self.balk(how)
        else:
            self.tell(ReplyReceived(record.key, record.round, record.attempt, SUCCESS, "{}"))

    def balk(self, how: int) -> None:
        """The participant of an open command refuses it, reports a fault, or lets its time pass."""
        record = self._some_open(how)
        if record is not None and self.smooth and record.key.step not in self.stubborn and not record.compensates:
            self.tell(ReplyReceived(record.key, record.round, record.attempt, SUCCESS, "{}"))
        elif record is None or how % 3 == 0:
            self.confirm(how)
            self.pass_time(how)
        else:
            outcome = (RETRY, FAILURE)[how % 2]
            if outcome == FAILURE:
                self.refusals.add(record.key)
            self.tell(ReplyReceived(record.key, record.round, record.attempt, outcome, "{}", "no"))

    @property
    def _goes_back(self) -> bool:
        return SagaStatus.COMPENSATING in (self.instance.status, self.instance.blocked_from)

    def _some_open(self, how: int) -> StepRecord | None:
        steps = self.instance.steps.values()
        out = [r for r in steps if r.status.open and r.attempt in self.handed.get(r.key, ())]
        return out[how % len(out)] if out else None

    def run_local(self, how: int) -> None:
        """Some process runs a function it has in hand, with the saga alone, if it is to be run still."""
        self.save()
        if not self.local:
            self.succeed(how)
            return
        key = list(self.local)[how % len(self.local)]
        record = self.kept[key]
        still = self.instance.status is SagaStatus.BLOCKED or self.instance.paused_at
        if record.status is not StepStatus.WAITING or still:
            self.local.pop(key)
        elif (how % 3 == 0 or key.step in self.stubborn) and not self.smooth:
            self.local.pop(key)
            self.refusals.add(key)
            refuses = how % 2 and key.direction is Direction.ACTION
            self.tell(LocalFailed(key, record.attempt, Failure(reason="no") if refuses else None, "ValueError: no"))
        else:
            self._run(record)

    def _run(self, record: StepRecord) -> None:
        self.tell(LocalFinished(record.key, record.attempt, self.instance.state))
        assert self._last.accepted, "run, and not taken"
        assert record.key not in self.ran, "run twice"
        self.ran.add(record.key)
        self.save()

    def child(self, how: int) -> None:
        """Some child goes on to some end of its own, or heeds its order, or tells its end again."""
        rows = [row for row in self.kept.values() if isinstance(self.plan.leaves[row.key.step], ChildLeaf)]
        started = [row for row in rows if row.awaited_key]
        if not started:
            self.succeed(how)
            return
        row = started[how % len(started)]
        going = self.children[UUID(row.awaited_key)]
        if going is SagaStatus.RUNNING:
            ends = (SagaStatus.COMPLETED, SagaStatus.COMPLETED, SagaStatus.COMPENSATED, SagaStatus.ABANDONED)
            self._child_ends(row, ends[0 if self.smooth else how // 3 % 4])
        elif going is SagaStatus.COMPENSATING:
            self._child_ends(row, SagaStatus.COMPENSATED if how % 4 else SagaStatus.ABANDONED)
        else:
            self._child_ends(row, going)

    def _child_ends(self, row: StepRecord, status: SagaStatus) -> None:
        if status is not SagaStatus.COMPLETED:
            self.refusals.add(row.key._replace(direction=Direction.ACTION))
        child = UUID(row.awaited_key)
        self.children[child] = status
        self.tell(ChildEnded(row.key.label, child, status, "{}", "because"))
        self.save()

    def lock(self, how: int) -> None:
        """Some step is granted what it asked for, is denied it, or is told again."""
        if self.held and how % 5 == 0:
            self.tell(LocksGranted(sorted(self.held)[0]))
            assert not self._last.accepted, "granted twice"
        elif not self.asked:
            self.succeed(how)
        elif how % 4 == 1 and not self.smooth:
            label = sorted(self.asked)[how % len(self.asked)]
            self.asked.discard(label)
            self.refusals.add(StepKey.labelled(label, Direction.ACTION))
            self.tell(LocksDenied(label, "lock-deadlock", "in a circle"))
        else:
            self._grant(sorted(self.asked)[how % len(self.asked)])

    def _grant(self, label: str) -> None:
        if label in self.asked:
            self.asked.discard(label)
            self.held.add(label)
            self.tell(LocksGranted(label))

    def _keep_locks(self, before: SagaInstance, decision: Decision) -> None:
        """The table of resources, as far as it concerns this saga."""
        for change in decision.locks:
            if isinstance(change, LocksAsked):
                assert change.step not in self.asked | self.held, "asked twice"
                self.asked.add(change.step)
            elif isinstance(change, LocksLetGo):
                self.asked.discard(change.step)
                self.held.discard(change.step)
            else:
                self.asked.clear()
                self.held.clear()
        for key in (*decision.added, *decision.changed):
            was, record = before.steps.get(key), decision.steps[key]
            begins = record.wire_name not in (LOCKS, "") and (was is None or was.wire_name == LOCKS)
            if begins and key.direction is Direction.ACTION and names_locks(self.plan.leaves[key.step].step):
                assert key.label in self.held, "begun without its locks"
        waiting = {r.key.label for r in decision.steps.values() if r.wire_name == LOCKS and r.status.open}
        assert self.asked <= waiting, "asks for what nobody waits for"
        assert not (decision.instance.status.terminal and self.held), "ended, and still holds something"

    def _hear(self, decision: Decision) -> None:
        """Start children, and let them heed what they are ordered."""
        for new in decision.children:
            assert new.id not in self.children, "started twice"
            self.children[new.id] = SagaStatus.RUNNING
        for tell in decision.tells:
            if isinstance(tell.incoming, ChildOrdered):
                going = self.children[tell.saga_id]
                live = going is SagaStatus.RUNNING
                heeds = live or (going is SagaStatus.COMPLETED and tell.incoming.order == "compensate")
                self.children[tell.saga_id] = SagaStatus.COMPENSATING if heeds else going

    def event(self, how: int) -> None:
        """An event comes for some wait, wherever that is by now."""
        if waits := list(self.plan.waits()):
            key = StepKey(waits[how % len(waits)].name)
            self.tell(EventMatched(key, UUID(int=how), "{}", self.now))

    def pass_time(self, how: int) -> None:
        """Time passes to the next instant at which something is due, or a little less or more."""
        self.save()
        sends = [r.send_after for r in self.kept.values()]
        due = min((i for i in (*sends, self.instance.wake_at) if i is not None), default=self.now)
        by = (timedelta(0), timedelta(seconds=-1), timedelta(seconds=40))[how % 3]
        self.now = max(self.now, due + by)
        self.sweep(how)
        self.tell(DeadlinePassed())

    def sweep(self, how: int) -> None:
        """Commands that are due are claimed and handed to the broker."""
        self.save()
        if self.instance.paused_at:
            return
        for record in list(self.kept.values()):
            if record.send_after is not None and record.send_after <= self.now:
                begins = not record.compensates and record.send_attempts == 0
                assert not (self._goes_back and begins), "begins an action while going back"
                self._write(replace(record, send_after=self.now + GRACE, send_attempts=record.send_attempts + 1))

    def confirm(self, how: int) -> None:
        """The broker confirms what it was handed."""
        self.save()
        for record in list(self.kept.values()):
            if record.send_after is not None and record.send_attempts:
                self._write(replace(record, send_after=None, sent_at=self.now))

    def cancel(self, how: int) -> None:
        """An operator cancels; seldom, or nothing else would be seen."""
        if how % 8 == 0:
            self.tell(CancelRequested("no longer wanted"))

    def retry(self, how: int) -> None:
        """An operator retries whatever blocks."""
        self.tell(RetryRequested("mended"))

    def end_by_hand(self, how: int) -> None:
        """An operator skips whatever blocks, or has done it by hand; what blocks by its code is refused."""
        asked = (SkipRequested("not needed"), ResolveRequested("done by hand"))[how % 2]
        blocked = self.instance.blocked_reason not in (None, BlockedReason.CODE_ERROR)
        self.tell(asked)
        assert self._last.accepted == blocked, "what blocks can be put right by hand, and nothing else"

    def give_up(self, how: int) -> None:
        """An operator orders the saga back, or abandons it; seldom."""
        if how == 0:
            self.tell(CompensateRequested("no hope"))
        elif how % 13 == 5:
            self.tell(AbandonRequested("settled by hand"))

    def pause(self, how: int) -> None:
        """An operator pauses the saga; not always."""
        if how % 3 == 0:
            self.tell(PauseRequested("wait"))

    def resume(self, how: int) -> None:
        """An operator resumes it, and the engine tells it what was parked."""
        self.tell(ResumeRequested("go on"))
        parked, self.parked = self.parked, []
        for incoming in parked:
            self.tell(incoming)

    def code_fails(self, how: int) -> None:
        """A hook raises; seldom."""
        if how % 8 == 0:
            self.tell(CodeFailed("", "KeyError"))

    # -- the engine and the store

    def tell(self, incoming: Incoming) -> None:
        """Decide one signal on what was decided before in this batch, and check it."""
        before = self.instance
        untouched = replace(before, steps=dict(before.steps))
        decision = decide(self.saga, before, incoming, now=self.now)
        self.decisions += 1
        assert before == untouched, "the caller's instance was touched"
        if self.decisions % 4 == 0:
            assert decide(self.saga, before, incoming, now=self.now) == decision, "not the same again"
        if before.status is SagaStatus.BLOCKED and isinstance(incoming, DeadlinePassed):
            assert decision.steps == before.steps, "a deadline passed while blocked"
        if decision.parked:
            self.parked.append(incoming)
        self._check_pause(before, decision, incoming)
        abandoned = self.instance.status is SagaStatus.ABANDONED or isinstance(incoming, AbandonRequested)
        assert before.status.terminal or abandoned == (decision.instance.status is SagaStatus.ABANDONED)
        self._check(before, decision)
        self._keep_locks(before, decision)
        self.local.update(dict.fromkeys(decision.local))
        self._hear(decision)
        self._last, self.instance = decision, decision.instance
        self._pending = decision if self._pending is None else self._pending.then(decision)

    def save(self) -> None:
        """Write the batch: publish what has its body at hand, and load it again without."""
        decision, self._pending = self._pending, None
        if decision is None:
            return
        assert not set(decision.added) & set(decision.changed)
        for key in (*decision.added, *decision.changed):
            self.kept[key] = replace(decision.steps[key], body=None, reply=None)
        self.items += decision.items
        self._load(replace(decision.instance, revision=self.instance.revision + 1))
        for key in (*decision.added, *decision.changed):
            record = decision.steps[key]
            unsent = record.body is not None and record.send_after is not None and record.send_after <= self.now
            if unsent and not self.instance.paused_at:
                self._write(replace(self.kept[key], send_after=self.now + GRACE, send_attempts=1))

    def _write(self, record: StepRecord) -> None:
        assert not self.instance.status.terminal, "something is sent after the end"
        if record.send_attempts:
            self.handed.setdefault(record.key, {})[record.attempt] = record.round
        self.kept[record.key] = record
        self._load(self.instance)

    def _load(self, saga: SagaInstance) -> None:
        """Have at hand what a store would load."""
        self.instance = at_hand(replace(saga, steps=dict(self.kept), items={}), self.items)

    # -- the rules

    def _check_pause(self, before: SagaInstance, decision: Decision, incoming: Incoming) -> None:
        """Only operators pause and resume; between the two nothing is written that would be sent."""
        after = decision.instance
        paused, resumed = (isinstance(incoming, kind) for kind in (PauseRequested, ResumeRequested))
        assert paused or not after.paused_at or before.paused_at == after.paused_at
        ended = resumed or after.status is SagaStatus.ABANDONED
        assert ended or not before.paused_at or after.paused_at == before.paused_at
        assert not (decision.parked and decision.accepted)
        if before.paused_at:
            assert not decision.added, "begins something while paused, or before what was parked is applied"
            assert isinstance(incoming, ActionRequested | CodeFailed) or after == before, "applied while paused"

    def _check(self, before: SagaInstance, decision: Decision) -> None:
        after = decision.instance
        resting = after.status.terminal or after.status is SagaStatus.BLOCKED or after.paused_at is not None
        assert (after.wake_at is None) == resting, "wake_at"
        assert after.status in REACHABLE[before.status], f"{before.status} -> {after.status}"
        assert (after.status is SagaStatus.BLOCKED) == (after.blocked_reason is not None)
        assert before.first_cause is None or after.first_cause == before.first_cause
        if not decision.accepted:
            assert (after.steps, after.state, after.status) == (before.steps, before.state, before.status)
        for key in (*decision.added, *decision.changed):
            self._check_row(before.steps.get(key), after.steps[key])
        if after.status is SagaStatus.ABANDONED:
            assert after.first_cause is not None
        elif SagaStatus.COMPENSATING in (after.status, after.blocked_from) or after.status in UNDONE:
            assert after.first_cause is not None
            self._check_going_back(before, after, decision)
        else:
            assert all(key.direction is Direction.ACTION for key in after.steps), "undone while going forward"
        self._check_room(after)
        if after.status.terminal:
            self._check_end(replace(after, steps={**self.kept, **after.steps}))

    def _check_room(self, after: SagaInstance) -> None:
        """No more items are under way than may be."""
        for leaf in self.plan.leaves.values():
            if isinstance(leaf, ItemsLeaf):
                for direction, most in zip(
                    Direction, (leaf.step.concurrency, leaf.step.compensation_concurrency), strict=True
                ):
                    rows = {**self.kept, **after.steps}.items()
                    inner = [(key, row) for key, row in rows if key.step in leaf.steps and key.direction is direction]
                    assert len({key.branch for key, row in inner if row.status.open}) <= most, "too many items"

    def _check_row(self, before: StepRecord | None, after: StepRecord) -> None:
        if before is not None:
            begins = before.wire_name == LOCKS
            assert (after.seq, after.key) == (before.seq, before.key)
            assert begins or after.started_at == before.started_at
            assert after.attempt - before.attempt in (0, 1), "attempts rise one by one"
            assert after.round - before.round in (0, 1), "rounds rise one by one"
            assert after.attempt > before.attempt or after.round == before.round
        if after.command_id is not None:
            attempt = (after.key, after.round, after.attempt)
            assert self.ids.setdefault(after.command_id, attempt) == attempt, "one id for two attempts"
            same_id = before is not None and before.command_id == after.command_id
            begins = before is None or before.wire_name == LOCKS
            assert begins or (before is not None and before.attempt == after.attempt) == same_id
        assert after.status is StepStatus.OUTSTANDING or after.send_after is None, "sends what is over"

    def _check_going_back(self, before: SagaInstance, after: SagaInstance, decision: Decision) -> None:
        pivot = after.steps.get(StepKey(self.plan.pivot))
        begun = pivot is not None and pivot.wire_name != LOCKS
        assert not begun or pivot is None or pivot.status is StepStatus.REFUSED, "turned back after the pivot"
        actions_open = [k for k, r in after.steps.items() if k.direction is Direction.ACTION and r.status.open]
        undos = [key for key in after.steps if key.direction is Direction.COMPENSATION]
        after = replace(after, steps={**self.kept, **after.steps})
        assert not (actions_open and undos), "an undo while an action is open"
        if before.first_cause is not None:
            for key in (*decision.added, *decision.changed):
                new = before.steps.get(key)
                forward = key.direction is Direction.ACTION
                assert not forward or (new is not None and new.attempt == after.steps[key].attempt), "new action"
        for key in decision.added:
            if key.direction is Direction.COMPENSATION and not isinstance(self.plan.leaves[key.step], ItemsLeaf):
                assert happened(after.steps[StepKey(key.step, branch=key.branch)]), "undone though it did not happen"
        if any(key.direction is Direction.COMPENSATION for key in decision.added):
            self._check_order(after, self.plan.root)

    def _check_order(self, after: SagaInstance, part: Branch | LeafPlan, branch: str = "") -> None:
        """In a sequence an undo begins only when all that came later is undone."""
        if isinstance(part, ItemsLeaf):
            for item in self.items:
                if item.step == part.name:
                    self._check_order(after, part.inner, item.key)
        if not isinstance(part, Branch):
            return
        patient = self.saga.on_compensation_failure == "continue_others"
        begun = False
        for inner in part.parts:
            self._check_order(after, inner, branch)
            keys = list(self._keys_of(inner, branch))
            rows = [after.steps.get(key) for key in keys]
            undos = [after.steps.get(key._replace(direction=Direction.COMPENSATION)) for key in keys]
            if begun and not part.together:
                for row, undo in zip(rows, undos, strict=True):
                    needed = row is not None and happened(row) and self._undoable(row.key.step)
                    ended = undo is not None and undo.status in (StepStatus.SUCCEEDED, StepStatus.SKIPPED)
                    done = ended or (undo is not None and patient and undo.attempt > 1)
                    assert done or not needed, "undone out of order"
            begun = begun or any(undo is not None for undo in undos)

    def _keys_of(self, part: Branch | LeafPlan, branch: str) -> Iterator[StepKey]:
        """The rows that the steps of a part have going forward."""
        if isinstance(part, Branch):
            for inner in part.parts:
                yield from self._keys_of(inner, branch)
            return
        yield StepKey(part.name, branch=branch)
        if isinstance(part, ItemsLeaf):
            for item in self.items:
                if item.step == part.name:
                    yield from self._keys_of(part.inner, item.key)

    def _undoable(self, step: str) -> bool:
        return bool(getattr(self.plan.leaves[step], "undoable", False))

    def _check_end(self, after: SagaInstance) -> None:
        assert not any(record.status.open or record.send_after for record in after.steps.values())
        assert after.current_step == ""
        assert after.ended_at is not None
        if after.status is SagaStatus.COMPLETED:
            assert set(after.steps) == set(self._keys_of(self.plan.root, ""))
            return
        if after.status is SagaStatus.ABANDONED:
            return
        undos = [record for key, record in after.steps.items() if key.direction is Direction.COMPENSATION]
        skipped = any(undo.status is StepStatus.SKIPPED for undo in undos)
        assert skipped == (after.status is SagaStatus.COMPENSATED_WITH_EXCEPTIONS), "exceptions"
        for key in self._keys_of(self.plan.root, ""):
            leaf = self.plan.leaves[key.step]
            if isinstance(leaf, ChildLeaf):
                self._check_child(after, leaf, key)
            elif not isinstance(leaf, ItemsLeaf):
                self._check_undone(after, key)

    def _check_child(self, after: SagaInstance, leaf: ChildLeaf, key: StepKey) -> None:
        """No child is left that completed, or goes, unless it is not to be undone or an operator said so."""
        row, undo = after.steps.get(key), after.steps.get(key._replace(direction=Direction.COMPENSATION))
        by_hand = [r for r in (row, undo) if r is not None and r.error_code in (SKIPPED, RESOLVED)]
        if row is not None and row.awaited_key and leaf.undoable and not by_hand:
            assert self.children[UUID(row.awaited_key)] is SagaStatus.COMPENSATED, "a child is left"

    def _check_undone(self, after: SagaInstance, key: StepKey) -> None:
        """Exactly what happened, or may have, is undone; told by what reached participants and came back."""
        action = after.steps.get(key)
        undo = after.steps.get(key._replace(direction=Direction.COMPENSATION))
        reached = key in self.handed or key in self.ran
        refused = action is not None and action.status is StepStatus.REFUSED
        in_vain = action is not None and action.error_code == LOCK_TIMEOUT
        assert not refused or in_vain or key in self.refusals, "refused without a refusal"
        assert (undo is not None) == (reached and not refused and self._undoable(key.step)), f"undo of {key}"
        assert undo is None or undo.status in (StepStatus.SUCCEEDED, StepStatus.SKIPPED), (
            "an undo is outstanding or failed"
        )


ACTS: tuple[Callable[[Walk, int], None], ...] = (
    Walk.succeed,
    Walk.reply,
    Walk.pass_time,
    Walk.confirm,
    Walk.succeed,
    Walk.succeed,
    Walk.balk,
    Walk.reply,
    Walk.pass_time,
    Walk.event,
    Walk.sweep,
    Walk.cancel,
    Walk.retry,
    Walk.pause,
    Walk.resume,
    Walk.end_by_hand,
    Walk.give_up,
    Walk.code_fails,
    Walk.run_local,
    Walk.child,
    Walk.redeem,
    Walk.lock,
)
