"""A small shop in one process: its sagas, its services, and a client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import create_async_engine

from messaging import envelope as wire
from messaging.context import Context
from messaging.memory import MemoryTransport
from messaging.messages import Command, Event, Failure, Reply
from messaging.middleware import Middleware
from messaging.service import Service
from messaging.settings import MessagingSettings
from messaging.tracing import Tracing
from messaging.transport import Transport
from orchestrator.app import Orchestrator, running
from orchestrator.client import SagaClient
from orchestrator.definition import Saga
from orchestrator.instance import SagaStatus
from orchestrator.settings import OrchestratorSettings
from orchestrator.steps import Parallel, Step, WaitForEvent
from orchestrator.tracing import SagaTracing
from orchestrator.watching import Watcher
from tests.support.spans import Spans


class OrderState(BaseModel):
    order_id: str


class Done(Reply): ...


class ReserveCredit(Command[Done]):
    order_id: str


class ReleaseCredit(Command[Done]):
    order_id: str


class ReserveStock(Command[Done]):
    order_id: str


class ReleaseStock(Command[Done]):
    order_id: str


class ShipOrder(Command[Done]):
    order_id: str


class Paid(Event):
    order_id: str


class ReservingCredit(Step[OrderState, Done]):
    participant = "customers"

    def command(self, state: OrderState) -> ReserveCredit:
        return ReserveCredit(order_id=state.order_id)

    def compensation(self, state: OrderState) -> ReleaseCredit:
        return ReleaseCredit(order_id=state.order_id)


class ReservingStock(Step[OrderState, Done]):
    participant = "warehouse"

    def command(self, state: OrderState) -> ReserveStock:
        return ReserveStock(order_id=state.order_id)

    def compensation(self, state: OrderState) -> ReleaseStock:
        return ReleaseStock(order_id=state.order_id)


class AwaitingPayment(WaitForEvent[OrderState, Paid]):
    timeout = timedelta(minutes=1)

    def awaited_key(self, state: OrderState) -> str:
        return state.order_id

    def event_key(self, event: Paid) -> str:
        return event.order_id


class ShippingOrder(Step[OrderState, Done]):
    participant = "warehouse"
    pivot = True

    def command(self, state: OrderState) -> ShipOrder:
        return ShipOrder(order_id=state.order_id)


class CreateOrder(Saga[OrderState]):
    steps = (Parallel(ReservingCredit(), ReservingStock()), AwaitingPayment(), ShippingOrder())


@dataclass
class Shop:
    client: SagaClient
    file: Path

    async def ended(self, order: str, trace: str = "") -> tuple[UUID, SagaStatus]:
        started = await self.client.start(CreateOrder, OrderState(order_id=order), key=order, trace=trace)
        row = await self.client.wait(started.id, timeout=timedelta(seconds=30))
        return started.id, row.status


@asynccontextmanager
async def shop(
    folder: Path,
    spans: Spans | None = None,
    watchers: Sequence[Watcher] = (),
    seen: list[str] | None = None,
    transport: Transport | None = None,
    participants: Mapping[str, Transport] | None = None,
    middleware: Sequence[Middleware] = (),
    url: str = "",
) -> AsyncIterator[Shop]:
    customers, warehouse = Service("customers"), Service("warehouse")

    @customers.handles(ReserveCredit)
    async def reserve_credit(command: ReserveCredit, context: Context[None]) -> Done:
        if seen is not None:
            seen.append(str(context.headers.get(wire.TRACEPARENT)))
        context.publish(Paid(order_id=command.order_id))
        return Done()

    @customers.handles(ReleaseCredit)
    def release_credit(command: ReleaseCredit) -> Done:
        return Done()

    @warehouse.handles(ReserveStock)
    async def reserve_stock(command: ReserveStock) -> Done:
        return Done()

    @warehouse.handles(ReleaseStock)
    async def release_stock(command: ReleaseStock) -> Done:
        return Done()

    @warehouse.handles(ShipOrder)
    async def ship(command: ShipOrder) -> Done | Failure:
        return Failure(reason="sold out", code="sold-out") if command.order_id == "refused" else Done()

    for service in (customers, warehouse):
        service.use(*middleware)
    app = Orchestrator(sagas=[CreateOrder])
    app.use(*watchers)
    if spans is not None:
        app.use(SagaTracing(spans.provider, system="memory"))
        for service in (customers, warehouse):
            service.use(Tracing(spans.provider, system="memory"))
    file = folder / "saga.db"
    url = url or f"sqlite+aiosqlite:///{file}"
    settings = OrchestratorSettings.model_validate({"database_url": url, "poll_seconds": 0.02})
    shared, messaging = transport or MemoryTransport(), MessagingSettings()
    async with AsyncExitStack() as stack:
        for part in (app, customers, warehouse):
            own = (participants or {}).get(part.name) if isinstance(part, Service) else None
            await stack.enter_async_context(
                running(part, settings=settings, messaging=messaging, transport=own or shared)
            )
        engine = create_async_engine(url)
        yield Shop(SagaClient(engine), file)
        await engine.dispose()
