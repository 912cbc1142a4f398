"""Whatever two processes do in whatever order: with sagas at hand it comes to the very same as without."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, TypeAlias
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from messaging.envelope import ACCEPTED, FAILURE, RETRY, SUCCESS
from orchestrator.instance import SagaInstance
from orchestrator.signal_codec import signal_to_row
from orchestrator.signals import CancelRequested, PauseRequested, ResumeRequested, RetryRequested
from orchestrator.start import new_instance
from orchestrator.store_records import NewSignal
from tests.unit.engine.bench import BookTrip, Trip, Workbench

IDS = [UUID(int=number, version=4) for number in range(1, 4)]
Act: TypeAlias = Callable[[Workbench], Coroutine[Any, Any, object]]


async def wakes(process: Workbench) -> None:
    await process.engine.wake(50, deadlines=True)


async def publishes(process: Workbench) -> None:
    await process.publish()


async def claims(process: Workbench) -> None:
    await process.engine.claim_unsent()


async def marks(process: Workbench) -> None:
    await process.engine.flush_marks()


async def takes_signals(process: Workbench) -> None:
    await process.engine.signals(10)


def answers(which: tuple[int, ...], outcome: str) -> Act:
    """Takes answers to some of the commands that were sent, old ones and repeated ones too, in one batch."""

    async def act(process: Workbench) -> None:
        sent = process.sent
        if sent:
            await process.engine.replies([process.answer(sent[-1 - place % len(sent)], outcome) for place in which])

    return act


def has_paid(number: int) -> Act:
    async def act(process: Workbench) -> None:
        await process.engine.match_events(await process.engine.keep_events([process.event(number, f"paid-{number}")]))

    return act


def is_asked(number: int, request: Any) -> Act:
    async def act(process: Workbench) -> None:
        row = signal_to_row(request)
        assert row is not None
        async with process.store.transaction() as tx:
            await tx.add_signals([NewSignal(IDS[number], *row)])

    return act


def time_passes(seconds: int) -> Act:
    async def act(process: Workbench) -> None:
        process.clock.advance(timedelta(seconds=seconds))

    return act


ASKED = [request("because", "ann") for request in (CancelRequested, PauseRequested, ResumeRequested, RetryRequested)]
numbers = st.integers(0, len(IDS) - 1)
acts = st.one_of(
    st.sampled_from([wakes, publishes, claims, marks, takes_signals]),
    st.builds(answers, st.lists(st.integers(0, 5), min_size=1, max_size=4).map(tuple), st.just(SUCCESS)),
    st.builds(answers, st.tuples(st.integers(0, 5)), st.sampled_from([FAILURE, RETRY, ACCEPTED])),
    st.builds(has_paid, numbers),
    st.builds(is_asked, numbers, st.sampled_from(ASKED)),
    st.builds(time_passes, st.sampled_from([1, 20, 90])),
)


async def outcome(walk: list[tuple[int, Act]], at_hand: int) -> tuple[list[SagaInstance], list[str]]:
    bench = await Workbench(at_hand=at_hand).open()
    processes = [bench, bench.another_process()]
    async with bench.store.transaction() as tx:
        for number, saga_id in enumerate(IDS):
            state = Trip(number=number)
            await tx.start(new_instance(BookTrip, state, None, "", bench.clock.now(), saga_id=saga_id))
    for process, act in [(0, wakes), (0, publishes), *walk]:
        await act(processes[process])
    return [bench.saga(one) for one in IDS], [message.envelope.message_id for message in bench.sent]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), acts), min_size=4, max_size=30))
def test_it_comes_to_the_same(walk: list[tuple[int, Act]]) -> None:
    kept, read = (asyncio.run(outcome(walk, at_hand)) for at_hand in (1_000_000, 0))

    assert kept == read
