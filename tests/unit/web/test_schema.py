"""Whatever the OpenAPI document allows, and much that it does not, is answered without a fault of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from orchestrator.sql import SqlStore
from tests.support.dashboard import dashboard_served
from tests.unit.web.conftest import TOKEN, Site

EACH = 5
QUIETLY = settings(
    max_examples=EACH,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def address(url: str) -> Iterator[str]:
    """A site with a blocked saga in it."""

    async def stock() -> None:
        store = SqlStore(url, runs_engine=False)
        await store.open()
        await Site(None, store, None).blocked()  # type: ignore[arg-type]
        await store.close()

    asyncio.run(stock())
    with dashboard_served(url, token=TOKEN) as address:
        yield address


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_request_that_can_be_thought_of_is_a_fault_of_ours(address: str, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{address}/api/openapi.json").exclude(path_regex="/events$")
    asked: list[int] = []

    def check(case: Any) -> None:
        case.query = {**(case.query or {}), **({"wait": 0} if case.path.endswith("/actions") else {})}
        answer = case.call(headers={"authorization": f"Bearer {TOKEN}"}, timeout=20)
        assert answer.status_code < 500 or answer.status_code == 501, answer.text
        if answer.status_code >= 400:
            assert answer.headers["content-type"][0].startswith("application/problem+json"), answer.text
        asked.append(answer.status_code)

    operations = [result.ok() for result in schema.get_all_operations()]
    for operation in operations:
        strategy = operation.as_strategy(generation_mode=mode)
        with suppress(Unsatisfiable):  # what takes no arguments cannot be given wrong ones
            QUIETLY(given(case=strategy)(check))()

    assert len(operations) > 15 and len(asked) > EACH * 5
    assert (200 in asked) if mode is GenerationMode.POSITIVE else (422 in asked)
