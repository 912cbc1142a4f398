"""Handlers are checked when they are registered."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from messaging.context import Context
from messaging.errors import HandlerDefinitionError, SettingsError
from messaging.handler_classes import CommandHandler
from messaging.messages import Command, Event, Failure, Reply
from messaging.service import Service
from messaging.transport import Binding, QueueOptions, QueueSpec

ASYNC, SYNC = async_sessionmaker(), sessionmaker()


class Charged(Reply):
    pass


class Refunded(Reply):
    pass


class CardRefused(Failure):
    pass


class Stolen(CardRefused):
    pass


class Unnamed(Failure):
    pass


class Charge(Command[Charged], failures=(CardRefused,)):
    pass


class Refund(Command[Refunded]):
    pass


class Paid(Event):
    pass


async def plain(command: Charge) -> Charged: ...
async def general(command: Charge) -> Charged | Failure: ...
async def declared(command: Charge) -> Charged | CardRefused: ...
async def kind_of_declared(command: Charge) -> Stolen: ...
async def told_of_paid(event: Paid) -> None: ...
def blocking(command: Charge) -> Charged: ...
async def bare(command: Charge, context: Context) -> Charged: ...
async def with_session(command: Charge, context: Context[AsyncSession]) -> Charged: ...
async def without_session(command: Charge, context: Context[None]) -> Charged: ...
def blocking_session(command: Charge, context: Context[Session]) -> Charged: ...
def blocking_bare(command: Charge, context: Context) -> Charged: ...


async def wrong_command(command: Refund) -> Charged: ...
async def wrong_reply(command: Charge) -> Refunded: ...
async def no_reply(command: Charge) -> None: ...
async def wrong_failure(command: Charge) -> Charged | Unnamed: ...
async def anything(command: Charge) -> Any: ...
async def unsaid(command: Charge): ...  # type: ignore[no-untyped-def]  # noqa: ANN201
async def untyped(command) -> Charged: ...  # type: ignore[no-untyped-def]  # noqa: ANN001
async def three(command: Charge, context: Context, more: int) -> Charged: ...
async def keyword(command: Charge, *, more: int) -> Charged: ...
async def nothing() -> Charged: ...
async def odd_context(command: Charge, context: int) -> Charged: ...
async def unknown(command: Charge) -> NoSuchClass: ...  # type: ignore[name-defined]  # noqa: F821


Handler = Callable[..., Any]


@pytest.mark.parametrize(
    ("handler", "sessions"),
    [
        (plain, None),
        (general, None),
        (declared, None),
        (kind_of_declared, None),
        (blocking, None),
        (without_session, None),
        (plain, ASYNC),
        (bare, ASYNC),
        (with_session, ASYNC),
        (without_session, ASYNC),
        (blocking, ASYNC),
        (blocking, SYNC),
        (blocking_session, SYNC),
        (blocking_bare, SYNC),
    ],
)
def test_a_handler_that_fits_is_taken(handler: Handler, sessions: Any) -> None:
    service = Service("payments", sessions=sessions)

    assert service.handles(Charge)(handler) is handler
    registered = service.handler_of("charge")
    assert registered is not None
    assert registered.function is handler


@pytest.mark.parametrize(
    ("handler", "sessions", "problem"),
    [
        (wrong_command, None, "takes Refund, but is registered for Charge"),
        (wrong_reply, None, r"returns Refunded, but Charge is answered with Charged \| CardRefused \| Failure"),
        (no_reply, None, "returns NoneType"),
        (wrong_failure, None, "returns Unnamed"),
        (anything, None, "returns Any"),
        (unsaid, None, "does not say what it returns"),
        (untyped, None, "does not say what it takes"),
        (three, ASYNC, "nothing else"),
        (keyword, None, "nothing else"),
        (nothing, None, "nothing else"),
        (odd_context, None, "second parameter"),
        (unknown, None, "NoSuchClass"),
        (bare, None, "has no sessions"),
        (with_session, None, "has no sessions"),
        (blocking_session, None, "has no sessions"),
        (plain, SYNC, "is async, but the service's sessions are not"),
        (blocking_bare, ASYNC, "is a plain function and asks for the session"),
        (blocking_session, ASYNC, "is a plain function and asks for the session"),
    ],
)
def test_a_handler_that_does_not_fit_is_refused_and_told_why(handler: Handler, sessions: Any, problem: str) -> None:
    service = Service("payments", sessions=sessions)

    with pytest.raises(HandlerDefinitionError, match=problem) as caught:
        service.handles(Charge)(handler)

    assert f"handler {handler.__name__} of service 'payments'" in str(caught.value)
    assert service.handlers == ()


def test_a_session_of_the_wrong_kind_is_refused() -> None:
    async def handler(command: Charge, context: Context[Session]) -> Charged: ...

    with pytest.raises(HandlerDefinitionError, match=r"asks for a Session, but .* make an AsyncSession"):
        Service("payments", sessions=ASYNC).handles(Charge)(handler)


def test_annotations_may_name_what_stands_in_the_same_function() -> None:
    class Local(Command[Charged]):
        pass

    service = Service("payments")

    @service.handles(Local)
    async def local(command: Local) -> Charged: ...

    assert service.handler_of("local") is not None


def test_two_handlers_for_one_command_are_refused() -> None:
    service = Service("payments")
    service.handles(Charge)(plain)

    with pytest.raises(HandlerDefinitionError, match="handles Charge, which plain handles already"):
        service.handles(Charge)(general)


def test_two_messages_with_one_wire_name_are_refused() -> None:
    class Other(Command[Charged], name="charge"):
        pass

    async def other(command: Other) -> Charged: ...

    service = Service("payments")
    service.handles(Charge)(plain)
    with pytest.raises(HandlerDefinitionError, match="'charge', which is already that of Charge"):
        service.handles(Other)(other)


def test_an_event_handler_returns_nothing() -> None:
    async def right(event: Paid) -> None: ...
    async def wrong(event: Paid) -> Charged: ...

    service = Service("mailer")
    with pytest.raises(HandlerDefinitionError, match="events have no reply"):
        service.subscribes(Paid)(wrong)  # type: ignore[arg-type]
    service.subscribes(Paid)(right)


def test_the_queue_is_bound_to_what_is_subscribed() -> None:
    service = Service("mailer")

    @service.subscribes(Paid)
    async def paid(event: Paid) -> None: ...

    class Shipped(Event):
        pass

    @service.subscribes(Shipped, exchange="fanout_exchange", kind="fanout", key="anything")
    def shipped(event: Shipped) -> None: ...

    assert service.queue_spec() == QueueSpec(
        "mailer", (Binding("paid"), Binding("anything", "fanout_exchange", "fanout"))
    )


def test_a_command_may_come_through_an_exchange_too() -> None:
    service = Service("payments", queue=QueueOptions(type="classic", delivery_limit=3))

    @service.handles(Charge, exchange="billing", key="eu.*", kind="topic", absolute=True)
    async def charge(command: Charge) -> Charged: ...

    @service.handles(Refund, exchange="refunds")
    async def refund(command: Refund) -> Refunded: ...

    bindings = (Binding("eu.*", "billing", "topic", absolute=True), Binding("refund", "refunds", "direct"))
    assert service.queue_spec() == QueueSpec("payments", bindings, 3, queue_type="classic")


def test_a_handler_class_says_where_its_messages_come_from_and_how_many_at_a_time() -> None:
    class Charging(CommandHandler[Charge]):
        exchange = "billing"
        max_in_flight = 2

        async def handle(self, command: Charge, context: Context[None]) -> Charged: ...

    service = Service("payments")
    service.register(Charging())

    assert service.queue_spec().bindings == (Binding("charge", "billing", "direct"),)
    handler = service.handler_of("charge")
    assert handler is not None and handler.max_in_flight == 2


def test_an_exchange_is_of_one_kind_and_of_one_that_there_is() -> None:
    service = Service("mailer")
    service.subscribes(Paid, exchange="news", kind="fanout")(told_of_paid)
    with pytest.raises(HandlerDefinitionError, match="'news' as direct, and another handler as fanout"):
        service.handles(Charge, exchange="news")(plain)
    with pytest.raises(HandlerDefinitionError, match=r"kind 'headers'.* topic, direct, fanout"):
        service.handles(Charge, exchange="other", kind="headers")(plain)  # type: ignore[arg-type]
    assert service.handler_of("charge") is None


@pytest.mark.parametrize("limit", [0, 9])
def test_a_handler_cannot_handle_more_at_a_time_than_its_service_nor_none(limit: int) -> None:
    with pytest.raises(HandlerDefinitionError, match="Say 1 to 8"):
        Service("payments", max_in_flight=8).handles(Charge, max_in_flight=limit)(plain)


def test_a_bound_method_may_handle() -> None:
    class Payments:
        async def charge(self, command: Charge) -> Charged: ...

    service = Service("payments")
    service.add(Charge, Payments().charge)

    assert service.handler_of("charge") is not None


def test_what_a_service_cannot_work_with_is_refused() -> None:
    with pytest.raises(SettingsError, match="must be an async_sessionmaker or a sessionmaker"):
        Service("payments", sessions="sqlite://")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="max_in_flight"):
        Service("payments", max_in_flight=0)
    with pytest.raises(SettingsError, match="prefetch_messages of service 'payments' is 3"):
        Service("payments", max_in_flight=4, prefetch_messages=3)


def test_the_retry_of_a_service_ends() -> None:
    retry = Service("payments").retry

    assert retry.max_attempts is not None
    assert retry.cap <= timedelta(minutes=10)
