"""When to try again."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.retry import Again, GiveUp, Retry, next_attempt, wait_before

SECOND = timedelta(seconds=1)


def test_waits_double_up_to_the_cap_and_then_it_gives_up() -> None:
    policy = Retry(max_attempts=5, backoff=SECOND, factor=2, cap=4 * SECOND, jitter=0)

    answers = [next_attempt(policy, tries, seed="m") for tries in range(1, 6)]

    assert answers == [Again(SECOND), Again(2 * SECOND), Again(4 * SECOND), Again(4 * SECOND), GiveUp(5)]


def test_the_first_repetitions_may_follow_at_once() -> None:
    policy = Retry(max_attempts=5, immediate=2, backoff=SECOND, factor=2, jitter=0)

    answers = [next_attempt(policy, tries, seed="m") for tries in range(1, 6)]

    at_once = Again(timedelta(0))
    assert answers == [at_once, at_once, Again(SECOND), Again(2 * SECOND), GiveUp(5)]


def test_without_a_maximum_it_never_gives_up() -> None:
    answer = next_attempt(Retry(max_attempts=None, jitter=0), 1_000_000, seed="m")

    assert answer == Again(timedelta(minutes=5))


@given(st.text(), st.integers(1, 10_000), st.floats(0, 1))
def test_jitter_only_shortens_and_repeats_itself_for_one_seed(seed: str, tries: int, jitter: float) -> None:
    policy = Retry(max_attempts=None, backoff=SECOND, cap=60 * SECOND, jitter=jitter)
    full = wait_before(Retry(max_attempts=None, backoff=SECOND, cap=60 * SECOND, jitter=0), tries, seed=seed)

    wait = wait_before(policy, tries, seed=seed)

    assert full * (1 - jitter) - timedelta(microseconds=1) <= wait <= full
    assert wait == wait_before(policy, tries, seed=seed)


def test_many_that_fail_together_do_not_come_back_together() -> None:
    waits = {next_attempt(Retry(jitter=0.5), 1, seed=str(n)) for n in range(100)}

    assert len(waits) > 90


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": 0},
        {"factor": 0.5},
        {"jitter": 2},
        {"backoff": -SECOND},
        {"immediate": -1},
        {"factor": float("inf")},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must"):
        Retry(**wrong)  # type: ignore[arg-type]


def test_tries_start_at_one() -> None:
    with pytest.raises(ValueError, match="1 or more"):
        next_attempt(Retry(), 0, seed="m")
