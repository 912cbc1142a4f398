"""Pages that list something list all of it: settings, tables, modules, commands, failpoints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from messaging.settings import MessagingSettings
from messaging.sql.tables import messaging_metadata
from orchestrator.cli.program import app
from orchestrator.settings import OrchestratorSettings
from orchestrator.sql.tables import metadata
from orchestrator.web import DashboardSettings

ROOT = Path(__file__).parents[3]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_the_page_of_settings_names_every_setting_and_no_other() -> None:
    fields = {f"MESSAGING_{name.upper()}" for name in MessagingSettings.model_fields}
    fields |= {f"DASHBOARD_{name.upper()}" for name in DashboardSettings.model_fields}
    fields |= {f"ORCHESTRATOR_{name.upper()}" for name in OrchestratorSettings.model_fields}

    assert set(re.findall(r"^\| `(\w+)`", page("settings.md"), re.MULTILINE)) == fields


def test_the_page_about_sql_names_every_table() -> None:
    words = set(re.findall(r"`(\w+)`", page("sql.md")))

    assert {*metadata.tables, *messaging_metadata.tables} <= words


@pytest.mark.parametrize("package", ["messaging", "orchestrator"])
def test_the_page_about_architecture_names_every_module(package: str) -> None:
    rooms = page("architecture.md").partition(f"| `{package}/` |")[2].partition("\n\n")[0]
    first_cells = "".join(row.split("|")[1] for row in rooms.splitlines() if row.startswith("|"))
    named = re.findall(r"`([\w/]+)`", first_cells)
    found = {path.stem for path in (ROOT / package).glob("*.py") if not path.stem.startswith("__")}
    found |= {f"{path.parent.name}/" for path in (ROOT / package).glob("*/__init__.py")}

    assert sorted(named) == sorted(found)


def test_the_page_about_architecture_names_every_failpoint() -> None:
    sources = [path for package in ("messaging", "orchestrator") for path in (ROOT / package).rglob("*.py")]
    found = {name for path in sources for name in re.findall(r'\breached\("([^"]+)"\)', path.read_text("utf-8"))}

    assert found == set(
        re.findall(r"`((?:engine|participant|relay|purge|dead_letters)\.\w+)`", page("architecture.md"))
    )


def test_the_page_of_commands_names_every_command() -> None:
    commands = [command.name for command in app.registered_commands]
    groups = [(group.name, group.typer_instance) for group in app.registered_groups]
    told = page("cli.md")

    assert [name for name in commands if f"**`saga {name}" not in told] == []
    for name, group in groups:
        assert group is not None
        line = next(line for line in told.splitlines() if line.startswith(f"**`saga {name}"))
        assert [command.name for command in group.registered_commands if str(command.name) not in line] == []


def test_the_readme_names_every_page_once() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = (path.name for path in (ROOT / "docs").glob("*.md"))

    assert [name for name in pages if readme.count(f"(docs/{name})") != 1] == []
