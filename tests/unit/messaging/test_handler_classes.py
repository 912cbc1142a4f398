"""Handlers as classes, registered by hand or found in a package."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker

from messaging.context import Context
from messaging.errors import DiscoveryError, HandlerDefinitionError
from messaging.handler_classes import CommandHandler, EventHandler
from messaging.messages import Command, Event, Failure, Reply
from messaging.service import Service
from messaging.transport import Binding, QueueSpec
from tests.unit.messaging.support import decode_body, running

C = TypeVar("C", bound=Command[Any])


class Shown(Reply):
    text: str = ""


class Show(Command[Shown]):
    text: str = ""


class Hide(Command[Reply]):
    pass


class Joined(Event):
    pass


class ShowHandler(CommandHandler[Show]):
    def __init__(self, greeting: str = "hello") -> None:
        self._greeting = greeting

    async def handle(self, command: Show, context: Context[None]) -> Shown:
        return Shown(text=f"{self._greeting} {command.text}")


class BlockingHandler(CommandHandler[Show]):
    def handle(self, command: Show, context: Context[None]) -> Shown | Failure:
        return Failure(reason=f"{command.text} is not shown")


class JoinedHandler(EventHandler[Joined]):
    exchange, kind, key = "people", "direct", "joined"

    async def handle(self, event: Joined, context: Context[None]) -> None: ...


class OneOfOurs(CommandHandler[C], Generic[C]):
    """A base of one's own that hands the command on."""


class OfOurBase(OneOfOurs[Show]):
    async def handle(self, command: Show, context: Context[None]) -> Shown:
        return Shown()


class WrongCommand(CommandHandler[Show]):
    async def handle(self, command: Hide, context: Context[None]) -> Shown: ...  # type: ignore[override]


class WrongReply(CommandHandler[Show]):
    async def handle(self, command: Show, context: Context[None]) -> Reply: ...  # type: ignore[override]


class WrongEvent(EventHandler[Joined]):
    async def handle(self, event: Show, context: Context[None]) -> None: ...  # type: ignore[override]


class AsksForASession(CommandHandler[Show]):
    async def handle(self, command: Show, context: Context) -> Shown: ...


class OfNoMessage(CommandHandler):  # type: ignore[type-arg]
    async def handle(self, command: Show, context: Context[None]) -> Shown: ...


async def test_an_instance_handles_its_command_with_what_it_was_made_of() -> None:
    service = Service("screen")
    service.register(ShowHandler("good morning"))

    async with running(service) as screen:
        answer = await screen.ask(Show(text="Ann"))

    assert decode_body(Shown, answer.body).text == "good morning Ann"


async def test_a_plain_method_runs_in_a_thread_and_may_refuse() -> None:
    service = Service("screen")
    service.register(BlockingHandler())

    async with running(service) as screen:
        answer = await screen.ask(Show(text="Ann"))

    assert decode_body(Failure, answer.body).reason == "Ann is not shown"


def test_an_events_handler_says_where_it_comes_from() -> None:
    service = Service("screen")
    service.register(JoinedHandler())

    assert service.queue_spec() == QueueSpec("screen", (Binding("joined", "people", "direct"),))


def test_the_message_is_found_behind_a_base_of_ones_own() -> None:
    service = Service("screen")
    service.register(OfOurBase())

    assert [handler.message for handler in service.handlers] == [Show]


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        (WrongCommand, "WrongCommand.handle of service 'screen' takes Hide, but is registered for Show"),
        (WrongReply, "WrongReply.handle of service 'screen' returns Reply, but Show is answered with Shown"),
        (WrongEvent, "WrongEvent.handle of service 'screen' takes Show, but is registered for Joined"),
        (AsksForASession, "AsksForASession.handle of service 'screen' asks for a session, but the service has no"),
        (OfNoMessage, "OfNoMessage of service 'screen' is no handler class"),
        (str, "str of service 'screen' is no handler class"),
        (lambda: ShowHandler, r"ShowHandler of service 'screen' is registered as a class.*register\(ShowHandler\(\)\)"),
    ],
)
def test_what_does_not_fit_is_refused_when_it_is_registered(handler: Callable[[], Any], problem: str) -> None:
    with pytest.raises(HandlerDefinitionError, match=problem):
        Service("screen").register(handler())


def test_a_bare_context_is_the_services_session() -> None:
    service = Service("screen", sessions=async_sessionmaker())
    service.register(AsksForASession())

    assert service.handlers[0].takes_context


HEAD = """
from messaging import Command, CommandHandler, Context, Event, EventHandler, Reply, Service

class Show(Command[Reply]): ...
class Joined(Event): ...
"""
CLASSES = (
    HEAD
    + """
class Base(CommandHandler[Show]): ...

class ShowHandler(Base):
    async def handle(self, command: Show, context: Context[None]) -> Reply:
        return Reply()
"""
)
DECORATED = """
from {package} import service
from {package}.classes import Joined

@service.subscribes(Joined)
async def joined(event: Joined) -> None: ...
"""
SERVICE = "from messaging import Service\nservice = Service('screen')\n"
NEEDS_ARGUMENTS = CLASSES.replace("async def", "def __init__(self, greeting: str) -> None: ...\n    async def")

_numbers = count()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a package, still empty, that can be imported and is forgotten afterwards."""
    name = f"found_in_a_test_{next(_numbers)}"
    (tmp_path / name / "deeper").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]


@pytest.fixture
def write(tmp_path: Path, package: str) -> Callable[[str, str], None]:
    (tmp_path / package / "deeper" / "__init__.py").touch()
    (tmp_path / package / "__init__.py").write_text(SERVICE)

    def write(module: str, program: str) -> None:
        (tmp_path / package / f"{module}.py").write_text(program.replace("{package}", package))

    return write


def service_of(package: str) -> Service:
    service: Service = __import__(package).service
    return service


def test_classes_and_decorated_functions_are_found_in_all_modules(
    package: str, write: Callable[[str, str], None]
) -> None:
    write("classes", CLASSES)
    write("deeper/functions", DECORATED)
    write("__main__", "raise SystemExit('imported')")

    found = service_of(package).discover(package)

    assert sorted(handler.name for handler in found) == ["ShowHandler.handle", "joined"]


def test_what_is_imported_from_elsewhere_is_left_there(package: str, write: Callable[[str, str], None]) -> None:
    write("classes", CLASSES)
    write("other", "from {package}.classes import ShowHandler")

    assert len(service_of(package).discover(package)) == 1
    assert len(service_of(package).discover(sys.modules[package])) == 1, "twice is no error"


def test_one_that_was_registered_by_hand_is_left_alone(package: str, write: Callable[[str, str], None]) -> None:
    write("classes", NEEDS_ARGUMENTS)
    service = service_of(package)
    service.register(__import__(f"{package}.classes").classes.ShowHandler("hello"))

    assert len(service.discover(package)) == 1


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        (NEEDS_ARGUMENTS, r"classes' has ShowHandler, whose constructor needs arguments .*register\(ShowHandler"),
        ("import not_there_at_all", "classes' cannot be imported: ModuleNotFoundError: No module named 'not_there_at"),
        ("1 / 0", "classes' cannot be imported: ZeroDivisionError: division by zero"),
        (HEAD, "has no handler in found_in_a_test_.*, found_in_a_test_.*classes"),
    ],
)
def test_what_is_in_the_way_is_told_with_its_module(
    package: str, write: Callable[[str, str], None], program: str, problem: str
) -> None:
    write("classes", program)

    with pytest.raises(DiscoveryError, match=problem):
        service_of(package).discover(package)


def test_a_package_that_is_not_there_is_named() -> None:
    with pytest.raises(DiscoveryError, match=r"service 'screen': module 'no.such' cannot be imported"):
        Service("screen").discover("no.such")
