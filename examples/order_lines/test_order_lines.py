"""What becomes of an order of 500 lines."""

from __future__ import annotations

from orchestrator import SagaStatus
from orchestrator.testing import SagaHarness, Seen, explore
from order_lines.sagas import (
    Done,
    Order,
    OutOfStock,
    ReleaseStock,
    ReserveStock,
    ReservingLine,
    ShipLines,
    ShipOrder,
    ShippingOrder,
)
from order_lines.sample import sample

ORDER = sample("1", 500)


async def test_every_line_is_reserved_and_the_order_is_shipped_once() -> None:
    harness = SagaHarness(ShipLines)
    warehouse = harness.participant("warehouse")
    warehouse.on(ReserveStock, ShipOrder).answers(Done())

    order = await harness.start(ShipLines, ORDER)

    assert order.status is SagaStatus.COMPLETED
    assert warehouse.received[-1] == ShipOrder(order_id="1")
    assert [type(command) for command in warehouse.received].count(ReserveStock) == 500


async def test_twenty_lines_are_under_way_at_a_time() -> None:
    harness = SagaHarness(ShipLines)
    warehouse = harness.participant("warehouse")
    warehouse.on(ReserveStock).stays_silent()

    await harness.start(ShipLines, ORDER)

    assert warehouse.received == [ReserveStock(order_id="1", sku=f"sku-{number}", pieces=1) for number in range(20)]


async def test_one_line_that_is_missing_releases_those_that_were_reserved() -> None:
    harness = SagaHarness(ShipLines)
    warehouse = harness.participant("warehouse")
    warehouse.on(ReserveStock).does(
        lambda command: OutOfStock(reason="none left") if command.sku == "sku-250" else Done()
    )
    warehouse.on(ReleaseStock).answers(Done())

    order = await harness.start(ShipLines, ORDER)

    assert (order.status, order.state.missing) == (SagaStatus.COMPENSATED, ["sku-250"])
    reserved = {command.sku for command in warehouse.received if isinstance(command, ReserveStock)} - {"sku-250"}
    assert {command.sku for command in warehouse.received if isinstance(command, ReleaseStock)} == reserved


def only_what_is_reserved_is_shipped(seen: Seen[Order]) -> bool:
    reserved = all(seen.in_effect(ReservingLine, item=line.sku) for line in seen.state.lines)
    return reserved or not seen.in_effect(ShippingOrder)


def test_only_what_is_reserved_is_shipped_whatever_happens() -> None:
    print(explore(ShipLines, sample("1", 2), invariants=[only_what_is_reserved_is_shipped]))
