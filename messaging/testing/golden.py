"""A golden file of wire names and schemas, so that no change of a contract goes unnoticed."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from messaging.contracts import Contract, Party, contracts_of, party_of
from messaging.contracts.json_schema import Json, rewritten
from messaging.service import Service

RENEW: Final = "RENEW_CONTRACTS"
_WORDS_FOR_PEOPLE: Final = {"title", "description"}


def assert_contracts(*parties: Service | Party, golden: str | Path) -> None:
    """Hold the messages of services against what was agreed: names, kinds, versions, answers and schemas.

    Titles and descriptions may change. To agree to a change, or for the first time, run the test with
    `RENEW_CONTRACTS=1` in the environment, and look at what it wrote.

        def test_our_messages_are_as_agreed() -> None:
            assert_contracts(payments, orders, golden=Path(__file__).parent / "contracts.json")

    Args:
        parties: services, or what `party_of` and `orchestrator.contracts.party_of_sagas` tell.
        golden: the file.

    Raises:
        AssertionError: they differ, and how; or there is no such file.
        MessageDefinitionError: one wire name stands for two different things.
    """
    contracts = contracts_of([party_of(one) if isinstance(one, Service) else one for one in parties])
    now = json.dumps({name: _agreed(contract) for name, contract in contracts.items()}, indent=2) + "\n"
    path = Path(golden)
    assert_golden(path, now, RENEW, lambda agreed: _told(path, agreed, now))


def assert_golden(path: Path, now: str, renew: str, told: Callable[[str], str]) -> None:
    """Hold a text against a golden file, or write it there if the environment says so.

    Args:
        path: the file.
        now: what it should hold.
        renew: the variable of the environment that says to write it.
        told: from what the file holds to what the failing test says.

    Raises:
        AssertionError: they differ; or there is no such file.
    """
    if os.environ.get(renew):
        path.write_text(now)
        return
    if not path.exists():
        raise AssertionError(f"there is no {path} yet. Write it: {renew}=1 pytest ..., and commit it")
    agreed = path.read_text()
    if agreed != now:
        raise AssertionError(told(agreed))


def _agreed(contract: Contract) -> Json:
    told: dict[str, Any] = {"kind": contract.kind.value, "version": contract.version}
    if contract.reply:
        told |= {"reply": contract.reply, "failures": list(contract.failures)}
    return told | {"schema": rewritten(contract.schema, _without_words)}


def _without_words(schema: Json) -> Json:
    return {keyword: value for keyword, value in schema.items() if keyword not in _WORDS_FOR_PEOPLE}


def _told(path: Path, agreed: str, now: str) -> str:
    lines = difflib.unified_diff(agreed.splitlines(), now.splitlines(), "agreed", "now", n=3, lineterm="")
    return "\n".join(
        [
            f"messages are not what {path.name} says:",
            *lines,
            "What was sent before must stay readable, and others still send it: a field with a default may be added.",
            "For any other change give the class a higher version and define `upcast`, or give it another name.",
            f"If all who send and read it agree: {RENEW}=1 pytest ..., and commit {path.name}.",
        ]
    )
