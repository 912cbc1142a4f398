"""The rules of a participant, in any order of deliveries, with handlers that succeed, refuse and raise."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from messaging import envelope as wire
from messaging.inbox import NOTHING_TO_UNDO, UNDONE, Answer, Claim, open_order

SUCCEEDS, REFUSES, RAISES = "succeeds", "refuses", "raises"
ANSWERS = {SUCCEEDS: Answer(wire.SUCCESS), REFUSES: Answer(wire.FAILURE, "refused")}
ROUNDS = ("undo#1", "undo#2")


class Rows:
    """Claims in a dictionary; a transaction is a copy of it."""

    def __init__(self, claims: dict[str, Claim]) -> None:
        self.claims = claims

    def claim(self, key: str, *, undone: bool = False) -> Claim | None:
        if key in self.claims:
            return self.claims[key]
        self.claims[key] = Claim(undone, None)
        return None

    def store(self, key: str, answer: Answer) -> None:
        self.claims[key] = replace(self.claims[key], answer=answer)


class Participant:
    """An account that is charged by the action and given back by its compensation."""

    def __init__(self) -> None:
        self.claims: dict[str, Claim] = {}
        self.charged = 0
        self.answers: dict[str, list[Answer]] = {}
        self.charges = 0

    def deliver(self, key: str, what_happens: str) -> None:
        rows = Rows(dict(self.claims))
        answer = open_order(rows, key, "" if key == "action" else "action")
        if answer is None:
            if what_happens == RAISES:
                return
            answer = ANSWERS[what_happens]
            if answer.outcome == wire.SUCCESS:
                self.charged += 1 if key == "action" else -1
                self.charges += key == "action"
            rows.store(key, answer)
        self.claims = rows.claims
        self.answers.setdefault(key, []).append(answer)

    def ever_was(self, key: str, outcome: str) -> bool:
        return any(answer.outcome == outcome for answer in self.answers.get(key, ()))


deliveries = st.lists(
    st.tuples(st.sampled_from(["action", "undo#1"]), st.sampled_from([SUCCEEDS, REFUSES, RAISES])), max_size=12
)


@given(deliveries)
def test_whatever_comes_in_whatever_order_a_confirmed_undo_leaves_nothing_done(
    sequence: list[tuple[str, str]],
) -> None:
    participant = Participant()
    for key, what_happens in sequence:
        participant.deliver(key, what_happens)

    assert participant.charges <= 1
    if participant.ever_was("undo#1", wire.SUCCESS):
        assert participant.charged == 0
    for answers in participant.answers.values():
        assert len(set(answers)) == 1, "one order, one answer"


@given(deliveries)
def test_an_action_that_comes_after_its_undo_never_happens(sequence: list[tuple[str, str]]) -> None:
    participant = Participant()
    participant.deliver("undo#1", SUCCEEDS)
    for key, what_happens in sequence:
        participant.deliver(key, what_happens)

    assert participant.charges == 0
    assert set(participant.answers.get("action", [UNDONE])) == {UNDONE}
    assert set(participant.answers["undo#1"]) == {NOTHING_TO_UNDO}


def test_a_refused_undo_is_done_by_its_next_round() -> None:
    participant = Participant()
    participant.deliver("action", SUCCEEDS)
    participant.deliver(ROUNDS[0], REFUSES)
    participant.deliver(ROUNDS[1], SUCCEEDS)

    assert participant.charged == 0
