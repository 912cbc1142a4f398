"""What users subclass: commands, events, replies and failures, as pydantic models.

A message is its body. Its name on the wire is short text that belongs to the contract between
services: the kebab-cased class name unless the class says otherwise, and never a module path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from messaging.errors import MessageDefinitionError

_WIRE_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}\Z")
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def kebab_cased(name: str) -> str:
    """Return `ReserveCredit` as `reserve-credit`."""
    return _WORD_START.sub("-", name).replace("_", "-").lower()


class Message(BaseModel):
    """A fact or an order with a name on the wire. Immutable; unknown fields are ignored on reading.

        class ReserveCredit(Command[CreditReserved], name="customers.reserve-credit", version=2): ...

    Raises:
        MessageDefinitionError: when the class is created: its name or its version cannot be used.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, hide_input_in_errors=True)

    wire_name: ClassVar[str] = "message"
    schema_version: ClassVar[int] = 1

    def __init_subclass__(cls, *, name: str | None = None, version: int | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(cls, *, name: str | None = None, version: int | None = None, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if cls.__pydantic_generic_metadata__["args"]:
            return  # Command[CreditReserved] itself is a spelling, not a message
        if "wire_name" in vars(cls):
            raise MessageDefinitionError(
                cls, f"sets wire_name in its body. Say it with the class: class {cls.__name__}(..., name=...)"
            )
        cls.wire_name = name or kebab_cased(cls.__name__)
        if not _WIRE_NAME.match(cls.wire_name):
            raise MessageDefinitionError(
                cls, f"has the wire name {cls.wire_name!r}. Use 1 to 128 of the characters A-Z a-z 0-9 _ . : -"
            )
        if version is not None:
            cls.schema_version = _checked_version(cls, version)

    @classmethod
    def upcast(cls, body: dict[str, Any], version: int) -> dict[str, Any]:
        """Lift the JSON of a version to the next one; asked once for each version between the sender's and ours.

        Define it where defaults are not enough: a field has another name, say. What it raises makes the
        message unreadable, as any other field that is wrong.

        Args:
            body: as version `version` has it; may be changed in place.
            version: from 1 to one less than the class' own.

        Returns:
            The body as version `version + 1` has it.
        """
        return body


class Reply(Message):
    """A participant's answer: the command was carried out."""


class Failure(Message):
    """A participant's refusal: a business fact, not a fault. The command did not happen.

    Subclass it to carry details; the subclass' wire name is its error code. `Failure` itself is
    for refusals that need no class of their own, and what an unknown error code is read as.
    """

    reason: str = ""
    code: str = ""

    @property
    def error_code(self) -> str:
        """The word that tells this refusal from others: `code` if set, else the wire name."""
        return self.code or self.wire_name


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a handler returns whose answer comes later, from a human or a webhook that redeems `Context.reply_token`.

    What the handler has written is committed. Repeated, the command is answered the same again, and the handler
    does not run.

    Args:
        within: how long the sender is to wait for the answer, from when it is told.
    """

    within: timedelta

    def __post_init__(self) -> None:
        if self.within <= timedelta(0):
            raise ValueError(f"Accepted(within={self.within}) leaves no time for the answer")


class Event(Message):
    """Something that happened, told to whoever wants to know."""


R_co = TypeVar("R_co", bound=Reply, covariant=True)


class Command(Message, Generic[R_co]):
    """An order to one participant, which answers with `R_co` or refuses with a `Failure`.

        class ReserveCredit(Command[CreditReserved], failures=(CreditRefused,)):
            order_id: UUID

    Raises:
        MessageDefinitionError: when the class is created: a failure is no `Failure`, or two share a code.
    """

    reply_type: ClassVar[type[Reply]] = Reply
    failure_types: ClassVar[tuple[type[Failure], ...]] = ()

    def __init_subclass__(
        cls,
        *,
        name: str | None = None,
        version: int | None = None,
        failures: tuple[type[Failure], ...] = (),
        **kwargs: Any,
    ) -> None:
        super().__init_subclass__(name=name, version=version, **kwargs)

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        name: str | None = None,
        version: int | None = None,
        failures: tuple[type[Failure], ...] = (),
        **kwargs: Any,
    ) -> None:
        super().__pydantic_init_subclass__(name=name, version=version, **kwargs)
        cls.reply_type = _reply_type_of(cls) or cls.reply_type
        if failures:
            cls.failure_types = _checked_failures(cls, failures)

    @classmethod
    def failure_type(cls, error_code: str) -> type[Failure]:
        """The declared class of this error code, else the general `Failure`."""
        return next((f for f in cls.failure_types if f.wire_name == error_code), Failure)


def _checked_version(cls: type[Message], version: int) -> int:
    if isinstance(version, bool) or version < 1:
        raise MessageDefinitionError(cls, f"has the version {version!r}. Versions are numbers from 1")
    if issubclass(cls, (Reply, Failure)):
        problem = "is an answer, which has no version. Give new fields defaults, or answer with another class"
        raise MessageDefinitionError(cls, problem)
    return version


def _reply_type_of(cls: type[Command[Any]]) -> type[Reply] | None:
    """Read `CreditReserved` out of the base `Command[CreditReserved]`."""
    for base in cls.__mro__:
        metadata = getattr(base, "__pydantic_generic_metadata__", None)
        if metadata and metadata["origin"] is not None and metadata["args"]:
            argument = metadata["args"][0]
            if isinstance(argument, type) and issubclass(argument, Reply):
                return argument
    return None


def _checked_failures(cls: type[Command[Any]], failures: tuple[object, ...]) -> tuple[type[Failure], ...]:
    by_code: dict[str, type[Failure]] = {}
    for failure in failures:
        if not (isinstance(failure, type) and issubclass(failure, Failure)):
            raise MessageDefinitionError(cls, f"names {failure!r} as a failure. Name subclasses of Failure")
        if failure.wire_name in by_code:
            raise MessageDefinitionError(cls, f"has two failures with the error code {failure.wire_name!r}")
        by_code[failure.wire_name] = failure
    return tuple(by_code.values())
