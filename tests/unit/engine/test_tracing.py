"""One saga is one trace, through the engine, the broker, the participants and compensation."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
from opentelemetry.trace import SpanKind
from sqlalchemy import create_engine, text

from messaging.transport import Outgoing
from orchestrator.client import BlockingSagaClient
from orchestrator.instance import SagaStatus
from orchestrator.watching import Change, Watcher
from tests.support.spans import Spans
from tests.unit.engine.shop import CreateOrder, OrderState, shop

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans() -> Spans:
    return Spans()


async def test_a_saga_that_compensates_is_one_trace_without_orphans(spans: Spans, tmp_path: Path) -> None:
    async with shop(tmp_path, spans) as at:
        with spans.tracer.start_as_current_span("POST /orders"):
            _, status = await at.ended("refused")

    assert status is SagaStatus.COMPENSATED
    assert (len(spans.traces()), spans.orphans()) == (1, [])
    tree = spans.tree()
    assert tree.count("POST /orders > send customers") == 2, "a command and its undo"
    assert tree.count("POST /orders > send warehouse") == 3, "two commands and an undo"
    assert tree.count("send customers > process customers") == 2
    assert tree.count("send warehouse > process warehouse") == 3
    assert tree.count("process customers > process orchestrator.main.replies") == 2
    assert tree.count("process warehouse > process orchestrator.main.replies") == 3
    assert tree.count("process customers > send events:paid") == 1
    assert tree.count("send events:paid > process orchestrator.main.events") == 1
    assert tree.count("POST /orders > saga create-order") == 1
    assert len(tree) == 19
    undone = [s for s in spans.all() if (s.attributes or {}).get("sagasmith.direction") == "compensation"]
    assert sorted(s.name for s in undone if s.kind is SpanKind.PRODUCER) == ["send customers", "send warehouse"]


async def test_the_span_of_the_whole_saga_tells_how_it_ended_and_why(spans: Spans, tmp_path: Path) -> None:
    async with shop(tmp_path, spans) as at:
        saga_id, _ = await at.ended("refused")

    whole = spans["saga create-order"]
    assert dict(whole.attributes or {}) == {
        "sagasmith.saga.id": str(saga_id),
        "sagasmith.saga.name": "create-order",
        "sagasmith.saga.status": "compensated",
        "sagasmith.failed.step": "ShippingOrder",
        "error.type": "sold-out",
    }
    others = [span for span in spans.all() if span.kind in (SpanKind.PRODUCER, SpanKind.CONSUMER)]
    assert (whole.start_time or 0) <= min(span.start_time or 0 for span in others)
    assert (whole.end_time or 0) >= max(s.start_time or 0 for s in others if s.kind is SpanKind.PRODUCER)


async def test_a_saga_started_outside_of_any_trace_has_one_of_its_own(spans: Spans, tmp_path: Path) -> None:
    async with shop(tmp_path, spans) as at:
        _, status = await at.ended("one")
        await at.ended("two")

    assert status is SagaStatus.COMPLETED
    assert (len(spans.traces()), spans.orphans()) == (2, [])
    assert [span.name for span in spans.all() if span.parent is None] == ["start create-order"] * 2
    with create_engine(f"sqlite:///{tmp_path / 'saga.db'}").connect() as connection:
        kept = connection.scalar(text("SELECT trace FROM saga_instance WHERE business_key = 'one'"))
    root = spans["start create-order"].context
    assert kept[:52] == f"00-{root.trace_id:032x}-{root.span_id:016x}"


async def test_a_given_trace_goes_along_without_opentelemetry(tmp_path: Path) -> None:
    seen: list[str] = []
    async with shop(tmp_path, seen=seen) as at:
        await at.ended("one", trace=PARENT)
        await at.ended("two")

    assert seen == [PARENT, "None"]


def test_a_saga_started_from_a_thread_belongs_to_the_span_of_that_thread(spans: Spans, tmp_path: Path) -> None:
    async def migrated() -> None:
        async with shop(tmp_path):
            pass

    asyncio.run(migrated())
    engine = create_engine(f"sqlite:///{tmp_path / 'saga.db'}")
    with spans.tracer.start_as_current_span("POST /orders") as span:
        BlockingSagaClient(engine).start(CreateOrder, OrderState(order_id="1"), key="1")
    with engine.connect() as connection:
        kept = connection.scalar(text("SELECT trace FROM saga_instance"))

    current = span.get_span_context()
    assert kept[:52] == f"00-{current.trace_id:032x}-{current.span_id:016x}"


class Raises(Watcher):
    def sending(self, messages: list[Outgoing]) -> list[Outgoing]:
        raise RuntimeError("sending")

    def committed(self, changes: Sequence[Change]) -> None:
        raise RuntimeError("committed")


async def test_a_watcher_that_raises_is_logged_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        async with shop(tmp_path, watchers=[Raises()]) as at:
            _, status = await at.ended("one")

    assert status is SagaStatus.COMPLETED
    assert set(caplog.messages) == {"A watcher raised; the sagas go on"}
