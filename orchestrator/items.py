"""A `ForEach` in the core: its items are frozen when it is reached, and begin a few at a time, either way.

Only the items that are under way, or next, need to be at hand; when one is missing, the saga is looked at again
at once, with more of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

from messaging.errors import UnencodableMessage
from orchestrator.draft import Draft
from orchestrator.instance import ITEMS, SKIPPED, Direction, Item, StepKey, StepStatus
from orchestrator.plan import ItemsLeaf
from orchestrator.roster import Roster
from orchestrator.tree import any_may_have_ended_badly, backward, busy_items, ended_badly, forward, undo_failed

LONGEST_KEY: Final = 128
"""Bytes of an item's key, once percent-encoded."""


def begin_items(draft: Draft, leaf: ItemsLeaf) -> None:
    """Freeze the items; none at all, and it is done.

    Raises:
        HookRaised: two items have one key, or one has none that can be used.
    """
    listed: Iterable[Any] = draft.ask(leaf.name, leaf.step.items)
    with draft.blaming(leaf.name, "items"):
        items = _frozen(leaf, list(listed))
    roster = Roster(leaf.steps, len(items), 0, leaf.step.concurrency)
    status = StepStatus.WAITING if items else StepStatus.SUCCEEDED
    draft.add(StepKey(leaf.name), status, wire_name=ITEMS, awaited_key="items", memo=roster.memo)
    draft.freeze(items)


def _frozen(leaf: ItemsLeaf, listed: list[Any]) -> list[Item]:
    items: dict[str, Item] = {}
    for position, item in enumerate(listed):
        key = quote(str(leaf.step.item_key(item)), safe="")
        if not key or len(key) > LONGEST_KEY:
            raise ValueError(
                f"item {position} has the key {key!r}; it must be 1 to {LONGEST_KEY} bytes percent-encoded"
            )
        if key in items:
            raise ValueError(f"items {items[key].position} and {position} have one key, {key!r}")
        text = leaf.adapter.dump_json(item).decode()
        if "\\u0000" in text:
            raise UnencodableMessage("an item", "it holds a NUL character, which databases refuse in text")
        items[key] = Item(leaf.name, position, key, text)
    return list(items.values())


def begin_undoing(draft: Draft, leaf: ItemsLeaf) -> None:
    """Begin to undo the items that have begun, the last first."""
    begun = Roster.of(draft.steps[StepKey(leaf.name)])
    roster = Roster(leaf.steps, begun.size, begun.position, leaf.step.compensation_concurrency, back=True)
    status = StepStatus.SUCCEEDED if roster.exhausted else StepStatus.WAITING
    key = StepKey(leaf.name, Direction.COMPENSATION)
    draft.add(key, status, wire_name=ITEMS, awaited_key="items", memo=roster.memo)


def turn_over(draft: Draft, leaf: ItemsLeaf, direction: Direction) -> bool:
    """Let items that are over make room for the next, and end the group with its last; whether anything changed."""
    record = draft.steps.get(StepKey(leaf.name, direction))
    if record is None or not record.status.open:
        return False
    before = Roster.of(record)
    busy = busy_items(draft, leaf, direction)
    over = [key for key in before.out if key not in busy and _is_over(draft, leaf, direction, key)]
    roster = replace(before.without(over), excepted=before.excepted or any(_excepted(draft, leaf, k) for k in over))
    worth_asking = any_may_have_ended_badly(draft)
    stuck = [key for key in roster.out if _failed(draft, leaf, direction, key)] if worth_asking else []
    if roster.back or not stuck:
        roster = _with_more(draft, leaf, roster, len(stuck))
    if roster == before and not (roster.exhausted and not roster.out):
        return False
    record = draft.change(record, memo=roster.memo)
    if roster.exhausted and not roster.out:
        draft.end(
            record, StepStatus.SKIPPED if roster.excepted else StepStatus.SUCCEEDED, SKIPPED if roster.excepted else ""
        )
    return True


def _with_more(draft: Draft, leaf: ItemsLeaf, roster: Roster, stuck: int) -> Roster:
    while not roster.exhausted and len(roster.out) - stuck < roster.ahead:
        item = draft.item_at(leaf.name, roster.upcoming[0])
        if item is None:
            draft.wake_now = True
            break
        roster = roster.with_next(item.key)
    return roster


def _is_over(draft: Draft, leaf: ItemsLeaf, direction: Direction, key: str) -> bool:
    go = forward if direction is Direction.ACTION else backward
    return go(draft, leaf.inner, key)[0]


def _failed(draft: Draft, leaf: ItemsLeaf, direction: Direction, key: str) -> bool:
    for one in leaf.inner.leaves():
        record = draft.steps.get(StepKey(one.name, direction, key))
        action = direction is Direction.ACTION
        if record is not None and (ended_badly(one, record) if action else undo_failed(record)):
            return True
    return False


def _excepted(draft: Draft, leaf: ItemsLeaf, key: str) -> bool:
    undos = (draft.steps.get(StepKey(one.name, Direction.COMPENSATION, key)) for one in leaf.inner.leaves())
    return any(undo is not None and undo.status is StepStatus.SKIPPED for undo in undos)
