"""An alarm is told once until it is over, and again when it has grown; and what it is told to does no harm."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from orchestrator import OrchestratorSettings
from orchestrator.alarm_hooks import AlarmHook
from orchestrator.alarms import blocked, checks_of
from orchestrator.backlog import Backlog
from orchestrator.instance import BlockedReason, SagaStatus
from orchestrator.memory import MemoryStore
from orchestrator.watchdog import Alarm, Look, Watchdog
from tests.conformance.stores import NOON, SECOND, MovableClock, started

MINUTE = timedelta(minutes=1)
NO_TIME = timedelta(milliseconds=1)


def alarm(about: str = "orders", size: float = 1) -> Alarm:
    return Alarm("blocked", about, f"{about}: {size}", {"sagas": size}, size)


class Trouble:
    """A check that finds what it is given, and a watchdog that asks it."""

    def __init__(self) -> None:
        self.found: Sequence[Alarm] | Exception = ()
        self.told: list[Alarm] = []
        self.shown: list[Backlog] = []
        self.asked, self.was_shown = asyncio.Event(), asyncio.Event()
        self.watchdog = Watchdog(MemoryStore(), [self.check], self.told.append, self.show)

    async def check(self, look: Look) -> Sequence[Alarm]:
        self.asked.set()
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def show(self, backlog: Backlog) -> None:
        self.shown.append(backlog)
        self.was_shown.set()

    async def looked(self, *found: Alarm) -> list[Alarm]:
        self.found = found
        self.told.clear()
        await self.watchdog.look()
        return self.told


async def test_an_alarm_is_told_once_until_it_is_over() -> None:
    trouble = Trouble()
    assert await trouble.looked(alarm(), alarm("trips")) == [alarm(), alarm("trips")]
    assert await trouble.looked(alarm(size=2), alarm("trips")) == []
    assert await trouble.looked(alarm("trips")) == []
    assert await trouble.looked(alarm(), alarm("trips")) == [alarm()]


async def test_an_alarm_that_has_grown_tenfold_since_it_was_told_is_told_again() -> None:
    trouble = Trouble()
    sizes = (3, 29, 30, 299, 4, 300)
    told = [one.size for size in sizes for one in await trouble.looked(alarm(size=size))]
    assert told == [3, 30, 300]


async def test_a_database_that_does_not_answer_ends_no_alarm() -> None:
    trouble = Trouble()
    await trouble.looked(alarm())
    trouble.found = OSError("away")
    await trouble.watchdog.look()
    assert await trouble.looked(alarm()) == []


async def test_an_alarm_and_its_end_are_logged_with_its_facts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "orchestrator.watchdog")
    trouble = Trouble()
    await trouble.looked(alarm())
    await trouble.looked()
    raised, over = caplog.records
    assert (raised.levelname, vars(raised)["alarm"]) == ("WARNING", {"kind": "blocked", "sagas": 1})
    assert (over.levelname, over.getMessage()) == ("INFO", "No alarm any more: blocked, orders")


async def test_the_first_look_of_a_process_shows_what_waits_and_raises_no_alarm() -> None:
    trouble = Trouble()
    trouble.found = [alarm()]
    running = asyncio.create_task(trouble.watchdog.run(timedelta(hours=1)))
    await asyncio.wait_for(trouble.was_shown.wait(), 30)
    trouble.watchdog.stop()
    await asyncio.wait_for(running, 30)
    assert (trouble.shown, trouble.told) == ([Backlog()], [])

    trouble.watchdog = Watchdog(MemoryStore(), [trouble.check], trouble.told.append)
    running = asyncio.create_task(trouble.watchdog.run(NO_TIME))
    await asyncio.wait_for(trouble.asked.wait(), 30)
    trouble.watchdog.stop()
    await asyncio.wait_for(running, 30)
    assert trouble.told == [alarm()]


async def test_a_hundred_blocked_sagas_are_told_once_and_once_more_at_a_thousand() -> None:
    clock, told = MovableClock(), list[Alarm]()
    store = MemoryStore(clock)
    watchdog = Watchdog(store, [blocked(MINUTE)], told.append)
    fields: dict[str, Any] = {
        "status": SagaStatus.BLOCKED,
        "blocked_reason": BlockedReason.CODE_ERROR,
        "blocked_step": "Booking",
        "blocked_from": SagaStatus.RUNNING,
        "blocked_at": NOON,
        "wake_at": None,
    }
    for sagas in (100, 899, 1):
        for _ in range(sagas):
            await started(store, **fields)
        clock.move(MINUTE + SECOND)
        await watchdog.look()
        await watchdog.look()

    assert [one.size for one in told] == [100, 1000]


def test_zero_switches_an_alarm_off() -> None:
    names = ("lock", "hold", "blocked", "overdue", "unsent", "outbox")
    off: dict[str, float] = {f"{name}_alarm_seconds": 0 for name in names}
    off |= {"unmatched_alarm_messages": 0, "failing_alarm_percent": 0}
    assert len(checks_of(OrchestratorSettings())) == len(off)
    for name in off:
        assert len(checks_of(OrchestratorSettings.model_validate({name: 0}))) == len(off) - 1
    assert checks_of(OrchestratorSettings.model_validate(off)) == []


class Pager:
    """Notes alarms; the event is set when it has so many."""

    def __init__(self, wanted: int) -> None:
        self.wanted, self.paged, self.done = wanted, list[str](), asyncio.Event()
        self.loop = asyncio.get_running_loop()

    def page(self, alarm: Alarm) -> None:
        self.paged.append(alarm.about)
        if len(self.paged) == self.wanted:
            self.loop.call_soon_threadsafe(self.done.set)


async def test_a_plain_function_is_called_in_a_thread_and_an_async_one_in_the_loop() -> None:
    threads: list[threading.Thread] = []
    plain, other, lazy = Pager(2), Pager(2), Pager(2)

    def page(alarm: Alarm) -> None:
        threads.append(threading.current_thread())
        plain.page(alarm)

    async def page_too(alarm: Alarm) -> None:
        threads.append(threading.current_thread())
        other.page(alarm)

    async def page_as_well(alarm: Alarm) -> None:
        lazy.page(alarm)

    for pager, call in ((plain, page), (other, page_too), (lazy, lambda one: page_as_well(one))):
        hook = AlarmHook(call)
        hook.alarmed(alarm("first"))
        hook.alarmed(alarm("second"))
        await asyncio.wait_for(pager.done.wait(), 30)
        assert pager.paged == ["first", "second"]

    assert threads[2:] == [threading.current_thread()] * 2
    assert threading.current_thread() not in threads[:2]


async def test_a_hook_that_raises_is_logged_and_called_for_the_next(caplog: pytest.LogCaptureFixture) -> None:
    pager = Pager(2)

    def page(alarm: Alarm) -> None:
        pager.page(alarm)
        raise SystemExit(3) if alarm.about == "first" else ValueError("no such pager")

    hook = AlarmHook(page)
    for about in ("first", "second"):
        hook.alarmed(alarm(about))
    await asyncio.wait_for(hook.idle(), 30)

    assert pager.paged == ["first", "second"]
    assert [record.getMessage() for record in caplog.records] == [
        "A hook for alarms raised, for: first: 1",
        "A hook for alarms raised, for: second: 1",
    ]


async def test_a_hook_that_hangs_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    async def hang(_: Alarm) -> None:
        await asyncio.Event().wait()

    hook = AlarmHook(hang, within=NO_TIME)
    hook.alarmed(alarm())
    await asyncio.wait_for(hook.idle(), 30)

    assert "took longer than 0:00:00.001000, for: orders: 1" in caplog.text


async def test_a_thread_that_hangs_keeps_no_others_busy(caplog: pytest.LogCaptureFixture) -> None:
    released, begun = threading.Event(), list[str]()

    def hang(alarm: Alarm) -> None:
        begun.append(alarm.about)
        released.wait(30)

    hook = AlarmHook(hang, within=NO_TIME)
    for about in ("first", "second"):
        hook.alarmed(alarm(about))
    await asyncio.wait_for(hook.idle(), 30)
    released.set()

    assert begun == ["first"]
    assert "its call for an earlier alarm has not ended yet" in caplog.text
