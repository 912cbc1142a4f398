"""How long sagas took, on the overview."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.instance import SagaStatus
from orchestrator.latencies import Latency
from orchestrator.web.histograms import histogram
from tests.unit.web.conftest import Site
from tests.unit.web.test_pages import page


async def test_the_overview_tells_how_long_sagas_took_and_which_was_the_slowest(site: Site) -> None:
    began, ended = datetime.now(UTC) - timedelta(hours=1), []
    for seconds in (3, 70, 4):
        took = {"started_at": began, "ended_at": began + timedelta(seconds=seconds), "updated_at": began}
        ended.append(await site.saga(status=SagaStatus.COMPLETED, current_step="", wake_at=None, **took))
    await site.blocked()

    pace = (await site.http.get("/api/overview")).json()["pace"]
    text = await page(site, "/")

    assert pace["slowest"] == {"create-order": str(ended[1].id)}
    (one,) = pace["latencies"]
    assert (one["count"], one["buckets"]) == (3, [[5.0, 2], [100.0, 1]])
    assert one["longest"] == pytest.approx(70, abs=0.01)
    assert "3 ended · half within 5.0 s" in text and f'href="/sagas/{ended[1].id}"' in text
    assert 'aria-label="2 within 5.0 s; 1 within 1 min 40 s"' in text


def test_a_histogram_has_a_place_for_each_span_between_and_one_for_what_took_longer() -> None:
    drawn = histogram(Latency("s", "", "", 3, 1.0, 900_000.0, [(200_000.0, 2), (900_000.0, 1)]))

    assert re.findall(r"up to [^:]+: (\d+)<", drawn) == ["2", "0", "1"]
    assert len(re.findall("<rect", drawn)) == 2
