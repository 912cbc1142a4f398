"""Mistakes to be found: each breaks one line of the core, of the engine, or of a saga's definition."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, cast
from uuid import uuid4

import pytest

from messaging.envelope import RETRY, SUCCESS
from messaging.transport import Delivery, Outgoing
from orchestrator import batch, items, progress, sender, transitions, tree
from orchestrator.batch import Batch
from orchestrator.definition import Saga
from orchestrator.draft import Draft
from orchestrator.engine import Engine
from orchestrator.instance import Direction, SagaInstance, SagaStatus, StepKey, StepRecord, StepStatus
from orchestrator.loop import EngineLoop
from orchestrator.memory import MemoryTransaction
from orchestrator.memory.rows import Rows
from orchestrator.outgoing import command_message
from orchestrator.plan import Branch, ItemsLeaf, LeafPlan
from orchestrator.signals import Decision, Incoming, ReplyReceived
from orchestrator.store_records import SagaCommand
from orchestrator.transacting import Transacting
from orchestrator.transitions import decide
from orchestrator.tree import Ready

Plant = Callable[[pytest.MonkeyPatch], None]


# -- in the core


def forgets_the_undo_of_what_timed_out(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tree, "happened", lambda action: action.status is StepStatus.SUCCEEDED)


def undoes_what_was_refused(patch: pytest.MonkeyPatch) -> None:
    happened = tree.happened
    patch.setattr(tree, "happened", lambda action: happened(action) or action.status is StepStatus.REFUSED)


def undoes_in_the_order_of_doing(patch: pytest.MonkeyPatch) -> None:
    def first_seq(draft: Draft, part: LeafPlan | Branch, branch: str) -> int:
        leaves = part.leaves() if isinstance(part, Branch) else (part,)
        return -max((record.seq for leaf in leaves if (record := draft.steps.get(StepKey(leaf.name)))), default=0)

    patch.setattr(tree, "_last_seq", first_seq)


def undoes_before_what_is_out_is_settled(patch: pytest.MonkeyPatch) -> None:
    go_back = cast("Callable[[Draft], None]", vars(progress)["_go_back"])

    def hasty(draft: Draft) -> None:
        records = draft.records
        draft.records = lambda direction: [  # type: ignore[method-assign]
            record for record in records(direction) if not (direction is Direction.ACTION and record.status.open)
        ]
        go_back(draft)

    patch.setattr(progress, "_go_back", hasty)


def turns_back_when_the_pivot_is_unknown(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(progress, "blocks", lambda leaf, record: None)


def leaves_a_group_too_early(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tree, "_done", lambda leaf, record: True)


def counts_an_item_as_done_before_it_is(patch: pytest.MonkeyPatch) -> None:
    _take_every_item_for_over(patch, Direction.ACTION)


def counts_an_item_as_undone_before_it_is(patch: pytest.MonkeyPatch) -> None:
    _take_every_item_for_over(patch, Direction.COMPENSATION)


def _take_every_item_for_over(patch: pytest.MonkeyPatch, which: Direction) -> None:
    busy = items.busy_items
    over = cast("Callable[[Draft, ItemsLeaf, Direction, str], bool]", vars(items)["_is_over"])

    def none_busy(draft: Draft, leaf: ItemsLeaf, direction: Direction) -> Collection[str]:
        return () if direction is which else busy(draft, leaf, direction)

    def all_over(draft: Draft, leaf: ItemsLeaf, direction: Direction, key: str) -> bool:
        return direction is which or over(draft, leaf, direction, key)

    patch.setattr(items, "busy_items", none_busy)
    patch.setattr(items, "_is_over", all_over)


def counts_late_faults(patch: pytest.MonkeyPatch) -> None:
    def counting(saga: Saga[Any], saga_row: SagaInstance, incoming: Incoming, **now: Any) -> Decision:
        if isinstance(incoming, ReplyReceived) and incoming.outcome == RETRY:
            incoming = replace(incoming, attempt=saga_row.steps[incoming.key].attempt)
        return decide(saga, saga_row, incoming, **now)

    patch.setattr(batch, "decide", counting)


def counts_a_copy_of_an_answer_for_a_sibling(patch: pytest.MonkeyPatch) -> None:
    def counting(saga: Saga[Any], saga_row: SagaInstance, incoming: Incoming, **now: Any) -> Decision:
        if isinstance(incoming, ReplyReceived) and saga_row.steps[incoming.key].status is StepStatus.SUCCEEDED:
            siblings = [key for key, record in saga_row.steps.items() if record.status is StepStatus.OUTSTANDING]
            incoming = replace(incoming, key=siblings[0], attempt=1) if siblings else incoming
        return decide(saga, saga_row, incoming, **now)

    patch.setattr(batch, "decide", counting)


def takes_a_late_success_for_the_undo(patch: pytest.MonkeyPatch) -> None:
    def confused(saga: Saga[Any], saga_row: SagaInstance, incoming: Incoming, **now: Any) -> Decision:
        if isinstance(incoming, ReplyReceived) and incoming.outcome == SUCCESS:
            undo = StepKey(incoming.key.step, Direction.COMPENSATION)
            if undo in saga_row.steps:
                incoming = replace(incoming, key=undo)
        return decide(saga, saga_row, incoming, **now)

    patch.setattr(batch, "decide", confused)


def tries_for_ever(patch: pytest.MonkeyPatch) -> None:
    again = transitions.next_attempt
    patch.setattr(transitions, "next_attempt", lambda policy, tries, seed: again(policy, 1, seed=seed))


def never_wakes_up_for_a_deadline(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Draft, "_wake_at", lambda draft: None)


def goes_on_forward_while_going_back(patch: pytest.MonkeyPatch) -> None:
    go_back = cast("Callable[[Draft], None]", vars(progress)["_go_back"])
    begin = cast("Callable[[Draft, Any], None]", vars(progress)["_begin"])

    def both(draft: Draft) -> None:
        for leaf in draft.plan.leaves.values():
            if StepKey(leaf.name) not in draft.steps:
                begin(draft, Ready(leaf, ""))
        go_back(draft)

    patch.setattr(progress, "_go_back", both)


def ends_without_waiting_for_undos(patch: pytest.MonkeyPatch) -> None:
    undo = cast("Callable[..., bool]", vars(progress)["_undo"])

    def hasty(draft: Draft, *, patient: bool) -> bool:
        undo(draft, patient=patient)
        return True

    patch.setattr(progress, "_undo", hasty)


def keeps_its_locks_for_ever(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transitions, "let_go", lambda draft: None)


def begins_without_waiting_for_its_locks(patch: pytest.MonkeyPatch) -> None:
    waits = cast("Callable[[Draft, LeafPlan, StepKey], bool]", vars(progress)["waits_for_locks"])

    def impatient(draft: Draft, leaf: LeafPlan, key: StepKey) -> bool:
        waits(draft, leaf, key)
        return False

    patch.setattr(progress, "waits_for_locks", impatient)


# -- in the engine


def acks_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    handle = EngineLoop.handle_replies

    async def hasty(loop: EngineLoop, deliveries: Sequence[Delivery]) -> None:
        await vars(loop)["_replies"].handled(deliveries)
        await handle(loop, deliveries)

    patch.setattr(EngineLoop, "handle_replies", hasty)


def publishes_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    save = Batch.save

    async def hasty(self: Batch, tx: Any) -> list[SagaCommand]:
        commands = await save(self, tx)
        await _sender.send(commands)
        await _sender.publish_batch()
        return []

    _sender: Any = None
    run = vars(Transacting)["_run"]

    async def noting(engine: Engine, work: Any) -> None:
        nonlocal _sender
        _sender = vars(engine)["_sender"]
        await run(engine, work)

    patch.setattr(Engine, "_run", noting)
    patch.setattr(Batch, "save", hasty)


def writes_the_outbox_outside_the_transaction(patch: pytest.MonkeyPatch) -> None:
    async def apart(tx: MemoryTransaction, messages: Sequence[Outgoing]) -> None:
        for message in messages:
            vars(tx)["_tables"].outgoing[uuid4()] = message

    patch.setattr(MemoryTransaction, "add_outgoing", apart)


def gives_a_message_a_new_id_when_it_is_sent_again(patch: pytest.MonkeyPatch) -> None:
    def renamed(command: SagaCommand, **how: Any) -> Outgoing:
        outgoing = command_message(command, **how)
        if command.send_attempts > 1:
            envelope = replace(outgoing.envelope, message_id=str(uuid4()))
            return replace(outgoing, envelope=envelope)
        return outgoing

    patch.setattr(sender, "command_message", renamed)


def gives_each_attempt_a_key_of_its_own(patch: pytest.MonkeyPatch) -> None:
    def keyed(command: SagaCommand, **how: Any) -> Outgoing:
        outgoing = command_message(command, **how)
        key = f"{outgoing.envelope.text_header('idempotency-key')}.{command.record.attempt}"
        headers = {**outgoing.envelope.headers, "idempotency-key": key}
        return replace(outgoing, envelope=replace(outgoing.envelope, headers=headers))

    patch.setattr(sender, "command_message", keyed)


def takes_what_it_has_claimed_for_sent(patch: pytest.MonkeyPatch) -> None:
    write = vars(Rows)["_write_record"]

    def forgetful(tx: MemoryTransaction, saga_id: Any, record: StepRecord, before: StepRecord | None) -> StepRecord:
        claimed = record.send_attempts > 0
        record = replace(record, send_after=None, sent_at=record.started_at) if claimed else record
        return write(tx, saga_id, record, before)  # type: ignore[no-any-return]

    patch.setattr(MemoryTransaction, "_write_record", forgetful)


def misses_events_that_came_before_the_wait(patch: pytest.MonkeyPatch) -> None:
    matches = MemoryTransaction.event_matches

    async def only_new_ones(tx: MemoryTransaction, **which: Any) -> Any:
        return await matches(tx, **which) if which.get("event_ids") else []

    patch.setattr(MemoryTransaction, "event_matches", only_new_ones)


def forgets_answers_to_later_attempts_of_undos(patch: pytest.MonkeyPatch) -> None:
    tell = Batch.tell

    def once(self: Batch, saga_id: Any, incoming: Incoming) -> Any:
        saga = self.saga(saga_id)
        assert saga is not None
        if isinstance(incoming, ReplyReceived) and saga.status is SagaStatus.COMPENSATING:
            record = saga.steps[incoming.key]
            if record.status is StepStatus.OUTSTANDING and record.attempt > 1:
                return batch.Told(None)
        return tell(self, saga_id, incoming)

    patch.setattr(Batch, "tell", once)
