"""Alerts and dashboard ask for what is really measured, and alerts fire when they should."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from messaging.metrics import Metrics
from orchestrator.metrics import SagaMetrics
from tests.deploy.files import DEPLOY, DOCS
from tests.unit.engine.shop import shop

ALERTS = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD = DEPLOY / "prometheus" / "grafana.json"
CASES = Path(__file__).with_name("alert_cases.yml")

SERIES = re.compile(r"\b((?:saga|messaging)_[a-z_]+)(?:\{([^}]*)\})?")
LABELS = re.compile(r"by \(([^)]*)\)")
ADDED_BY_PROMETHEUS = {"instance", "le"}


@pytest.fixture(scope="module")
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    SagaMetrics(registry)
    Metrics(registry)
    return registry


@pytest.fixture(scope="module")
def labels(registry: CollectorRegistry) -> dict[str, set[str]]:
    """The labels of every series there is."""
    return {name: set(one._labelnames) for name, one in registry._names_to_collectors.items()}  # type: ignore[attr-defined]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return found


def expressions() -> Iterator[str]:
    for group in yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    for panel in panels():
        yield from (target["expr"] for target in panel.get("targets", ()))


def checked(promtool: Path, *arguments: str | Path, text: bytes | None = None) -> str:
    done = subprocess.run(
        [promtool, *arguments], input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False
    )
    told = done.stdout.decode()
    assert done.returncode == 0, told
    return told


def test_alerts_fire_when_they_should_and_not_otherwise(promtool: Path) -> None:
    assert "SUCCESS" in checked(promtool, "test", "rules", CASES)


async def test_what_a_running_shop_tells_is_accepted_without_a_remark(promtool: Path, tmp_path: Path) -> None:
    registry = CollectorRegistry()
    async with shop(tmp_path, watchers=[SagaMetrics(registry)], middleware=[Metrics(registry)]) as at:
        await at.ended("one")
        await at.ended("refused")

    told = generate_latest(registry)
    assert b"messaging_handler_seconds_bucket{" in told and b"saga_seconds_bucket{" in told
    assert checked(promtool, "check", "metrics", text=told) == ""


def test_alerts_and_dashboard_ask_for_series_and_labels_that_there_are(labels: dict[str, set[str]]) -> None:
    for expression in expressions():
        series = SERIES.findall(expression)
        assert series or expression == "vector(0)", expression
        known = set.union(*(labels[name] for name, _ in series)) | ADDED_BY_PROMETHEUS
        for name, matchers in series:
            assert set(re.findall(r"(\w+)[!=~]+\"", matchers)) <= labels[name], expression
        for names in LABELS.findall(expression):
            assert set(names.split(", ")) <= known, expression


def test_every_query_of_the_dashboard_is_one(promtool: Path, tmp_path: Path) -> None:
    queries = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    rules = [
        {"record": f"panel:query:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(queries)
    ]
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))  # JSON is YAML

    assert f"{len(queries)} rules found" in checked(promtool, "check", "rules", file)


def test_the_panels_of_the_dashboard_stand_beside_each_other() -> None:
    assert len({panel["id"] for panel in panels()}) == len(panels())
    for one, other in combinations([panel["gridPos"] for panel in panels()], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)
        assert one["x"] + one["w"] <= 24


def test_every_metric_is_on_the_page_and_every_alert_too(registry: CollectorRegistry) -> None:
    measured = {metric.name + ("_total" if metric.type == "counter" else "") for metric in registry.collect()}
    told = (DOCS / "middleware.md").read_text("utf-8")
    assert [name for name in measured if f"`{name}`" not in told] == []

    alerts = [rule["alert"] for group in yaml.safe_load(ALERTS.read_text("utf-8"))["groups"] for rule in group["rules"]]
    deploying = (DOCS / "deploying.md").read_text("utf-8")
    assert [name for name in alerts if f"`{name}`" not in deploying] == []
    cases = CASES.read_text("utf-8")
    assert [name for name in alerts if name not in cases] == []
