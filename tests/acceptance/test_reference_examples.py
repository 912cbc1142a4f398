"""The reference sagas as their READMEs run them: one process, files, and `saga` in a second terminal."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

import pytest

from orchestrator.cli import exits
from tests.support.programs import Program, Programs, eventually


@pytest.fixture
def programs() -> Programs:
    return Programs()


def up(programs: Programs, example: str) -> Program:
    program = programs.python(f"{example}.main")
    program.wait_until_it_says("Running")
    return program


def started(programs: Programs, example: str, saga: str, state: Mapping[str, Any], *more: str) -> Program:
    return programs.saga("start", saga, "--app", f"{example}.main:app", "--data", json.dumps(state), *more)


def ended(programs: Programs, example: str, saga: str, state: Mapping[str, Any]) -> str:
    """Start a saga, wait for its end and return its status."""
    program = started(programs, example, saga, state, "--wait", "--json")
    assert program.result() in (exits.OK, exits.NOT_COMPLETED), program.said + programs.tails()
    return str(json.loads(program.said)["status"])


def rows(programs: Programs, file: str, query: str) -> list[Any]:
    with sqlite3.connect(programs.folder / file) as database:
        found = database.execute(query).fetchall()
    database.close()
    return found


def down(program: Program) -> None:
    program.interrupt()
    assert program.result() == 0, program.said


def test_trips_are_booked_refused_and_cancelled(programs: Programs) -> None:
    with programs:
        agency = up(programs, "travel_booking")
        book = ("travel_booking", "book-trip")
        assert ended(programs, *book, {"trip_id": "1", "to": "Paris", "hours_to_think": 0}) == "completed"
        assert ended(programs, *book, {"trip_id": "2", "to": "Atlantis"}) == "compensated"
        trip = programs.done(started(programs, *book, {"trip_id": "3", "to": "Rome"})).split()[0]
        eventually(lambda: len(rows(programs, "travel.db", "SELECT 1 FROM booking WHERE trip_id = '3'")) == 3)
        programs.done(programs.saga("cancel", trip, "--reason", "ill"))
        undone = "SELECT trip_id, count(*) FROM booking WHERE status = 'cancelled' GROUP BY trip_id ORDER BY 1"
        eventually(lambda: rows(programs, "travel.db", undone) == [("2", 2), ("3", 3)], because=programs.tails)
        assert len(rows(programs, "travel.db", "SELECT 1 FROM booking WHERE trip_id = '1'")) == 4
        down(agency)


def test_money_arrives_or_is_given_back(programs: Programs) -> None:
    with programs:
        bank = up(programs, "money_transfer")
        transfer = ("money_transfer", "transfer-money")
        money = {"source": "ann", "target": "bob", "cents": 500}
        assert ended(programs, *transfer, {**money, "transfer_id": "1"}) == "completed"
        assert ended(programs, *transfer, {**money, "transfer_id": "2", "target": "late-carl"}) == "compensated"
        assert ended(programs, *transfer, {**money, "transfer_id": "3", "cents": 20_000}) == "compensated"
        balances = dict(rows(programs, "bank.db", "SELECT name, balance_cents FROM account"))
        assert balances == {"ann": 9_500, "bob": 500, "late-carl": 0}
        assert rows(programs, "bank.db", "SELECT sum(cents) FROM entry") == [(0,)]
        down(bank)


def test_an_order_of_five_hundred_lines_is_shipped_or_released(programs: Programs) -> None:
    with programs:
        warehouse = up(programs, "order_lines")
        order = {"order_id": "1", "lines": [{"sku": f"sku-{number}"} for number in range(500)]}
        assert ended(programs, "order_lines", "ship-lines", order) == "completed"
        short = {"order_id": "2", "lines": [*order["lines"][:50], {"sku": "lamp", "pieces": 101}]}
        assert ended(programs, "order_lines", "ship-lines", short) == "compensated"
        status = "SELECT order_id, status, count(*) FROM reservation GROUP BY 1, 2"
        assert rows(programs, "warehouse.db", status) == [("1", "shipped", 500), ("2", "released", 50)]
        assert rows(programs, "warehouse.db", "SELECT sum(100 - left) FROM shelf") == [(500,)]
        down(warehouse)


def test_a_meal_waits_for_the_kitchen_and_for_the_courier(programs: Programs) -> None:
    with programs:
        restaurant = up(programs, "food_delivery")
        meal = {"meal_id": "1", "dish": "soup", "address": "Elm Street 3", "cents": 900}
        deliver = ("food_delivery", "deliver-meal")
        assert ended(programs, *deliver, {**meal, "meal_id": "2", "cents": 20_000}) == "compensated"
        saga_id = programs.done(started(programs, *deliver, meal)).split()[0]
        token = "SELECT token FROM line WHERE meal_id = '1' AND what = 'dish'"
        ((accepted,),) = eventually(lambda: rows(programs, "meals.db", token), because=programs.tails)
        programs.done(programs.saga("complete", accepted))
        programs.done(programs.python("food_delivery.hand_over", "1"))
        watching = programs.saga("watch", saga_id)
        assert "completed" in programs.done(watching), programs.tails()
        held = "SELECT what, status FROM line WHERE meal_id = '1' ORDER BY what"
        assert rows(programs, "meals.db", held) == [
            ("courier", "on the way"),
            ("dish", "asked for"),
            ("money", "taken"),
        ]
        down(restaurant)
