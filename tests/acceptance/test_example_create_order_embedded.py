"""The shop in one process, with nothing but files: orders complete, and refused ones are undone."""

from __future__ import annotations

import sqlite3
from collections import Counter
from uuid import UUID

import pytest

from tests.support.programs import Program, Programs, eventually


@pytest.fixture
def programs() -> Programs:
    return Programs({"SHOP_ANSWER_SECONDS": "3", "SHOP_PAYMENT_SECONDS": "3"})


def order_placed(program: Program) -> str:
    program.wait_until_it_says("is saga")
    return UUID(program.said.split()[1]).hex


def ledger_of(programs: Programs, order_id: str) -> Counter[tuple[str, str]]:
    with sqlite3.connect(programs.folder / "shop.db") as shop:
        lines = shop.execute("SELECT service, what FROM ledger WHERE order_id = ?", (order_id,)).fetchall()
    shop.close()
    return Counter((service, what) for service, what in lines)


def free(programs: Programs) -> dict[str, int]:
    with sqlite3.connect(programs.folder / "shop.db") as shop:
        rows = shop.execute("SELECT name, free_cents FROM customer UNION SELECT sku, free FROM stock").fetchall()
    shop.close()
    return dict(rows)


SHIPPED = Counter(
    {
        ("orders", "created"): 1,
        ("customers", "reserved"): 1,
        ("warehouse", "reserved"): 1,
        ("payments", "requested"): 1,
        ("payments", "captured"): 1,
        ("warehouse", "shipped"): 1,
        ("orders", "receipt"): 1,
        ("orders", "told completed"): 1,
    }
)


def test_orders_complete_or_are_undone_and_the_ledgers_agree(programs: Programs) -> None:
    with programs:
        shop = programs.python("create_order.main")
        shop.wait_until_it_says("Running")
        before = free(programs)

        placed = {
            name: programs.python("create_order.place_order", *arguments)
            for name, arguments in {
                "completed": (),
                "over the limit": ("--customer", "poor-bob"),
                "out of stock": ("--sku", "out-of-stock"),
                "not paid": ("--unpaid",),
                "not shipped": ("--trouble", "ship-order:refuse"),
            }.items()
        }
        order = {name: order_placed(program) for name, program in placed.items()}
        said = {name: programs.done(program).splitlines()[-1] for name, program in placed.items()}

        assert said["completed"] == f"completed: north-{UUID(order['completed'])}"
        assert said["over the limit"] == "compensated: limit reached"
        assert said["out of stock"] == "compensated: not enough of out-of-stock"
        assert said["not paid"] == "compensated: not paid in time"
        assert said["not shipped"] == "compensated: ship-order was rehearsed to be refused"
        eventually(lambda: ledger_of(programs, order["completed"]) == SHIPPED, because=programs.tails)
        eventually(lambda: ledger_of(programs, order["not shipped"])["orders", "told rejected"])
        refunded = ledger_of(programs, order["not shipped"])
        assert refunded["payments", "refunded"] == refunded["warehouse", "released"] == 1
        assert not refunded["warehouse", "shipped"]
        after = free(programs)
        assert before["lamp"] - after["lamp"] == 1
        assert before["ann"] - after["ann"] == 1200
        assert before["poor-bob"] == after["poor-bob"]

        shop.interrupt()
        assert shop.result() == 0
