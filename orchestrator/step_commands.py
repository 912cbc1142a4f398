"""What a step's methods say of the commands they build: read off their annotations."""

from __future__ import annotations

from typing import Any, cast

from pydantic import BaseModel

from messaging.messages import Command
from orchestrator.plan import returned_types
from orchestrator.step_checks import refuse


def check_reply(where: str, state: type[BaseModel], command: type[Command[Any]], awaited: type) -> None:
    """Refuse a command that is answered with anything but the awaited reply."""
    if issubclass(command.reply_type, awaited):
        return
    answer = command.reply_type.__name__
    problem = f"sends {command.__name__}, which is answered with {answer}, but awaits {awaited.__name__}"
    refuse(where, f"{problem}. Write Step[{state.__name__}, {answer}]")


def commands_of(where: str, step: object, method: str) -> tuple[type[Command[Any]], ...]:
    """The commands that a method of a step says it builds.

    Raises:
        SagaDefinitionError: it says none, or it cannot be read.
    """
    try:
        types = returned_types(getattr(type(step), method))
    except NameError as error:
        problem = f"has a {method}() whose return annotation cannot be read ({error})"
        refuse(where, f"{problem}. Define the class it names at module level")
    commands = cast("list[type[Command[Any]]]", [t for t in types if issubclass(t, Command)])
    # Command itself, or Command[SomeReply], is a spelling and no message: nothing on the wire is called that.
    if not commands or any(c is Command or c.__pydantic_generic_metadata__["args"] for c in commands):
        problem = f"has a {method}() that does not name its command"
        refuse(where, f"{problem}. Annotate it: def {method}(...) -> TheCommand")
    return tuple(commands)
