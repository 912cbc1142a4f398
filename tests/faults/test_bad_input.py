"""Whatever arrives on a queue: it is recorded with why, the consumer lives on, and innocents are not touched."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from messaging.dead_letters import found, purge
from tests.faults.conftest import prepared
from tests.faults.grounds import READABLE_AFTER_ALL, UNREADABLE_PROPERTIES, Distributed, Embedded, Ground, Letter
from tests.faults.shop import Kind
from tests.faults.system import EVENTS, REPLIES, NewShop, System, eventually, opened

# Bodies that no reader takes; they are dead-lettered with their raw bytes.
UNREADABLE = {
    "no UTF-8": b"\xff\xfe{",
    "no JSON": b'{"order_id": ',
    "NUL in a text": b'{"order_id": "a\\u0000b"}',
    "NaN": b'{"order_id": NaN}',
    "too deep": b"[" * 100_000 + b"]" * 100_000,
    "too large": b'"' + b"x" * 10_000_000 + b'"',
    "lone surrogate": b'{"order_id": "\\ud800"}',
}


@asynccontextmanager
async def distributed(new_shop: NewShop) -> AsyncGenerator[Ground]:
    async with new_shop() as system:
        yield Distributed(system)


@asynccontextmanager
async def embedded(folder: Path) -> AsyncGenerator[Ground]:
    sagas, participants = (f"sqlite+aiosqlite:///{folder}/{name}.db" for name in ("sagas", "shop"))
    prepared(sagas, participants)
    with sqlite3.connect(folder / "shop.db") as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    async with opened(System("memory://", "", sagas, participants, folder)) as system:
        ground = Embedded(system)
        try:
            yield ground
        finally:
            await ground.stop()


@pytest.fixture(params=["distributed", "embedded"])
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> AbstractAsyncContextManager[Ground]:
    """A shop on RabbitMQ and PostgreSQL, and one on memory and SQLite; only the first needs servers."""
    if request.param == "distributed":
        return distributed(request.getfixturevalue("new_shop"))
    return embedded(tmp_path)


@pytest.fixture
async def shop(opening: AbstractAsyncContextManager[Ground]) -> AsyncIterator[Ground]:
    async with opening as ground:
        yield ground


async def buried(shop: Ground, queue: str, count: int) -> None:
    """See that so many dead letters lie there, each with why, and throw them away."""
    async with shop.keeper() as keeper:

        async def all_there() -> bool:
            return (await keeper.dead_letter_count(queue) or 0) >= count

        await eventually(all_there, f"{count} dead letters of {queue}; {tails(shop)}")
        letters = await found(keeper, queue)
        assert len(letters) == count
        assert all(letter.reason != "unknown" and letter.died_at for letter in letters)
        assert {letter.routing_key for letter in letters} == {shop.system.prefix + queue}
        assert {letter.envelope.body for letter in letters} >= set(UNREADABLE.values()), "raw bytes are kept"
        assert not any(outcome.error for outcome in await purge(keeper, queue))


def tails(shop: Ground) -> str:
    return "\n".join(child.tail() for child in shop.system.children)


async def unmatched(shop: Ground, count: int) -> list[str]:
    async def all_there() -> bool:
        return len(await shop.system.rows("SELECT 1 FROM saga_unmatched")) >= count

    await eventually(all_there, f"{count} unmatched messages; {tails(shop)}")
    rows = await shop.system.rows("SELECT reason, saga_id FROM saga_unmatched")
    assert len(rows) == count, rows
    assert all(reason for reason, _ in rows)
    return [str(saga_id) for _, saga_id in rows if saga_id]


async def finished(shop: Ground) -> None:
    await shop.system.all_ended()
    await shop.stop()
    await shop.system.check(unmatched=True)
    await shop.nothing_left_in_queues()


async def test_replies_that_cannot_be_used_are_kept_with_why_and_decide_nothing(shop: Ground) -> None:
    await (await shop.start("services"))()  # stopped again; their queues stay
    await shop.start("orchestrator")
    victim, other, *_ = await shop.system.place([Kind.PLAIN] * 20)

    async def all_asked() -> bool:
        return len(await shop.system.rows("SELECT 1 FROM saga_step WHERE sent_at IS NOT NULL")) == 20

    await eventually(all_asked, "all commands are sent")
    commands = dict(await shop.system.rows("SELECT CAST(saga_id AS text), CAST(command_id AS text) FROM saga_step"))
    victim_id, other_id = str(shop.system.saga_ids[victim]), str(shop.system.saga_ids[other])
    to_victim = commands[victim_id]
    answer = json.dumps({"order_id": victim}).encode()

    unreadable = [Letter(body, to_victim) for body in UNREADABLE.values()]
    unreadable.append(Letter(answer, to_victim, headers={"error-code": "a\0b"}))
    unusable = [
        Letter(b"[1, 2]", to_victim),
        Letter(b'"text"', to_victim),
        Letter(b'{"order_id": 17}', to_victim),
        Letter(answer, to_victim, headers={"outcome": "perhaps"}),
    ]
    of_nobody = [Letter(answer, str(uuid.uuid4())), Letter(answer, "no uuid"), Letter(answer)]
    await shop.post(REPLIES, [*unreadable, *unusable, *of_nobody])
    await shop.post_raw(REPLIES)
    await buried(shop, REPLIES, len(unreadable) + UNREADABLE_PROPERTIES)
    count = len(unusable) + len(of_nobody) + READABLE_AFTER_ALL
    assert await unmatched(shop, count) == [victim_id] * len(unusable)
    assert set(await shop.system.column("SELECT current_step FROM saga_instance")) == {"ReservingCredit"}

    # Of two sagas it names, the correlation id alone says which one is answered.
    await shop.post(REPLIES, [Letter(answer, to_victim, headers={"saga-id": other_id, "outcome": "success"})])

    async def victim_is_answered() -> bool:
        rows = dict(await shop.system.rows("SELECT business_key, current_step FROM saga_instance"))
        return bool(rows[victim] != "ReservingCredit" and rows[other] == "ReservingCredit")

    await eventually(victim_is_answered, "the victim alone goes on")
    await shop.start("services")
    await finished(shop)


async def test_events_that_cannot_be_used_are_kept_with_why(shop: Ground) -> None:
    await shop.start("orchestrator")
    unreadable = [Letter(body, type="invoice-paid") for body in UNREADABLE.values()]
    unreadable.append(Letter(b"{}", type="a\0b"))
    unusable = [
        Letter(b"[1, 2]", type="invoice-paid"),
        Letter(b'{"order_id": null}', type="invoice-paid"),
        Letter(b"{}", type="invoice-paid", headers={"saga-id": "nobody"}),
        Letter(b'{"order_id": "1"}', type="of-another-shop"),
        Letter(b'{"order_id": "1"}'),
    ]
    of_nobody = [Letter(b'{"order_id": "no such order"}', type="invoice-paid")]
    await shop.post(EVENTS, [*unreadable, *unusable, *of_nobody])
    await shop.post_raw(EVENTS)
    await buried(shop, EVENTS, len(unreadable) + UNREADABLE_PROPERTIES)
    await unmatched(shop, len(unusable) + READABLE_AFTER_ALL)
    assert await shop.system.column("SELECT consumed_by FROM saga_event") == [None]
    await shop.start("services")
    await shop.system.place()
    await finished(shop)


async def test_commands_that_cannot_be_used_are_dead_lettered_and_answered(shop: Ground) -> None:
    await shop.start("orchestrator")
    await shop.start("services")
    await shop.system.place()
    good = b'{"order_id": "1", "kind": "plain"}'
    unreadable = [Letter(body, type="reserve-credit") for body in UNREADABLE.values()]
    unusable = [
        Letter(b"[1, 2]", type="reserve-credit"),
        Letter(b'{"order_id": "1", "kind": "unheard of"}', type="reserve-credit"),
        Letter(good, type="of-another-shop"),
        Letter(good),
        Letter(good, type="reserve-credit", headers={"idempotency-key": "a\0b"}),
        Letter(good, type="reserve-credit", headers={"idempotency-key": "k" * 5000}),
    ]
    # This one says where it wants its answer, which fits no saga.
    unusable.append(Letter(b"[]", str(uuid.uuid4()), "reserve-credit", reply_to=shop.system.prefix + REPLIES))
    await shop.post("customers", [*unreadable, *unusable])
    await shop.post_raw("customers")
    without_type = UNREADABLE_PROPERTIES + READABLE_AFTER_ALL
    await buried(shop, "customers", len(unreadable) + len(unusable) + without_type)
    await unmatched(shop, 1)
    await shop.system.place()
    await finished(shop)
