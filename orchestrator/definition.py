"""What users subclass to say what a saga is: steps as classes, a saga as a tuple of them.

    class ReservingCredit(Step[OrderState, CreditReserved]):
        participant = "customers"

        def command(self, state: OrderState) -> ReserveCredit: ...
        def compensation(self, state: OrderState) -> ReleaseCredit: ...

    class CreateOrderSaga(Saga[OrderState]):
        steps = (CreatingOrder(), Parallel(ReservingCredit(), ReservingStock()), ShippingOrder())

Hooks are plain functions of the state: no I/O, no clock, no randomness, since they may run again.
They get a copy of the state of their own; what `on_reply`, `on_failure` and `on_event` change in it is kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel

from messaging.messages import Command, Event, Failure, Reply, kebab_cased
from messaging.retry import Retry
from orchestrator import checks
from orchestrator.plan import Plan

S = TypeVar("S", bound=BaseModel)
R = TypeVar("R", bound=Reply)
E = TypeVar("E", bound=Event)


class Node(ABC, Generic[S]):
    """A step, or a group of steps, of sagas whose state is `S`."""

    name: str = ""
    """What the rows of the database and operators call it: the class name unless set."""


class Leaf(Node[S]):
    """A node that awaits something of its own."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):
            cls.name = cls.__name__
        if cls.__module__ != __name__:
            checks.checked_step(cls)

    def when(self, state: S) -> bool:
        """Whether the step is taken at all; otherwise it is recorded as skipped."""
        return True

    def events(self, state: S) -> Iterable[Event]:
        """Events to publish when the step has succeeded, in the same transaction."""
        return ()


class Step(Leaf[S], Generic[S, R]):
    """Sends one command to a participant and awaits its reply, `R`.

    A step is compensatable (the default: define `compensation`, or set `nothing_to_undo`), the
    saga's `pivot`, or, after the pivot, `retriable`.

    Raises:
        SagaDefinitionError: when the class is created, if it contradicts itself.
    """

    participant: ClassVar[str] = ""
    """The queue of the service that carries the command out."""
    timeout: ClassVar[timedelta] = timedelta(minutes=1)
    """How long one attempt of the command waits for its reply."""
    retry: ClassVar[Retry] = Retry(max_attempts=3)
    """For attempts that timed out or that the participant answered with `retry`."""
    on_exhausted: ClassVar[Literal["compensate", "block"]] = "compensate"
    compensation_timeout: ClassVar[timedelta] = timedelta(minutes=1)
    compensation_retry: ClassVar[Retry] = Retry(max_attempts=10)
    pivot: ClassVar[bool] = False
    """The point of no return: before it everything can be undone, after it nothing is."""
    retriable: ClassVar[bool] = False
    """Comes after the pivot: tried until it succeeds or its policy ends, then blocks."""
    nothing_to_undo: ClassVar[bool] = False
    """Says that the step needs no compensation."""
    participant_dedupes: ClassVar[bool] = True
    """Whether the participant answers a repeated idempotency key from its inbox."""

    @abstractmethod
    def command(self, state: S) -> Command[R]:
        """Build the command; asked once, stored, and repeated by later attempts."""

    def on_reply(self, state: S, reply: R) -> None:
        """Take what the reply says into the state."""

    def on_failure(self, state: S, failure: Failure) -> None:
        """Take the refusal into the state; the saga then turns back (after the pivot: tries again)."""

    def compensation(self, state: S) -> Command[Any] | None:
        """Build the command that undoes this step; None if there is nothing to undo in this state.

        It may be asked for a step whose reply never came: name things by ids known before the step ran.
        """
        return None


class WaitForEvent(Leaf[S], Generic[S, E]):
    """Waits for an event `E` whose key is the awaited one, or for its timeout."""

    timeout: ClassVar[timedelta | None] = None
    """None: bounded by the saga's `deadline` only, which must then be set."""
    on_timeout: ClassVar[Literal["compensate", "continue", "block"]] = "compensate"
    """After the pivot, `compensate` means `block`: nothing turns back there."""
    accepts_events_up_to: ClassVar[timedelta | None] = None
    """How old an event kept from before the wait may be; None: whatever is still kept."""

    def awaited_key(self, state: S) -> str | None:
        """The key to wait for; None: events that carry this saga's id.

        Events that a participant publishes while it handles one of the saga's commands do.
        """
        return None

    def event_key(self, event: E) -> str | None:
        """The key of an event; None: it is matched by the saga id it carries."""
        return None

    def on_event(self, state: S, event: E) -> None:
        """Take what the event says into the state."""

    def on_expired(self, state: S) -> None:
        """Note in the state that the event did not come in time."""


class Delay(Leaf[S]):
    """Waits for a time, or until an instant, which is computed from the state when the step is reached."""

    @abstractmethod
    def until(self, state: S) -> datetime | timedelta:
        """How long to wait from now on, or until when: an aware instant. What has passed already does not wait.

        A time stands still while the saga is paused or blocked; an instant does not.
        """


class Sequence(Node[S]):
    """Steps one after the other: a branch of `Parallel`."""

    def __init__(self, *steps: Node[S], name: str = "") -> None:
        self.steps: tuple[Node[S], ...] = steps
        self.name = name or f"Sequence.{steps[0].name if steps else ''}"


class Parallel(Node[S]):
    """Branches that run together; done when all are. One failing branch turns the saga back.

    Args:
        settle_all: let each branch run to its own end before the saga turns back because of one.
    """

    def __init__(self, *branches: Node[S], name: str = "", settle_all: bool = False) -> None:
        self.branches: tuple[Node[S], ...] = branches
        self.settle_all = settle_all
        self.name = name or f"Parallel.{branches[0].name if branches else ''}"


class Saga(ABC, Generic[S]):
    """A sequence of steps over a state `S`, a pydantic model that is stored as JSON.

    Raises:
        SagaDefinitionError: when the class is created, with the class and the remedy.
    """

    name: ClassVar[str] = ""
    """What rows, operators and other programs call it: the kebab-cased class name unless set."""
    version: ClassVar[int] = 1
    steps: tuple[Node[S], ...] = ()
    deadline: ClassVar[timedelta | None] = None
    """For the whole saga: it turns back then, unless the pivot is passed."""
    on_compensation_failure: ClassVar[Literal["block", "continue_others"]] = "block"
    reuse_key_after_end: ClassVar[bool] = False
    """Whether a business key may start another saga once the earlier one has ended."""
    state_type: ClassVar[type[BaseModel]]
    plan: ClassVar[Plan]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):
            cls.name = kebab_cased(cls.__name__).removesuffix("-saga")
        if not cls.steps:
            return  # an abstract base of other sagas
        cls.state_type = checks.state_type_of(cls)
        cls.plan = checks.checked_plan(cls)

    def on_completed(self, state: S) -> Iterable[Event]:
        """Events to publish when the saga completes, in the same transaction."""
        return ()

    def on_compensated(self, state: S) -> Iterable[Event]:
        """Events to publish when the saga is compensated, in the same transaction."""
        return ()
