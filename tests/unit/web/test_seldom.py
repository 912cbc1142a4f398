"""What is dear to read is read once for all who ask, until it is too old."""

from __future__ import annotations

import asyncio

from orchestrator.web.seldom import Seldom


async def test_many_who_ask_at_once_are_told_what_one_read() -> None:
    read: list[int] = []

    async def counted() -> int:
        await asyncio.sleep(0)
        read.append(1)
        return len(read)

    kept = Seldom[int]()

    assert await asyncio.gather(*(kept.get(counted) for _ in range(3))) == [1, 1, 1]


async def test_what_is_too_old_is_read_anew() -> None:
    read = iter((1, 2))

    async def counted() -> int:
        return next(read)

    kept = Seldom[int](seconds=-1)

    assert [await kept.get(counted), await kept.get(counted)] == [1, 2]
