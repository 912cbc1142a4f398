"""`saga schema` and `saga asyncapi`."""

from __future__ import annotations

import json

from orchestrator.cli import exits
from tests.unit.cli.conftest import Shell
from tests.unit.contracts import shop

PAYMENTS, APP = f"{shop.__name__}:payments", f"{shop.__name__}:app"


def test_messages_are_listed_with_who_handles_and_sends_them(bare_shell: Shell) -> None:
    answer = bare_shell("schema", PAYMENTS, APP)

    assert answer.code == 0
    lines = [line.split() for line in answer.out.splitlines()]
    assert ["refund", "command", "1", "payments", "orchestrator", "refunded"] in lines
    assert ["orders.paid", "event", "1", "orchestrator", "payments"] in lines


def test_schemas_are_printed_by_wire_name(bare_shell: Shell) -> None:
    told = bare_shell("schema", PAYMENTS, "--json").json

    assert told["payments.charge"]["failures"] == ["card-refused"]
    assert told["payments.charge"]["schema"]["properties"]["amount"]["description"] == "in the shop's currency"


def test_schemas_are_written_to_a_folder_one_file_each(bare_shell: Shell) -> None:
    answer = bare_shell("schema", PAYMENTS, "--out", "schemas")

    assert answer.code == 0 and "7 schemas written to schemas" in answer.err
    refund = json.loads((bare_shell.folder / "schemas" / "refund.json").read_text())
    assert refund["$schema"].endswith("2020-12/schema") and refund["required"] == ["order_id"]
    assert (refund["x-kind"], refund["x-handled-by"]) == ("command", ["payments"])


def test_an_asyncapi_document_is_printed_with_the_configured_prefix(bare_shell: Shell) -> None:
    (bare_shell.folder / "saga.toml").write_text('[messaging]\nprefix = "eu."\n')
    document = bare_shell("asyncapi", PAYMENTS, "--title", "Shop", "--of-version", "1.4.0").json

    assert document["info"] == {"title": "Shop", "version": "1.4.0"}
    assert document["channels"]["payments"]["address"] == "eu.payments"


def test_two_ways_to_print_are_wrong_usage(bare_shell: Shell) -> None:
    assert bare_shell("schema", PAYMENTS, "--json", "--out", "x").code == exits.USAGE
