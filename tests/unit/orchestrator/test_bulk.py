"""Asking many sagas the same: whom to ask when, and what came of each."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from orchestrator.bulk import MAX_OUT, Bulk, BulkOutcome, BulkResult, NotTaken, action
from orchestrator.errors import ActionRefused
from orchestrator.signals import CancelRequested, RetryRequested

IDS = [uuid4() for _ in range(1000)]


def a_bulk(ids: list[UUID], *, per_second: float = 100.0) -> Bulk:
    return Bulk(CancelRequested("sold out"), ids, now=0.0, per_second=per_second, within=timedelta(seconds=10))


def ask(bulk: Bulk, now: float) -> dict[UUID, UUID | None]:
    signals: dict[UUID, UUID | None] = {saga_id: uuid4() for saga_id in bulk.due(now)}
    bulk.asked(signals, now)
    return signals


def told(results: list[BulkResult]) -> list[tuple[UUID, str, str]]:
    return [(result.saga_id, result.outcome.value, str(result.error or "")) for result in results]


def test_the_first_is_asked_at_once_and_the_rest_at_the_rate() -> None:
    bulk = a_bulk(IDS)
    assert list(ask(bulk, 0.0)) == IDS[:1]
    assert ask(bulk, 0.005) == {}
    assert list(ask(bulk, 0.1)) == IDS[1:11]


def test_time_that_was_not_used_is_not_made_up_for_at_once() -> None:
    bulk = a_bulk(IDS)
    assert len(ask(bulk, 60.0)) == 25
    assert ask(bulk, 60.0) == {}


def test_a_slow_rate_asks_one_at_a_time() -> None:
    bulk = a_bulk(IDS, per_second=0.5)
    assert [len(ask(bulk, now)) for now in (0.0, 1.0, 2.0, 3.0, 9.0)] == [1, 0, 1, 0, 1]


def test_only_so_many_are_out_at_a_time() -> None:
    bulk = a_bulk(IDS, per_second=1e6)
    assert len(ask(bulk, 0.1)) == MAX_OUT
    assert bulk.due(0.2) == []
    bulk.answered({bulk.out[0]: ""}, 0.2)
    assert len(bulk.due(0.2)) == 1


def test_each_id_is_asked_once_and_has_one_result() -> None:
    done, refused, unknown = IDS[:3]
    bulk = a_bulk([done, refused, unknown, done, refused], per_second=1e6)
    first, second = uuid4(), uuid4()
    assert bulk.due(0.1) == [done, refused, unknown]

    results = bulk.asked({done: first, refused: second, unknown: None}, 0.1)
    results += bulk.answered({first: "", second: "its pivot may have happened"}, 0.2)

    assert bulk.over
    assert told(results) == [
        (unknown, "unknown", f"no saga has the id {unknown}. List them with: saga list"),
        (done, "done", ""),
        (refused, "refused", f"cancel of saga {refused} refused: its pivot may have happened"),
    ]
    assert isinstance(results[2].error, ActionRefused)


def test_when_no_engine_takes_it_in_time_nobody_else_is_asked() -> None:
    bulk = a_bulk(IDS[:3], per_second=0.1)
    ask(bulk, 0.0)
    assert bulk.answered({}, 9.9) == [] and not bulk.over

    results = bulk.answered({}, 10.0)

    assert [(result.saga_id, result.outcome) for result in results] == [
        (IDS[0], BulkOutcome.NOT_TAKEN),
        (IDS[1], BulkOutcome.NOT_ASKED),
        (IDS[2], BulkOutcome.NOT_ASKED),
    ]
    assert isinstance(results[0].error, NotTaken) and "is kept and will be taken" in str(results[0].error)
    assert bulk.over


def test_one_that_no_engine_takes_does_not_keep_the_others_from_being_asked() -> None:
    bulk = a_bulk(IDS[:3], per_second=0.2)
    [stranded] = ask(bulk, 0.0)
    [second] = ask(bulk, 5.0).values()
    assert second is not None and [one.outcome for one in bulk.answered({second: ""}, 5.5)] == [BulkOutcome.DONE]

    assert [(one.saga_id, one.outcome) for one in bulk.answered({}, 10.0)] == [(stranded, BulkOutcome.NOT_TAKEN)]

    [third] = ask(bulk, 10.0).values()
    assert third is not None and [one.outcome for one in bulk.answered({third: ""}, 10.5)] == [BulkOutcome.DONE]
    assert bulk.over


def test_an_answer_that_comes_with_the_end_of_its_time_counts() -> None:
    bulk = a_bulk(IDS[:1])
    [signal] = ask(bulk, 0.0).values()
    assert signal is not None
    assert [result.outcome for result in bulk.answered({signal: ""}, 10.0)] == [BulkOutcome.DONE]


def test_nobody_to_ask_is_over_at_once_and_a_rate_of_nothing_is_refused() -> None:
    assert a_bulk([]).over
    with pytest.raises(ValueError, match="would never end"):
        a_bulk(IDS, per_second=0)


def test_a_step_is_named_only_where_the_action_concerns_one() -> None:
    assert action("retry", reason="mended", step="Shipping") == RetryRequested("mended", "Shipping")
    with pytest.raises(ValueError, match="concerns the saga as a whole, and no step such as Shipping"):
        action("cancel", reason="mended", step="Shipping")
