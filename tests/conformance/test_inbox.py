"""The rules of a participant, over every database that keeps an inbox."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from messaging import envelope as wire
from messaging.inbox import NOTHING_TO_UNDO, UNDONE, Answer, StillWorking, open_event, open_order
from messaging.sql import SqlInbox, in_transaction
from tests.conformance.sql_backends import Sessions, dialect_of, sessions

__all__ = ["sessions"]

T = TypeVar("T")

ACTION, UNDO = "saga-1/Charging/action#1", "saga-1/Charging/compensation#1"
CHARGED = Answer(wire.SUCCESS, "", "charged", b'{"charge":"ch_1"}')
REFUSED = Answer(wire.FAILURE, "card-refused", "card-refused", b'{"reason":"no funds"}')


class Participant:
    """A service that charges, and says what it was asked to do."""

    def __init__(self, sessions: Sessions, name: str = "payments", **options: timedelta) -> None:
        self.sessions, self.inbox = sessions, SqlInbox(name, **options)
        self.runs: list[str] = []

    async def ask(self, key: str, answer: Answer = CHARGED, compensates: str = "") -> Answer:
        def work(session: Session) -> Answer:
            rows = self.inbox.rows(session)
            stored = open_order(rows, key, compensates)
            if stored is not None:
                return stored
            self.runs.append(key)
            rows.store(key, answer)
            return answer

        return await in_transaction(self.sessions, work)

    async def crash(self, key: str, compensates: str = "") -> None:
        def work(session: Session) -> None:
            open_order(self.inbox.rows(session), key, compensates)
            raise ConnectionAbortedError

        with pytest.raises(ConnectionAbortedError):
            await in_transaction(self.sessions, work)


@pytest.mark.parametrize("answer", [CHARGED, REFUSED, Answer(wire.SUCCESS, "", "", '{"name":"Zoë"}'.encode())])
async def test_a_repeated_order_is_answered_as_the_first_time_and_not_run_again(
    sessions: Sessions, answer: Answer
) -> None:
    payments = Participant(sessions)

    first = await payments.ask(ACTION, answer)

    assert await payments.ask(ACTION, REFUSED) == first == answer
    assert payments.runs == [ACTION]


async def test_an_order_that_was_rolled_back_leaves_no_claim(sessions: Sessions) -> None:
    payments = Participant(sessions)
    await payments.crash(ACTION)

    assert await payments.ask(ACTION) == CHARGED


async def test_two_services_of_one_database_do_not_answer_for_each_other(sessions: Sessions) -> None:
    payments, shipping = Participant(sessions, "payments"), Participant(sessions, "shipping")
    await payments.ask(ACTION)

    assert await shipping.ask(ACTION, REFUSED) == REFUSED


async def test_undoing_what_succeeded_runs_the_compensation_once(sessions: Sessions) -> None:
    payments = Participant(sessions)
    await payments.ask(ACTION)

    assert await payments.ask(UNDO, compensates=ACTION) == CHARGED
    assert await payments.ask(UNDO, REFUSED, compensates=ACTION) == CHARGED
    assert payments.runs == [ACTION, UNDO]


async def test_undoing_what_was_refused_has_nothing_to_undo(sessions: Sessions) -> None:
    payments = Participant(sessions)
    await payments.ask(ACTION, REFUSED)

    assert await payments.ask(UNDO, compensates=ACTION) == NOTHING_TO_UNDO
    assert await payments.ask(ACTION) == REFUSED
    assert payments.runs == [ACTION]


async def test_an_undo_that_overtakes_its_action_bars_it(sessions: Sessions) -> None:
    payments = Participant(sessions)

    assert await payments.ask(UNDO, compensates=ACTION) == NOTHING_TO_UNDO
    assert await payments.ask(UNDO, compensates=ACTION) == NOTHING_TO_UNDO
    assert await payments.ask(ACTION) == UNDONE
    assert await payments.ask(ACTION) == UNDONE
    assert payments.runs == []


async def test_a_compensation_that_was_rolled_back_bars_nothing(sessions: Sessions) -> None:
    payments = Participant(sessions)
    await payments.crash(UNDO, compensates=ACTION)

    assert await payments.ask(ACTION) == CHARGED


async def test_a_compensation_that_failed_is_run_again_in_its_next_round(sessions: Sessions) -> None:
    payments = Participant(sessions)
    await payments.ask(ACTION)
    await payments.ask(UNDO, REFUSED, compensates=ACTION)

    assert await payments.ask("saga-1/Charging/compensation#2", compensates=ACTION) == CHARGED
    assert len(payments.runs) == 3


async def test_a_later_round_of_an_undo_without_action_has_nothing_to_undo_either(sessions: Sessions) -> None:
    payments = Participant(sessions)
    await payments.ask(UNDO, compensates=ACTION)

    assert await payments.ask("saga-1/Charging/compensation#2", compensates=ACTION) == NOTHING_TO_UNDO


async def test_an_undo_names_the_latest_round_and_a_late_copy_of_an_earlier_one_stays_refused(
    sessions: Sessions,
) -> None:
    payments = Participant(sessions)
    latest = "saga-1/Charging/action#2"
    await payments.ask(ACTION, REFUSED)
    await payments.ask(latest)

    assert await payments.ask(UNDO, compensates=latest) == CHARGED
    assert await payments.ask(ACTION) == REFUSED
    assert payments.runs == [ACTION, latest, UNDO]


async def test_an_event_is_handled_once(sessions: Sessions) -> None:
    inbox = SqlInbox("payments")

    async def told() -> bool:
        return await in_transaction(sessions, lambda session: open_event(inbox.rows(session), "message:1"))

    assert [await told(), await told()] == [True, False]


async def test_claims_are_deleted_by_age_and_in_batches(sessions: Sessions) -> None:
    payments = Participant(sessions)
    for number in range(5):
        await payments.ask(f"key-{number}")
    later = datetime.now(UTC) + timedelta(days=40)

    async def purge(before: datetime) -> int:
        return await in_transaction(sessions, lambda s: payments.inbox.purge(s, before=before, limit=3))

    assert await purge(later - timedelta(days=41)) == 0
    assert [await purge(later), await purge(later), await purge(later)] == [3, 2, 0]
    await payments.ask("key-1", REFUSED)
    assert payments.runs[-1] == "key-1"


async def test_ten_copies_at_once_run_it_once(sessions: Sessions) -> None:
    payments = Participant(sessions)

    answers = await asyncio.gather(*(payments.ask(ACTION) for _ in range(10)))

    assert answers == [CHARGED] * 10
    assert payments.runs == [ACTION]


class Working:
    """An order whose transaction is open until it is told to end."""

    def __init__(self, payments: Participant, key: str) -> None:
        self.payments, self.key = payments, key
        self.started, self.may_end = asyncio.Event(), asyncio.Event()
        self.fails = False

    async def run(self) -> None:
        async with self.payments.sessions() as session, session.begin():
            rows: Callable[[Session], object] = self._open
            await session.run_sync(rows)
            self.started.set()
            await self.may_end.wait()
            if self.fails:
                await session.rollback()
                return
            await session.run_sync(lambda sync: self.payments.inbox.rows(sync).store(self.key, CHARGED))

    def _open(self, session: Session) -> None:
        assert open_order(self.payments.inbox.rows(session), self.key) is None


async def waiting_for_a_lock(sessions: Sessions, task: asyncio.Task[Answer]) -> None:
    """Return when another transaction waits for the open one."""
    if dialect_of(sessions) == "sqlite":
        # The driver's thread waits inside SQLite, which tells nobody; the order holds either way.
        return
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    while not task.done():
        async with sessions() as session:
            if await session.scalar(waiting):
                return


@pytest.mark.parametrize("fails", [False, True], ids=["it commits", "it rolls back"])
async def test_an_undo_waits_for_its_action_and_goes_by_what_that_leaves(sessions: Sessions, fails: bool) -> None:
    payments = Participant(sessions)
    action = Working(payments, ACTION)
    action.fails = fails
    doing = asyncio.create_task(action.run())
    await action.started.wait()

    undo = asyncio.create_task(payments.ask(UNDO, compensates=ACTION))
    await waiting_for_a_lock(sessions, undo)
    assert not undo.done()
    action.may_end.set()
    await doing

    assert await undo == (NOTHING_TO_UNDO if fails else CHARGED)
    assert payments.runs == ([] if fails else [UNDO])
    assert await payments.ask(ACTION) == (UNDONE if fails else CHARGED)


async def test_an_action_waits_for_the_undo_that_overtakes_it(sessions: Sessions) -> None:
    payments = Participant(sessions)
    barred, may_end = asyncio.Event(), asyncio.Event()

    async def undo() -> None:
        async with sessions() as session, session.begin():
            await session.run_sync(lambda sync: open_order(payments.inbox.rows(sync), UNDO, ACTION))
            barred.set()
            await may_end.wait()

    undoing = asyncio.create_task(undo())
    await barred.wait()
    action = asyncio.create_task(payments.ask(ACTION))
    await waiting_for_a_lock(sessions, action)
    may_end.set()
    await undoing

    assert await action == UNDONE
    assert payments.runs == []


async def test_a_copy_gives_up_waiting_in_bounded_time_and_never_runs_beside_the_first(sessions: Sessions) -> None:
    if dialect_of(sessions) == "sqlite":
        pytest.skip("the connection's own busy timeout bounds the wait")
    payments = Participant(sessions, claim_wait=timedelta(milliseconds=50))
    action = Working(payments, ACTION)
    doing = asyncio.create_task(action.run())
    await action.started.wait()

    with pytest.raises(StillWorking):
        await payments.ask(ACTION)

    action.may_end.set()
    await doing
    assert await payments.ask(ACTION) == CHARGED
    assert payments.runs == []


async def test_a_claim_without_an_answer_is_somebody_still_working(sessions: Sessions) -> None:
    """Other participants may commit their claim before their work; then there is nothing to answer yet."""
    payments = Participant(sessions)
    await in_transaction(sessions, lambda session: payments.inbox.rows(session).claim(ACTION))

    with pytest.raises(StillWorking, match="still being worked on"):
        await payments.ask(ACTION)
    with pytest.raises(StillWorking):
        await payments.ask(UNDO, compensates=ACTION)
