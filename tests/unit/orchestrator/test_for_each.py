"""Steps for each of some items: frozen, a few at a time, undone a few at a time."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from messaging.messages import Command, Failure, Reply
from messaging.retry import Retry
from orchestrator import BlockedReason, ForEach, ItemStep, Parallel, Saga, SagaDefinitionError, SagaStatus, Step, graph
from orchestrator.graph_svg import svg
from orchestrator.instance import Direction, StepKey, StepStatus
from orchestrator.testing import SagaProbe
from tests.unit.orchestrator.orders import MINUTE, OrderState, variant, with_steps


class Line(BaseModel):
    sku: str
    count: int = 1


class State(BaseModel):
    lines: list[Line] = []
    packed: list[str] = []
    refusal: str = ""


class Packed(Reply):
    box: str = "b"


class Pack(Command[Packed]):
    sku: str


class Unpack(Command[Packed]):
    sku: str


class LabelBox(Command[Packed]):
    sku: str


class PackingLine(ItemStep[State, Line, Packed]):
    participant = "warehouse"
    retry = Retry(max_attempts=1)
    compensation_retry = Retry(max_attempts=1)

    def command(self, state: State, item: Line) -> Pack:
        return Pack(sku=item.sku)

    def on_reply(self, state: State, item: Line, reply: Packed) -> None:
        state.packed.append(item.sku)

    def on_failure(self, state: State, item: Line, failure: Failure) -> None:
        state.refusal = f"{item.sku}: {failure.reason}"

    def compensation(self, state: State, item: Line) -> Unpack:
        return Unpack(sku=item.sku)


class Labelling(ItemStep[State, Line, Packed]):
    participant = "labels"
    nothing_to_undo = True

    def when(self, state: State, item: Line) -> bool:
        return item.count > 0

    def command(self, state: State, item: Line) -> LabelBox:
        return LabelBox(sku=item.sku)


class Wrapping(Step[State, Packed]):
    participant = "wrapping"
    nothing_to_undo = True

    def command(self, state: State) -> LabelBox:
        return LabelBox(sku="gift")


class PackingLines(ForEach[State, Line]):
    concurrency = 2
    compensation_concurrency = 2
    steps = (PackingLine(),)

    def items(self, state: State) -> list[Line]:
        return state.lines

    def item_key(self, item: Line) -> str:
        return item.sku


def saga(*steps: Any, **settings: Any) -> type[Saga[State]]:
    return with_steps(*steps, base=Saga[State], **settings)  # type: ignore[return-value]


def state(*skus: str, count: int = 1) -> State:
    return State(lines=[Line(sku=sku, count=count) for sku in skus])


def packing(*skus: str, **settings: Any) -> SagaProbe[State]:
    return SagaProbe(saga(variant(PackingLines, **settings)()), state(*skus))


def skus(commands: list[Command[Any]]) -> list[str]:
    return [command.sku for command in commands if isinstance(command, Pack | Unpack | LabelBox)]


def test_so_many_items_begin_and_each_that_is_over_makes_room_for_the_next() -> None:
    probe = packing("a", "b", "c", "d")
    assert probe.sent == [Pack(sku="a"), Pack(sku="b")]

    probe.reply(PackingLine, Packed(), item="b")
    assert probe.just_sent == [Pack(sku="c")]
    for sku in "acd":
        probe.reply(PackingLine, Packed(), item=sku)

    assert probe.status is SagaStatus.COMPLETED
    assert probe.state.packed == ["b", "a", "c", "d"]


def test_without_items_it_is_done_at_once() -> None:
    assert packing().status is SagaStatus.COMPLETED


def test_the_items_are_frozen_when_it_is_reached() -> None:
    class Forgetting(PackingLine):
        name = "PackingLine"

        def on_reply(self, state: State, item: Line, reply: Packed) -> None:
            state.lines.clear()

    probe = packing("a", "b", "c", steps=(Forgetting(),))
    for sku in "abc":
        probe.reply(Forgetting, Packed(), item=sku)

    assert skus(probe.sent) == ["a", "b", "c"]


def test_the_steps_of_an_item_come_one_after_the_other_and_may_be_skipped() -> None:
    two = variant(PackingLines, steps=(PackingLine(), Labelling()))
    probe = SagaProbe(saga(two()), State(lines=[Line(sku="a"), Line(sku="b", count=0)]))
    probe.reply(PackingLine, Packed(), item="a")
    probe.reply(PackingLine, Packed(), item="b")
    assert probe.sent[2:] == [LabelBox(sku="a")]
    assert probe.step_status(Labelling, item="b") is StepStatus.SKIPPED

    probe.reply(Labelling, Packed(), item="a")

    assert probe.status is SagaStatus.COMPLETED


def test_items_whose_steps_are_all_skipped_need_no_room() -> None:
    skipping = variant(PackingLines, steps=(Labelling(),))
    probe = SagaProbe(saga(skipping()), State(lines=[Line(sku=str(n), count=n == 9) for n in range(10)]))

    assert probe.sent == [LabelBox(sku="9")]


def test_when_one_item_is_refused_no_other_begins_and_what_was_done_is_undone_a_few_at_a_time() -> None:
    probe = packing("a", "b", "c", "d", "e", "f")
    for sku in "abc":
        probe.reply(PackingLine, Packed(), item=sku)
    probe.reply(PackingLine, Failure(reason="broken"), item="d")
    assert probe.status is SagaStatus.COMPENSATING
    assert probe.just_sent == []  # e is still out

    probe.reply(PackingLine, Packed(), item="e")
    assert probe.just_sent == [Unpack(sku="e"), Unpack(sku="c")]
    probe.compensated(PackingLine, item="c")
    assert probe.just_sent == [Unpack(sku="b")]
    for sku in "eba":
        probe.compensated(PackingLine, item=sku)

    assert probe.status is SagaStatus.COMPENSATED
    assert probe.first_cause is not None and probe.first_cause.step == "PackingLine/d"
    assert probe.state.refusal == "d: broken"
    assert "f" not in skus(probe.sent)


def test_an_item_whose_time_runs_out_is_undone_too() -> None:
    probe = packing("a", "b")
    probe.reply(PackingLine, Packed(), item="a")
    probe.advance(MINUTE)

    assert sorted(skus(probe.just_sent)) == ["a", "b"]


def test_an_item_that_blocks_is_named_and_put_right_while_the_others_wait() -> None:
    blocking = variant(PackingLine, on_exhausted="block")
    probe = packing("a", "b", "c", steps=(blocking(),))
    probe.reply(blocking, Packed(), item="a")
    probe.advance(MINUTE)
    assert probe.blocked_reason is BlockedReason.RETRIES_EXHAUSTED
    assert probe.current_step.startswith("PackingLine/")

    probe.retry()
    probe.reply(blocking, Packed(), item="b")
    probe.retry() if probe.status is SagaStatus.BLOCKED else None
    probe.reply(blocking, Packed(), item="c")

    assert probe.status is SagaStatus.COMPLETED


def test_an_undo_of_an_item_that_an_operator_skips_is_an_exception() -> None:
    probe = packing("a", "b")
    probe.reply(PackingLine, Packed(), item="a")
    probe.reply(PackingLine, Failure(reason="broken"), item="b")
    probe.compensation_failed(PackingLine, Failure(reason="taped shut"), item="a")
    assert (probe.blocked_reason, probe.current_step) == (BlockedReason.COMPENSATION_FAILED, "PackingLine/a")

    probe.skip(PackingLine, "thrown away")

    assert probe.status is SagaStatus.COMPENSATED_WITH_EXCEPTIONS


def test_an_undo_that_fails_leaves_the_others_to_go_on_if_the_saga_says_so() -> None:
    going_on = saga(PackingLines(), on_compensation_failure="continue_others")
    probe = SagaProbe(going_on, state("a", "b", "c", "d"))
    for sku in "abc":
        probe.reply(PackingLine, Packed(), item=sku)
    probe.reply(PackingLine, Failure(reason="broken"), item="d")
    probe.compensation_failed(PackingLine, Failure(reason="taped shut"), item="c")
    probe.compensated(PackingLine, item="b")
    assert probe.status is SagaStatus.COMPENSATING
    probe.compensated(PackingLine, item="a")
    assert probe.blocked_reason is BlockedReason.COMPENSATION_FAILED

    probe.resolve(PackingLine)

    assert probe.status is SagaStatus.COMPENSATED


def test_a_cancel_between_items_undoes_those_that_began() -> None:
    probe = packing("a", "b", "c", "d")
    probe.reply(PackingLine, Packed(), item="a")
    probe.cancel("no longer wanted")
    probe.reply(PackingLine, Packed(), item="b")
    probe.reply(PackingLine, Failure(reason="no"), item="c")
    probe.compensated(PackingLine, item="b")
    probe.compensated(PackingLine, item="a")

    assert probe.status is SagaStatus.COMPENSATED


def test_a_key_is_percent_encoded_and_part_of_the_rows() -> None:
    probe = packing("a/b é")
    (key,) = [key for key in probe.instance.steps if key.branch]

    assert key == StepKey("PackingLine", Direction.ACTION, "a%2Fb%20%C3%A9")
    assert StepKey.labelled(key.label, Direction.ACTION) == key


@pytest.mark.parametrize(
    ("keys", "problem"),
    [(["a", "a"], "have one key"), ([""], "1 to 128"), (["é" * 22], "1 to 128"), (["x" * 129], "128")],
)
def test_keys_that_are_double_empty_or_too_long_block_by_code_error(keys: list[str], problem: str) -> None:
    probe = packing(*keys)

    assert probe.blocked_reason is BlockedReason.CODE_ERROR
    assert problem in str(probe.code_errors[0])


def test_plain_values_can_be_items() -> None:
    class PackingSku(ItemStep[State, str, Packed]):
        participant = "warehouse"
        nothing_to_undo = True

        def command(self, state: State, item: str) -> Pack:
            return Pack(sku=item)

    class PackingSkus(ForEach[State, str]):
        steps = (PackingSku(),)

        def items(self, state: State) -> list[str]:
            return ["x", "y"]

        def item_key(self, item: str) -> str:
            return item

    probe = SagaProbe(saga(PackingSkus()), State())

    assert probe.sent == [Pack(sku="x"), Pack(sku="y")]


def test_it_may_stand_in_a_group_that_settles_all() -> None:
    probe = SagaProbe(saga(Parallel(PackingLines(), variant(Wrapping)(), settle_all=True)), state("a", "b", "c"))
    probe.reply(PackingLine, Failure(reason="broken"), item="a")
    assert probe.status is SagaStatus.RUNNING
    probe.reply(PackingLine, Packed(), item="b")
    assert probe.status is SagaStatus.RUNNING
    probe.reply(Wrapping, Packed())

    assert probe.just_sent == [Unpack(sku="b")]
    assert "c" not in skus(probe.sent)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: saga(PackingLine()), "outside of a ForEach"),
        (lambda: saga(variant(PackingLines, steps=(Wrapping(),))()), "takes ItemSteps alone"),
        (lambda: saga(variant(PackingLines, steps=(PackingLines(),))()), "takes ItemSteps alone"),
        (lambda: saga(variant(PackingLines, steps=())()), "has no steps for its items"),
        (lambda: saga(PackingLines(), PackingLine()), "listed twice|outside"),
        (lambda: variant(PackingLines, concurrency=0), "a number from 1"),
        (lambda: saga(variant(PackingLines, steps=(variant(Labelling, nothing_to_undo=False)(),))()), "undoing it"),
        (lambda: saga(variant(PackingLines, steps=(variant(Labelling, pivot=True)(),))()), "pivot inside a group"),
    ],
)
def test_what_cannot_work_is_refused(make: Any, problem: str) -> None:
    with pytest.raises(SagaDefinitionError, match=problem):
        make()


def test_items_of_another_type_are_refused() -> None:
    class OfOrders(ItemStep[State, OrderState, Packed]):
        participant = "orders"
        nothing_to_undo = True

        def command(self, state: State, item: OrderState) -> Pack:
            return Pack(sku="")

    with pytest.raises(SagaDefinitionError, match="works on OrderState, but the items of PackingLines are Line"):
        saga(variant(PackingLines, steps=(OfOrders(),))())


def test_the_fingerprint_covers_what_is_done_for_an_item_but_not_how_many_at_once() -> None:
    one = saga(PackingLines()).plan.fingerprint

    assert saga(variant(PackingLines, concurrency=7)()).plan.fingerprint == one
    assert saga(variant(PackingLines, steps=(PackingLine(), Labelling()))()).plan.fingerprint != one


def test_it_is_drawn_as_a_frame_around_what_is_done_for_an_item() -> None:
    packs = saga(PackingLines())

    assert '["PackingLines: for each item, 2 at once"]' in graph.mermaid(packs)
    assert 'label="PackingLines: for each item, 2 at once"' in graph.dot(packs)
    assert "PackingLines: for each item, 2 at once [PackingLine" in svg(packs)
