"""The README tells the truth: its program runs as it stands, and its questions are answered on both databases."""

from __future__ import annotations

import re
import sqlite3
import sys
from pathlib import Path

import psycopg

from tests.support.broker import Broker
from tests.support.programs import ROOT, Programs

README = (ROOT / "README.md").read_text()
SAGA = str(Path(sys.executable).with_name("saga"))
START = ("start", "place-order", "--app", "shop:app", "--wait", "--data")


def _block(language: str, *, holding: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return next(block for block in blocks if holding in block)


def _questions(saga_id: str) -> list[str]:
    sql = _block("sql", holding="saga_status").replace("'...'", f"'{saga_id}'")
    return [question for question in sql.split(";") if question.strip()]


def test_what_it_is_why_and_a_whole_program_are_within_sixty_lines() -> None:
    assert README.splitlines().index("## Install") <= 60


def test_the_program_runs_as_it_stands_and_the_database_answers() -> None:
    with Programs() as programs:
        (programs.folder / "shop.py").write_text(_block("python", holding="class PlaceOrder"))
        shop = programs.start(sys.executable, "shop.py", name="shop")
        shop.wait_until_it_says("Running")

        sold_out = programs.start(SAGA, *START, '{"order_id": "42", "cents": 900}', "--key", "42", name="order 42")
        assert sold_out.result() == 6, sold_out.said
        shipped = programs.start(SAGA, *START, '{"order_id": "43", "cents": 900}', name="order 43")
        assert shipped.result() == 0, shipped.said

        (saga_id,) = re.findall(r"^[0-9a-f-]{36}$", sold_out.said, re.MULTILINE)
        with sqlite3.connect(programs.folder / "saga.db") as database:
            answers = [database.execute(question).fetchall() for question in _questions(saga_id)]
        shop.interrupt()
        assert shop.result() == 0

    (where,), steps, stuck = answers
    assert (where[1], where[5], where[7]) == ("compensated", "ShippingOrder", "sold out")
    assert [(step[1], step[2], step[3]) for step in steps] == [
        ("ReservingCredit", "action", "succeeded"),
        ("ShippingOrder", "action", "refused"),
        ("ReservingCredit", "compensation", "succeeded"),
    ]
    assert stuck == []


def test_the_same_program_runs_distributed_with_other_settings_only(
    amqp_url: str, postgres_database: str, prefix: str, broker: Broker
) -> None:
    for queue in ("shop", "orchestrator.main.replies", "orchestrator.main.events"):
        broker.queue(f"{prefix}{queue}")
        broker.queue(f"{prefix}{queue}.dead")
    for exchange in ("events", "orchestrator.main.replies.owner"):
        broker.exchange(f"{prefix}{exchange}")
    environment = {
        "ORCHESTRATOR_DATABASE_URL": postgres_database,
        "MESSAGING_BROKER_URL": amqp_url,
        "MESSAGING_PREFIX": prefix,
    }
    with Programs(environment) as programs:
        (programs.folder / "shop.py").write_text(_block("python", holding="class PlaceOrder"))
        assert programs.start(SAGA, "migrate", name="migrate").result() == 0
        parts = [programs.start(SAGA, "run", target, name=target) for target in ("shop:app", "shop:shop")]
        for part in parts:
            part.wait_until_it_says("Running")

        order = programs.start(SAGA, *START, '{"order_id": "42", "cents": 900}', "--key", "42", name="order 42")
        assert order.result() == 6, order.said
        (saga_id,) = re.findall(r"^[0-9a-f-]{36}$", order.said, re.MULTILINE)
        with psycopg.connect(postgres_database.replace("+asyncpg", "")) as connection:
            answers = [connection.execute(question.encode()).fetchall() for question in _questions(saga_id)]

    assert answers[0][0][1] == "compensated"
    assert len(answers[1]) == 3
