"""What is told of messages: names, schemas, who handles and who sends them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import Field

from messaging import Command, Failure, MessageDefinitionError, Reply, Service
from messaging.contracts import Contract, Kind, contracts_of, party_of
from messaging.contracts.json_schema import rewritten
from orchestrator.contracts import party_of_sagas
from tests.unit.contracts import shop

PARTIES = [party_of(shop.payments), party_of(shop.mailer), party_of_sagas(shop.app.registry)]


def test_every_message_is_told_with_its_handlers_and_senders() -> None:
    told = {name: (c.kind, c.handled_by, c.sent_by) for name, c in contracts_of(PARTIES).items()}

    sagas, payments = ("orchestrator",), ("payments",)
    assert told == {
        "card-refused": (Kind.FAILURE, sagas, payments),
        "charged": (Kind.REPLY, sagas, payments),
        "failure": (Kind.FAILURE, sagas, payments),
        "order-closed": (Kind.EVENT, ("mailer",), sagas),
        "orders.paid": (Kind.EVENT, ("mailer", "orchestrator"), payments),
        "payments.charge": (Kind.COMMAND, payments, sagas),
        "refund": (Kind.COMMAND, payments, sagas),
        "refunded": (Kind.REPLY, sagas, payments),
    }
    assert list(told) == sorted(told)


def test_a_command_names_its_reply_and_its_failures_and_has_a_schema() -> None:
    charge = contracts_of(PARTIES)["payments.charge"]

    assert (charge.reply, charge.failures, charge.version) == ("charged", ("card-refused",), 1)
    assert charge.schema["required"] == ["order_id", "amount", "paid_by"]
    assert charge.schema["properties"]["order_id"] == {"format": "uuid", "title": "Order Id", "type": "string"}
    assert set(charge.schema["$defs"]) == {"Card", "Transfer"}


def _service(name: str, command: type[Command[Reply]]) -> Service:
    service = Service(name)

    @service.handles(command)
    async def handle(command: Command[Reply]) -> Reply:
        return Reply()

    return service


def _weigh(**fields: type) -> type[Command[Reply]]:
    return type("Weigh", (Command[Reply],), {"__annotations__": fields, "__module__": __name__})


def test_copies_of_a_message_in_the_packages_of_two_services_are_one_contract() -> None:
    one, other = _service("scale", _weigh(grams=int)), _service("balance", _weigh(grams=int))

    assert contracts_of([party_of(one), party_of(other)])["weigh"].handled_by == ("balance", "scale")


def test_one_name_for_two_different_messages_is_refused() -> None:
    one, other = _service("scale", _weigh(grams=int)), _service("balance", _weigh(ounces=float))

    with pytest.raises(MessageDefinitionError, match=r"wire name 'weigh', and so has Weigh .* another schema"):
        contracts_of([party_of(one), party_of(other)])


def test_a_message_without_a_schema_is_refused_with_its_name() -> None:
    class Call(Command[Reply]):
        back: Callable[[], None]

    with pytest.raises(MessageDefinitionError, match="message Call has no JSON Schema"):
        contracts_of([party_of(_service("caller", Call))])


def test_rewriting_a_schema_leaves_what_its_author_named() -> None:
    class Titled(Failure):
        title: str = Field(default="", examples=[{"title": "x"}])

    def untitled(schema: dict[str, object]) -> dict[str, object]:
        return {keyword: value for keyword, value in schema.items() if keyword != "title"}

    written = rewritten(Titled.model_json_schema(), untitled)

    assert written["properties"]["title"] == {"type": "string", "default": "", "examples": [{"title": "x"}]}
    assert "title" not in written


def test_of_two_versions_the_newer_is_told() -> None:
    older, newer = _weigh(grams=int), _weigh(ounces=float)
    newer.schema_version = 2
    parties = [party_of(_service("scale", newer)), party_of(_service("balance", older))]

    weigh: Contract = contracts_of(parties)["weigh"]

    assert (weigh.version, list(weigh.schema["properties"])) == (2, ["ounces"])
    assert weigh.handled_by == ("balance", "scale")
