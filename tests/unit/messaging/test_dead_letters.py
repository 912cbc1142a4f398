"""Dead letters without a broker: what is read from their headers, and when a run stops."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from messaging.dead_letter_notes import LOST_HEADERS, dead_letter
from messaging.dead_letters import DeadLetter, Outcome, replay
from messaging.envelope import Envelope
from messaging.errors import NotConfirmed, PublishError
from messaging.transport import DEAD_LETTER_REASON


def of_broker(deaths: Any, **headers: Any) -> DeadLetter:
    notes = {"x-death": json.dumps(deaths), "x-first-death-queue": "orders", "x-delivery-count": 3, **headers}
    return dead_letter(Envelope("m-1", b"{}", headers={"k": "v", **notes}), "orders")


def test_what_the_broker_put_aside_is_told_in_its_words() -> None:
    death = {"count": 2, "reason": "expired", "queue": "orders", "time": "2031-02-03T04:05:06+00:00"}
    letter = of_broker([{**death, "exchange": "events", "routing-keys": ["orders.paid"]}, {"reason": "rejected"}])

    assert (letter.reason, letter.died_at) == ("expired", datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC))
    assert (letter.exchange, letter.routing_key) == ("events", "orders.paid")
    assert letter.envelope.headers == {"k": "v"}
    assert letter.detail == "put aside by the broker, 2 times: expired in queue orders"


def test_a_note_of_the_brokers_counts_for_more_than_an_older_one_of_ours() -> None:
    assert of_broker([{"reason": "delivery_limit"}], **{DEAD_LETTER_REASON: "ours"}).reason == "delivery-limit"


@pytest.mark.parametrize("deaths", ["", [], {}, [1], [None], "text", [[]], [{"routing-keys": 3, "time": []}]])
def test_notes_that_make_no_sense_are_no_reason_to_fail(deaths: Any) -> None:
    assert of_broker(deaths).reason == "unknown"


class Pile:
    """Dead letters in a list, some of which cannot be replayed."""

    def __init__(self, *letters: DeadLetter, error: PublishError | None = None) -> None:
        self.letters, self.error = list(letters), error
        self.replayed: list[str] = []

    @asynccontextmanager
    async def dead_letters(self, queue: str) -> AsyncGenerator[Pile]:
        yield self

    async def dead_letter_count(self, queue: str) -> int | None:
        return len(self.letters)

    async def next(self) -> DeadLetter | None:
        return self.letters.pop(0) if self.letters else None

    async def replay(self, letter: DeadLetter) -> None:
        if self.error:
            raise self.error
        self.replayed.append(letter.id)

    async def remove(self, letter: DeadLetter) -> None:
        raise NotImplementedError


def letter(number: int, **headers: Any) -> DeadLetter:
    return dead_letter(Envelope(f"m-{number}", b"{}", headers=headers), "orders")


async def test_a_letter_that_has_lost_its_headers_is_not_replayed() -> None:
    pile = Pile(letter(1, **{LOST_HEADERS: 3}), letter(2))

    mutilated, whole = await replay(pile, "orders")

    assert "lost 3 headers" in str(mutilated.error) and whole.error is None
    assert pile.replayed == ["m-2"]


async def test_a_run_ends_when_the_broker_confirms_nothing_any_more() -> None:
    pile = Pile(*map(letter, range(500)), error=NotConfirmed("m", "queue 'orders'", "the broker is away"))
    told: list[Outcome] = []

    outcomes = await replay(pile, "orders", tell=told.append)

    assert told == outcomes and 0 < len(outcomes) < 500
