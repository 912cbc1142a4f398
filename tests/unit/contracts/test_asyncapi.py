"""The AsyncAPI document, and what AsyncAPI's own parser says of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from messaging.contracts import asyncapi, party_of
from orchestrator.contracts import party_of_sagas
from tests.support.cached import node_with
from tests.support.node import node_program
from tests.unit.contracts import shop

PARSES = """
const { Parser } = require("@asyncapi/parser");
const read = require("fs").readFileSync(0, "utf8");
new Parser().parse(read).then(({ document, diagnostics }) => console.log(JSON.stringify({
  errors: diagnostics.filter((one) => one.severity === 0),
  operations: document ? document.operations().all().map((one) => one.id()) : [],
})));
"""


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    parties = [party_of(shop.payments), party_of(shop.mailer), party_of_sagas(shop.app.registry)]
    return asyncapi(parties, title="Shop", version="1.4.0", prefix="eu.")


@pytest.mark.timeout(400)  # the first time, the parser is installed
def test_the_official_parser_finds_no_error(document: dict[str, Any], tmp_path: Path) -> None:
    environment = node_with("@asyncapi/parser", "3.4.0")
    done = subprocess.run(
        [node_program(), "-e", PARSES],
        input=json.dumps(document),
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    told = json.loads(done.stdout)
    assert told == {"errors": [], "operations": list(document["operations"])}


def test_a_command_is_received_from_its_queue_and_answered_where_it_says(document: dict[str, Any]) -> None:
    operation = document["operations"]["payments.receives.payments.charge"]

    assert (operation["action"], operation["x-queue"]) == ("receive", "eu.payments")
    assert operation["channel"] == {"$ref": "#/channels/payments"}
    assert operation["reply"]["address"]["location"] == "$message.header#/reply_to"
    assert [answer["$ref"] for answer in operation["reply"]["messages"]] == [
        f"#/channels/payments.replies/messages/{name}" for name in ("charged", "card-refused", "failure")
    ]
    assert document["channels"]["payments.replies"]["address"] is None


def test_a_command_that_comes_through_an_exchange_too_is_received_from_both(document: dict[str, Any]) -> None:
    names = [name for name in document["operations"] if name.startswith("payments.receives.refund")]

    assert [document["operations"][name]["channel"]["$ref"] for name in names] == [
        "#/channels/payments",
        "#/channels/events.orders.refund",
    ]


def test_queues_and_exchanges_are_bound_as_rabbitmq_has_them(document: dict[str, Any]) -> None:
    channels = document["channels"]

    assert channels["payments"]["address"] == "eu.payments"
    assert channels["payments"]["bindings"]["amqp"]["queue"]["name"] == "eu.payments"
    paid = channels["events.orders.paid"]
    assert (paid["address"], paid["bindings"]["amqp"]["is"]) == ("orders.paid", "routingKey")
    assert paid["bindings"]["amqp"]["exchange"]["name"] == "eu.events"
    assert channels["events.news.order-closed"]["bindings"]["amqp"]["exchange"]["type"] == "fanout"


def test_who_sends_and_who_receives_meet_in_one_channel(document: dict[str, Any]) -> None:
    meeting = [name for name, one in document["operations"].items() if one["channel"]["$ref"].endswith("orders.paid")]

    assert meeting == [
        "payments.sends.orders.paid.to.events.orders.paid",
        "mailer.receives.orders.paid",
        "orchestrator.receives.orders.paid",
    ]
    sent = document["operations"]["orchestrator.sends.payments.charge.to.payments"]
    assert (sent["action"], sent["channel"]) == ("send", {"$ref": "#/channels/payments"})


def test_fields_keep_their_names_and_tuples_are_told_in_the_words_of_draft_7(document: dict[str, Any]) -> None:
    charge = document["components"]["schemas"]["Charge"]

    assert "discriminator" in charge["properties"]
    assert "discriminator" not in charge["properties"]["paid_by"]
    (point, _) = charge["properties"]["point"]["anyOf"]
    assert [item["type"] for item in point["items"]] == ["number", "number"]
