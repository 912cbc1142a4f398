"""What sagas are measured: three steps, the same with a refusal at the third, ten at once, five hundred items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from benchmarks import three_steps
from benchmarks.three_steps import ChargingCard, Done, Order, ReserveStock, ReservingStock
from benchmarks.unanswered import Unanswered
from messaging import Command, Failure
from orchestrator import ForEach, ItemStep, Orchestrator, Parallel, Saga, SagaStatus, Step

_ITEMS: Final = 500
_AT_ONCE: Final = 50


class ReleaseStock(Command[Done]):
    order: int


class RefundCard(Command[Done]):
    order: int


class ShipAbroad(Command[Done]):
    order: int


class ReservingStockForAbroad(ReservingStock):
    nothing_to_undo = False

    def compensation(self, state: Order) -> ReleaseStock:
        return ReleaseStock(order=state.order)


class ChargingCardForAbroad(ChargingCard):
    nothing_to_undo = False

    def compensation(self, state: Order) -> RefundCard:
        return RefundCard(order=state.order)


class ShippingAbroad(Step[Order, Done]):
    participant = "bench-shipping"
    nothing_to_undo = True

    def command(self, state: Order) -> ShipAbroad:
        return ShipAbroad(order=state.order)


class RefusedAtTheThird(Saga[Order]):
    steps = (ReservingStockForAbroad(), ChargingCardForAbroad(), ShippingAbroad())


@three_steps.stock.handles(ReleaseStock)
async def release_stock(command: ReleaseStock) -> Done:
    return Done(reference=f"s-{command.order}")


@three_steps.cards.handles(RefundCard)
async def refund_card(command: RefundCard) -> Done:
    return Done(reference=f"c-{command.order}")


@three_steps.shipping.handles(ShipAbroad)
async def ship_abroad(command: ShipAbroad) -> Failure:
    return Failure(reason="not abroad")


def _branch(number: int) -> Step[Order, Done]:
    class Reserving(Step[Order, Done]):
        name = f"reserving-{number}"
        participant = "bench-stock"
        nothing_to_undo = True

        def command(self, state: Order) -> ReserveStock:
            return ReserveStock(order=state.order, customer=state.customer)

    return Reserving()


class TenAtOnce(Saga[Order]):
    steps = (Parallel(*(_branch(number) for number in range(10))),)


class Basket(BaseModel):
    order: int
    articles: list[int]


class ReservingArticle(ItemStep[Basket, int, Done]):
    participant = "bench-stock"
    nothing_to_undo = True

    def command(self, state: Basket, item: int) -> ReserveStock:
        return ReserveStock(order=state.order, customer=f"article-{item}")


class ReservingArticles(ForEach[Basket, int]):
    steps = (ReservingArticle(),)
    concurrency = _AT_ONCE

    def items(self, state: Basket) -> Iterable[int]:
        return state.articles

    def item_key(self, item: int) -> str:
        return str(item)


class FiveHundredItems(Saga[Basket]):
    steps = (ReservingArticles(),)


@dataclass(frozen=True, slots=True)
class Workload:
    """A saga, what it starts with, how it ends, and how many commands it sends."""

    saga: type[Saga[Any]]
    state: Callable[[int], BaseModel]
    commands: int
    ends: SagaStatus = SagaStatus.COMPLETED


WORKLOADS: Final[Mapping[str, Workload]] = {
    "three-steps": Workload(three_steps.ThreeSteps, three_steps.order, 3),
    "refused": Workload(RefusedAtTheThird, three_steps.order, 5, SagaStatus.COMPENSATED),
    "parallel": Workload(TenAtOnce, three_steps.order, 10),
    "items": Workload(FiveHundredItems, lambda n: Basket(order=n, articles=list(range(_ITEMS))), _ITEMS),
}
SERVICES: Final = (three_steps.stock, three_steps.cards, three_steps.shipping)


def orchestrator() -> Orchestrator:
    """One that knows all of them, and the saga that nobody answers."""
    return Orchestrator(sagas=[*(workload.saga for workload in WORKLOADS.values()), Unanswered])
