"""One saga is one trace over a real broker, as it is in memory."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from messaging.serving import opened
from messaging.settings import MessagingSettings
from orchestrator.instance import SagaStatus
from tests.support.broker import Broker
from tests.support.spans import Spans
from tests.unit.engine.shop import shop

QUEUES = ("customers", "warehouse", "orchestrator.main.replies", "orchestrator.main.events")


async def test_a_refusal_and_what_it_undoes_are_one_trace_without_orphans(
    broker: Broker, prefix: str, tmp_path: Path
) -> None:
    spans = Spans()
    for name in QUEUES:
        broker.queue(f"{prefix}{name}")
        broker.queue(f"{prefix}{name}.dead")
    broker.exchange(f"{prefix}events")
    settings = MessagingSettings.model_validate({"broker_url": broker.url, "prefix": prefix, "queue_type": "classic"})
    async with opened(settings) as transport, shop(tmp_path, spans, transport=transport) as at:
        with spans.tracer.start_as_current_span("POST /orders"):
            _, status = await at.ended("refused")

    assert status is SagaStatus.COMPENSATED
    assert (len(spans.traces()), spans.orphans()) == (1, [])
    assert Counter(spans.tree()) == {
        " > POST /orders": 1,
        "POST /orders > send customers": 2,  # a command and its undo
        "POST /orders > send warehouse": 3,  # two commands and an undo
        "send customers > process customers": 2,
        "send warehouse > process warehouse": 3,
        "process customers > process orchestrator.main.replies": 2,
        "process warehouse > process orchestrator.main.replies": 3,
        "process customers > send events:paid": 1,
        "send events:paid > process orchestrator.main.events": 1,
        "POST /orders > saga create-order": 1,
    }
