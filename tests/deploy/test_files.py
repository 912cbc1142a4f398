"""Files for containers, Kubernetes and systemd name commands, settings, ports and paths that there are."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from sqlalchemy.ext.asyncio import create_async_engine
from typer.main import get_command

from messaging.service import Service
from orchestrator.app import Orchestrator
from orchestrator.cli.misspelt import known_variables
from orchestrator.cli.program import app
from orchestrator.settings import OrchestratorSettings
from orchestrator.web import DashboardSettings, create_app
from tests.deploy.files import DEPLOY, DOCS

ROOT = DOCS.parent
COMPOSE = DEPLOY / "container" / "compose.yaml"
CONTAINERFILE = DEPLOY / "container" / "Containerfile"
KUBERNETES = DEPLOY / "kubernetes" / "orchestrator.yaml"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))

IMAGE = "shop:1"
OURS = {name for names in known_variables().values() for name in names}
OF_THE_EXAMPLE = {"SHOP_DATABASE_URL"}
DRAIN = OrchestratorSettings.model_fields["drain_seconds"].default
LISTEN = DashboardSettings.model_fields["listen"].default


@dataclass(frozen=True)
class Process:
    """A command of ours that a file starts."""

    name: str
    arguments: tuple[str, ...]
    settings: Mapping[str, str]


def understood(arguments: Iterable[str]) -> dict[str, Any]:
    """What the program makes of a command, without running it; raises for what it does not know."""
    name, *rest = arguments
    group = get_command(app)
    command = group.commands[name]  # type: ignore[attr-defined]
    parsed: dict[str, Any] = command.make_context(name, list(rest)).params
    return parsed


@cache
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text("utf-8"))
    return found


def composed() -> list[Process]:
    ours = {name: one for name, one in compose()["services"].items() if one["image"] == IMAGE}
    return [
        Process(name, tuple(one["command"]), one.get("environment", {}))
        for name, one in ours.items()
        if "entrypoint" not in one
    ]


@cache
def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(KUBERNETES.read_text("utf-8")))


def pods() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """What makes pods, with their specification."""
    for one in manifests():
        if "template" in one["spec"]:
            yield one, one["spec"]["template"]["spec"]


def orchestrated() -> list[Process]:
    return [
        Process(one["name"], tuple(one["args"]), {v["name"]: v.get("value", "") for v in one.get("env", ())})
        for _, pod in pods()
        for one in pod["containers"]
    ]


def unit(file: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in file.read_text("utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


PROCESSES = [*composed(), *orchestrated()]
PROCESSES += [Process(file.stem, tuple(shlex.split(unit(file)["ExecStart"][0])[1:]), {}) for file in UNITS]


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process.name)
def test_every_command_is_understood_and_every_setting_is_read(process: Process) -> None:
    parsed = understood(process.arguments)

    assert set(process.settings) <= OURS | OF_THE_EXAMPLE
    for target in (*parsed.get("targets", ()), parsed.get("app")):
        if target and target.startswith("create_order."):
            module, _, attribute = target.partition(":")
            assert isinstance(getattr(importlib.import_module(module), attribute), Orchestrator | Service)


def test_what_was_not_run_says_so_at_its_head() -> None:
    for file in (COMPOSE, CONTAINERFILE, KUBERNETES):
        assert file.read_text("utf-8").startswith("# Not run, parsed only"), file
    for file in UNITS:
        assert file.read_text("utf-8").startswith("# Verified by systemd-analyze, not run."), file


# -- containers


def test_the_image_is_made_of_what_there_is_and_runs_as_nobody_special() -> None:
    lines = CONTAINERFILE.read_text("utf-8").replace("\\\n", " ").splitlines()
    words = {key: [line.split(maxsplit=1)[1] for line in lines if line.startswith(key)] for key in ("COPY", "USER")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wheel = f"sagasmith-{project['version']}-py3-none-any.whl"
    sources = [source for copy in words["COPY"] for source in copy.split()[:-1]]

    assert [one for one in sources if one != f"dist/{wheel}" and not (ROOT / one).exists()] == []
    (extras,) = re.findall(rf"{re.escape(wheel)}\[([a-z,]+)\]", "\n".join(lines))
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    assert words["USER"] == ["10001:10001"]
    (entry,) = [line.split(maxsplit=1)[1] for line in lines if line.startswith("ENTRYPOINT")]
    assert json.loads(entry) == ["saga"], "in exec form, or SIGTERM would reach a shell"


def test_the_versions_that_the_image_takes_are_those_of_the_lock() -> None:
    (expression,) = re.findall(r"sed -n '([^']+)'", CONTAINERFILE.read_text("utf-8"))
    lock = ROOT / "requirements.lock"
    done = subprocess.run(["sed", "-n", expression, lock], stdout=subprocess.PIPE, text=True, check=True)
    locked = re.findall(r"^([a-z0-9][^ ;\\]*==[^ ;\\]*)", lock.read_text("utf-8"), re.MULTILINE)

    assert done.stdout.split() == locked and len(locked) > 20


def test_the_parts_of_the_compose_file_fit_together() -> None:
    services = compose()["services"]
    for name, one in services.items():
        for other, how in one.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[other], name
            else:
                assert services[other].get("restart") in (None, "no"), f"{name} waits for {other}, which never ends"
        for volume in one.get("volumes", ()):
            source = volume.partition(":")[0]
            here = source.startswith(".") and (COMPOSE.parent / source).is_file()
            assert here or source in compose()["volumes"], volume
    assert services["orchestrator"]["deploy"]["replicas"] == 2
    drain = float(services["orchestrator"]["environment"]["ORCHESTRATOR_DRAIN_SECONDS"])
    assert int(services["orchestrator"]["stop_grace_period"].removesuffix("s")) > drain


def test_the_accounts_of_the_compose_file_are_those_that_are_made() -> None:
    definitions = json.loads((DEPLOY / "rabbitmq" / "definitions.json").read_text("utf-8"))
    logins = (DEPLOY / "container" / "logins.sql").read_text("utf-8")
    accounts = {(one["name"], one["password"]) for one in definitions["users"]}
    accounts |= set(re.findall(r"ROLE (\w+) (?:LOGIN )?PASSWORD '([^']+)'", logins))

    urls = re.findall(r"\b(?:amqp|postgresql)[+\w]*://[^\s\"\]]+", COMPOSE.read_text("utf-8"))
    used = {(urlsplit(url).username, urlsplit(url).password) for url in urls}
    assert used <= accounts and len(used) > 8
    assert {urlsplit(url).hostname for url in urls} <= set(compose()["services"])
    vhosts = {one["name"] for one in definitions["vhosts"]}
    assert {urlsplit(url).path.lstrip("/") for url in urls if url.startswith("amqp")} == vhosts
    assert {one["user"] for one in definitions["permissions"]} == {one["name"] for one in definitions["users"]}


def test_each_service_of_the_example_has_its_own_queues_in_its_account() -> None:
    permissions = json.loads((DEPLOY / "rabbitmq" / "definitions.json").read_text("utf-8"))["permissions"]
    of = {one["user"]: one for one in permissions}
    for service in ("orders", "customers", "warehouse", "payments"):
        for right in ("configure", "write", "read"):
            assert re.search(of[service][right], service), (service, right)
            others = set(of) - {service, "operator"}
            assert not any(re.search(of[service][right], other) for other in others), (service, right)


def test_prometheus_asks_the_ports_that_answer(promtool: Path) -> None:
    file = DEPLOY / "prometheus" / "prometheus.yml"
    jobs = yaml.safe_load(file.read_text("utf-8"))["scrape_configs"]
    services = compose()["services"]

    (asked,) = jobs[0]["dns_sd_configs"]
    assert {services[name]["environment"]["MESSAGING_METRICS_PORT"] for name in asked["names"]} == {str(asked["port"])}
    (target,) = jobs[1]["static_configs"][0]["targets"]
    assert services["dashboard"]["environment"]["DASHBOARD_LISTEN"].endswith(target.removeprefix("dashboard"))
    subprocess.run([promtool, "check", "config", "--syntax-only", file], check=True, stdout=subprocess.DEVNULL)


# -- Kubernetes


def test_probes_ask_for_paths_and_ports_that_there_are(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'saga.db'}")
    paths = set(create_app(engine).openapi()["paths"])
    assert {"/livez", "/readyz", "/metrics"} <= paths
    probed = 0
    for _, pod in pods():
        for container in pod["containers"]:
            ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
            told = "".join(container["args"]) + "".join(str(one.get("value")) for one in container.get("env", ()))
            assert all(str(port) in told for port in ports.values()), container["name"]
            for probe in (one["httpGet"] for key, one in container.items() if key.endswith("Probe")):
                assert probe["port"] in ports and probe["path"] in paths
                assert probe["path"] == "/metrics" or ports[probe["port"]] == int(LISTEN.rpartition(":")[2])
                probed += 1
    assert probed == 6


def test_pods_have_time_to_drain_and_no_rights() -> None:
    for one, pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"]
            drain = next((e["value"] for e in container.get("env", ()) if "DRAIN" in e["name"]), DRAIN)
            if one["kind"] == "Deployment":
                assert pod["terminationGracePeriodSeconds"] > float(drain)


def test_selectors_find_pods_and_secrets_are_named_at_the_head() -> None:
    labels = [one["spec"]["template"]["metadata"]["labels"] for one, _ in pods()]
    selectors = [s.get("matchLabels", s) for one in manifests() if (s := one["spec"].get("selector"))]
    selectors += [one["spec"]["podSelector"]["matchLabels"] for one in manifests() if one["kind"] == "NetworkPolicy"]
    assert len(selectors) == 7
    for selector in selectors:
        assert any(selector.items() <= each.items() for each in labels), selector

    text = KUBERNETES.read_text("utf-8")
    told = set(re.findall(r"secret generic ([\w-]+)", text))
    assert set(re.findall(r"secret(?:Key)?Ref: \{name: ([\w-]+)", text)) == told


# -- systemd


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """Copies that start the program of this environment, since theirs is not there."""
    program = Path(sys.executable).with_name("saga")
    copies = []
    for file in UNITS:
        copy = tmp_path / file.name.replace("@.", "@1.")
        copy.write_text(file.read_text("utf-8").replace("/opt/shop/bin/saga", str(program)))
        copies.append(copy)
        if "@." in file.name:
            shutil.copy(copy, tmp_path / file.name)
    return copies


def test_units_are_accepted_by_systemd_and_leave_little_open(systemd_analyze: Path, units: list[Path]) -> None:
    def told(*arguments: str | Path) -> str:
        done = subprocess.run(
            [systemd_analyze, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    assert told("verify", *units) == ""
    told("security", "--no-pager", "--offline=true", "--threshold=20", *units)


def test_units_have_time_to_drain() -> None:
    for file in UNITS:
        settings = unit(file)
        if settings["Type"] == ["exec"]:
            assert float(settings["TimeoutStopSec"][0].removesuffix("s")) > DRAIN
