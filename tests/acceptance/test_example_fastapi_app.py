"""The web example: 202 means committed, rolled back means nothing started, asked twice means one saga."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from tests.support.programs import Program, Programs, until
from tests.support.services import free_ports

_SERVER = """
import json, sqlite3, sys
import uvicorn
from fastapi_app.main import api

def committed():
    with sqlite3.connect("saga.db") as database:
        return [[table, count] for table in ("booking", "saga_instance")
                for (count,) in database.execute(f"SELECT count(*) FROM {table}")]

async def looking(scope, receive, send):
    '''Tells, with each response, what was committed when it began to be sent.'''
    async def seen(message):
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"x-committed", json.dumps(committed()).encode())]
        await send(message)
    await api(scope, receive, seen if scope["type"] == "http" else send)

uvicorn.run(looking, host="127.0.0.1", port=int(sys.argv[1]), log_level="info")
"""


@pytest.fixture
def server(programs: Programs) -> tuple[Program, str]:
    """The example behind a real web server, in one process with its saga and its service."""
    (port,) = free_ports(1)
    (programs.folder / "looking.py").write_text(_SERVER)
    program = programs.python("looking", str(port), PYTHONPATH=_path(programs.folder))
    program.wait_until_it_says("Application startup complete")
    return program, f"http://127.0.0.1:{port}"


def _path(folder: Path) -> str:
    from tests.support.programs import EXAMPLES, ROOT

    return f"{folder}:{ROOT}:{EXAMPLES}"


def booking(guest: str, seat: str) -> dict[str, Any]:
    return {"id": str(uuid4()), "guest": guest, "seat": seat}


def committed(response: httpx.Response) -> dict[str, int]:
    return dict(json.loads(response.headers["x-committed"]))


def sagas_in(folder: Path) -> int:
    with sqlite3.connect(folder / "saga.db") as database:
        (count,) = database.execute("SELECT count(*) FROM saga_instance").fetchone()
    database.close()
    return int(count)


async def end_of(client: httpx.AsyncClient, saga_id: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    async def has_ended() -> bool:
        found.update((await client.get(f"/bookings/{saga_id}")).json())
        return found["status"] not in ("running", "compensating")

    await until(has_ended)
    return found


async def test_a_booking_is_committed_when_its_response_begins_and_its_saga_completes(
    server: tuple[Program, str],
) -> None:
    async with httpx.AsyncClient(base_url=server[1], timeout=90) as client:
        response = await client.post("/bookings", json=booking("ann", "1A"))

        assert response.status_code == 202
        assert committed(response) == {"booking": 1, "saga_instance": 1}
        assert response.json()["created"] is True
        assert (await end_of(client, response.json()["saga_id"]))["status"] == "completed"


async def test_a_seat_that_is_taken_compensates_the_second_booking(server: tuple[Program, str]) -> None:
    async with httpx.AsyncClient(base_url=server[1], timeout=90) as client:
        first = await client.post("/bookings", json=booking("ann", "1A"))
        assert (await end_of(client, first.json()["saga_id"]))["status"] == "completed"

        second = await client.post("/bookings", json=booking("bob", "1A"))
        end = await end_of(client, second.json()["saga_id"])

        assert (end["status"], end["refusal"]) == ("compensated", "seat 1A is taken")


async def test_a_request_that_is_rolled_back_starts_nothing(server: tuple[Program, str], programs: Programs) -> None:
    async with httpx.AsyncClient(base_url=server[1], timeout=90) as client:
        assert (await client.post("/bookings", json=booking("ann", "1A"))).status_code == 202

        refused = await client.post("/bookings", json=booking("ann", "1B"))

        assert refused.status_code == 409
        assert committed(refused) == {"booking": 1, "saga_instance": 1}
        assert sagas_in(programs.folder) == 1


async def test_a_booking_posted_again_and_again_is_one_saga(server: tuple[Program, str], programs: Programs) -> None:
    new = booking("ann", "1A")
    async with httpx.AsyncClient(base_url=server[1], timeout=90) as client:
        responses = await asyncio.gather(*(client.post("/bookings", json=new) for _ in range(10)))

        assert [response.status_code for response in responses] == [202] * 10
        assert len({response.json()["saga_id"] for response in responses}) == 1
        assert sum(response.json()["created"] for response in responses) == 1
        assert sagas_in(programs.folder) == 1


async def test_an_unknown_booking_is_not_found(server: tuple[Program, str]) -> None:
    async with httpx.AsyncClient(base_url=server[1], timeout=90) as client:
        assert (await client.get(f"/bookings/{UUID(int=7)}")).status_code == 404
