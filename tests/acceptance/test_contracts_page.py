"""The page on contracts, and what the page on the bus says of a broker of one's own: examples run as they stand."""

from __future__ import annotations

import json
import re
import shlex
import sys
from typing import Any

import pytest
from typer.testing import CliRunner

from messaging import Command, Reply
from messaging.envelope import Envelope
from messaging.evolution import decode_message
from orchestrator.cli.program import app
from tests.support.programs import ROOT, Programs

PAGE = (ROOT / "docs" / "contracts.md").read_text()
BUS_PAGE = (ROOT / "docs" / "bus.md").read_text()
PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest")


def written(programs: Programs, *pages: str) -> None:
    for page in pages:
        for name, program in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", page, re.DOTALL):
            (programs.folder / name).write_text(program)


@pytest.mark.parametrize("command", ["schema", "asyncapi"])
def test_the_commands_of_the_page_say_what_it_shows(command: str) -> None:
    (line,) = re.findall(rf"^saga {command} ([^>\n]+)", PAGE, re.MULTILINE)

    said = CliRunner().invoke(app, [command, *shlex.split(line)]).stdout

    if command == "schema":
        shown = PAGE.partition("```text\n")[2].partition("...\n")[0].splitlines()
        assert {" ".join(line.split()) for line in shown} <= {" ".join(line.split()) for line in said.splitlines()}
    else:
        assert json.loads(said)["info"]["title"] == "Order system"


class CreditReserved(Reply): ...


@pytest.mark.parametrize("body", [b'{"amount": 9.5}', b'{"amount_cents": 950}'])
def test_the_upcaster_of_the_page_lifts_each_older_version(body: bytes) -> None:
    (example,) = re.findall(r"```python\n(class ReserveCredit.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {"Any": Any, "Command": Command, "CreditReserved": CreditReserved, "__name__": __name__}
    exec(example, names)  # noqa: S102 - it is our own page

    version = 1 if b"amount_cents" not in body else 2
    envelope = Envelope("m", body, "reserve-credit", headers={"schema-version": version})
    command = decode_message(names["ReserveCredit"], envelope)

    assert (command.amount_cents, command.currency) == (950, "EUR")


def test_the_golden_file_of_the_page_is_written_on_request(programs: Programs) -> None:
    written(programs, PAGE, BUS_PAGE)

    programs.done(programs.start(*PYTEST, "test_contracts.py", RENEW_CONTRACTS="1"))

    assert '"card-refused"' in (programs.folder / "contracts.json").read_text()


def test_a_broker_of_ones_own_is_held_against_the_suite_of_ours(programs: Programs) -> None:
    written(programs, BUS_PAGE)

    some = ("test_my_transport.py", "-k", "declaring or round_trip or prefetch or restart")

    assert " passed" in programs.done(programs.start(*PYTEST, *some))

    test = programs.folder / "test_my_transport.py"
    test.write_text(test.read_text().replace("= MemoryTransport()", "= Forgetful()") + FORGETFUL)
    broken = programs.start(*PYTEST, *some, "-x")
    assert broken.result() == 1 and "is not declared" in broken.said


FORGETFUL = """

class Forgetful(MemoryTransport):
    async def declare(self, queues):
        pass
"""
