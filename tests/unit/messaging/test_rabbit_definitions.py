"""What is declared on RabbitMQ, and what its refusals tell: no broker needed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from messaging.rabbitmq.definitions import Bound, Exchange, Layout, Part, Queue
from messaging.rabbitmq.mismatch import Difference, difference_told, side_by_side
from messaging.rabbitmq.refusals import remedy_for_lost_channel
from messaging.rabbitmq.topology import standing_delay
from messaging.transport import Binding, QueueSpec

PAID = Binding("orders.#")


def named(parts: tuple[Part, ...], name: str) -> Queue:
    (found,) = [part for part in parts if isinstance(part, Queue) and part.name == name]
    return found


def test_everything_of_an_installation_stands_under_its_prefix_except_what_is_somebody_elses() -> None:
    spec = QueueSpec("payments", (PAID, Binding("x", "legacy", absolute=True)), owner="me")
    names = [part.name for part in Layout("shop.").parts(spec) if not isinstance(part, Bound)]
    assert names == ["shop.payments.owner", "shop.payments.dead", "shop.payments", "shop.events"]
    bound = [part.exchange for part in Layout("shop.").parts(spec) if isinstance(part, Bound)]
    assert bound == ["shop.events", "legacy"]


def test_a_queue_is_quorum_with_a_delivery_limit_unless_said_otherwise() -> None:
    arguments = named(Layout().parts(QueueSpec("payments")), "payments").arguments
    assert (arguments["x-queue-type"], arguments["x-delivery-limit"]) == ("quorum", 20)
    classic = named(Layout().parts(QueueSpec("payments", queue_type="classic")), "payments").arguments
    assert classic["x-queue-type"] == "classic" and "x-delivery-limit" not in classic


def test_a_queue_says_how_long_its_handlers_may_take_only_when_asked_to() -> None:
    assert "x-consumer-timeout" not in named(Layout().parts(QueueSpec("slow")), "slow").arguments
    spec = QueueSpec("slow", consumer_timeout=timedelta(hours=2))
    assert named(Layout().parts(spec), "slow").arguments["x-consumer-timeout"] == 7_200_000


def test_delays_stand_there_beforehand_only_where_services_declare_nothing() -> None:
    spec = QueueSpec("payments")
    assert [str(part) for part in Layout().parts(spec)] == ["queue 'payments.dead'", "queue 'payments'"]
    standing = Layout(standing_delays=True).parts(spec)[2:]
    assert [part.name for part in standing if isinstance(part, Queue)][:2] == [
        "payments.retry.1000",
        "payments.retry.10000",
    ]
    assert not any("x-expires" in part.arguments for part in standing if isinstance(part, Queue))


def test_a_standing_delay_is_never_shorter_than_asked_up_to_a_day() -> None:
    assert standing_delay(timedelta(milliseconds=3)) == timedelta(seconds=1)
    assert standing_delay(timedelta(seconds=10)) == timedelta(seconds=10)
    assert standing_delay(timedelta(seconds=11)) == timedelta(minutes=1)
    assert standing_delay(timedelta(days=3)) == timedelta(days=1)


WANTED = Queue("q", {"x-queue-type": "quorum", "x-delivery-limit": 7, "x-overflow": "reject-publish"})


@pytest.mark.parametrize(
    ("told", "difference"),
    [
        ("'x-delivery-limit' ...: received '7' but current is '20'", Difference("x-delivery-limit", 7, 20)),
        (
            "'x-queue-type' ...: received 'quorum' but current is 'classic'",
            Difference("x-queue-type", "quorum", "classic"),
        ),
        (
            "'x-overflow' ...: received the value 'reject-publish' of type 'longstr' but current is none",
            Difference("x-overflow", "reject-publish", None),
        ),
        (
            "'x-message-ttl' ...: received none but current is the value '1000' of type 'signedint'",
            Difference("x-message-ttl", None, 1000),
        ),
        (
            "'x-dead-letter-routing-key' ...: received none but current is the value '7' of type 'longstr'",
            Difference("x-dead-letter-routing-key", None, "7"),
        ),
        ("'durable' ...: received 'true' but current is 'false'", Difference("durable", True, False)),
    ],
)
def test_a_brokers_refusal_is_read_with_the_type_of_what_it_has(told: str, difference: Difference) -> None:
    refusal = "PRECONDITION_FAILED - inequivalent arg " + told.replace("...", "for queue 'it's' in vhost '/'")
    assert difference_told(refusal, WANTED) == difference


def test_what_a_broker_says_otherwise_is_no_difference() -> None:
    assert difference_told("RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q'", WANTED) is None


def test_an_exchange_is_compared_by_its_kind_too() -> None:
    refusal = "inequivalent arg 'type' for exchange 'e' in vhost '/': received 'topic' but current is 'fanout'"
    assert difference_told(refusal, Exchange("e", "topic")) == Difference("type", "topic", "fanout")


def test_both_definitions_stand_side_by_side() -> None:
    told = side_by_side([Difference("x-delivery-limit", 7, 20), Difference("x-expires", None, 1)])
    assert told.splitlines() == [
        "                    wanted     on the broker",
        "  x-delivery-limit  7          20",
        "  x-expires         (not set)  1",
    ]


def test_a_channel_closed_because_a_handler_takes_long_says_how_to_give_it_time() -> None:
    told = "406 PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 1800000 ms."
    assert "QueueOptions(consumer_timeout=...)" in remedy_for_lost_channel(told)
    assert remedy_for_lost_channel("connection lost: no reason given") == ""
