"""The steps of sagas, which users subclass: what each sends, waits for or does, and how it is undone.

Hooks are plain functions of the state: no I/O, no clock, no randomness, since they may run again.
They get a copy of the state of their own; what `on_reply`, `on_failure` and `on_event` change in it is kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Literal, TypeVar

from pydantic import BaseModel

from messaging.messages import Command, Event, Failure, Reply
from messaging.retry import Retry
from orchestrator.step_checks import Kind, check_step

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from orchestrator.definition import Saga

S = TypeVar("S", bound=BaseModel)
R = TypeVar("R", bound=Reply)
E = TypeVar("E", bound=Event)
C = TypeVar("C", bound=BaseModel)
I = TypeVar("I")  # noqa: E741 - for item


class Node(ABC, Generic[S]):
    """A step, or a group of steps, of sagas whose state is `S`."""

    name: str = ""
    """What the rows of the database and operators call it: the class name unless set."""


class Named(Node[S]):
    """A node with rows of its own."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):
            cls.name = cls.__name__
        if cls.__module__ != __name__:
            check_step(cls, KINDS, locking=Locking)


class Leaf(Named[S]):
    """A node that awaits something of its own."""

    def when(self, state: S) -> bool:
        """Whether the step is taken at all; otherwise it is recorded as skipped."""
        return True

    def events(self, state: S) -> Iterable[Event]:
        """Events to publish when the step has succeeded, in the same transaction."""
        return ()


class Locking(Leaf[S]):
    """A node that does something, and may name the resources that no other saga is to touch meanwhile."""

    lock_timeout: ClassVar[timedelta | None] = None
    """How long it waits for what others hold; then it has failed. Needed with `locks`, unless `on_locked = "fail"`."""
    on_locked: ClassVar[Literal["wait", "fail"]] = "wait"
    """What it does when another saga holds one of them: wait for its turn, or fail at once."""

    def locks(self, state: S) -> Iterable[str]:
        """Name the resources: `[f"account:{state.payer}", f"account:{state.payee}"]`. Not after the pivot.

        The step begins once all are its saga's, and they stay so until it is undone, or until the saga has ended;
        of a child, until the first of its ancestors has. What the saga holds already it need not wait for.
        """
        return ()


class Sending:
    """How a step's command is sent, tried again, and undone."""

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


class Step(Sending, Locking[S], Generic[S, R]):
    """Sends one command to a participant and awaits its reply, `R`.

    A step is compensatable (the default: define `compensation`, or set `nothing_to_undo`), the
    saga's `pivot`, or, after the pivot, `retriable`.

    Raises:
        SagaDefinitionError: when the class is created, if it contradicts itself.
    """

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


class LocalStep(Locking[S]):
    """Runs a function of the author's on the orchestrator's own database, in one transaction with the saga's rows.

    So it has happened exactly when the saga says so. What it raises rolls it back: it did not happen, and is
    tried again by `retry`. While it runs nothing else is decided for this saga, and on SQLite for none: keep it short.

    A local step is undoable (define `undo`, or set `nothing_to_undo`), the saga's `pivot`, or `retriable`.

    Raises:
        SagaDefinitionError: when the class is created, if it contradicts itself.
    """

    timeout: ClassVar[timedelta] = timedelta(seconds=5)
    """How long the function may take; then it is rolled back, like one that raises."""
    retry: ClassVar[Retry] = Retry(max_attempts=3)
    """For a function that raises. A refusal is not tried again, unless the step is retriable."""
    on_exhausted: ClassVar[Literal["compensate", "block"]] = "compensate"
    compensation_retry: ClassVar[Retry] = Retry(max_attempts=10)
    pivot: ClassVar[bool] = False
    retriable: ClassVar[bool] = False
    nothing_to_undo: ClassVar[bool] = False

    @abstractmethod
    async def run(self, state: S, session: AsyncSession) -> Failure | None:
        """Do it; changes to the state are kept. Return a failure to refuse: all is rolled back, the saga turns back.

        The session is on the saga's transaction, which commits after this; commits of its own stay inside.
        """

    def on_failure(self, state: S, failure: Failure) -> None:
        """Take the refusal into the state."""

    async def undo(self, state: S, session: AsyncSession) -> None:
        """Undo it, likewise in one transaction with the saga's rows. It is tried again until it does not raise."""


class ItemStep(Sending, Named[S], Generic[S, I, R]):
    """A step of a `ForEach`: like `Step`, once for each item `I`, which its hooks are given.

    Raises:
        SagaDefinitionError: when the class is created, if it contradicts itself.
    """

    def when(self, state: S, item: I) -> bool:
        """Whether the step is taken for this item; otherwise it is recorded as skipped."""
        return True

    @abstractmethod
    def command(self, state: S, item: I) -> Command[R]:
        """Build the command; asked once, stored, and repeated by later attempts."""

    def on_reply(self, state: S, item: I, reply: R) -> None:
        """Take what the reply says into the state. Items end in any order: do not depend on it."""

    def on_failure(self, state: S, item: I, failure: Failure) -> None:
        """Take the refusal into the state."""

    def compensation(self, state: S, item: I) -> Command[Any] | None:
        """Build the command that undoes this step; None if there is nothing to undo for this item."""
        return None


class ForEach(Leaf[S], Generic[S, I]):
    """Does some steps for each of the items `I` that the state gives, a few items at a time.

    The items are frozen when the step is reached; what the state says later changes none. `I` is a pydantic
    model, or a plain type such as `str`. One item that fails turns the saga back: no further item begins, and
    what was done for the others is undone.

    Raises:
        SagaDefinitionError: when the class is created, if it contradicts itself.
    """

    steps: tuple[Node[S], ...] = ()
    """What to do for an item, in sequence: `ItemStep`s, in groups if need be."""
    concurrency: ClassVar[int] = 10
    """How many items are under way at once, at most."""
    compensation_concurrency: ClassVar[int] = 10

    @abstractmethod
    def items(self, state: S) -> Iterable[I]:
        """The items; none, and the step is done at once."""

    @abstractmethod
    def item_key(self, item: I) -> str:
        """What tells an item from the others, for good; at most 128 bytes once percent-encoded."""


class SubSaga(Locking[S], Generic[S, C]):
    """Starts a child saga, whose state is `C`, and awaits its end.

    A child that completes is a success. One that is compensated is a failure: the parent turns back. To undo a
    completed child is to have it go back by its own compensations, so before the pivot a child has none of its own,
    unless there is `nothing_to_undo`. After the pivot the step is `retriable`: a child that is compensated blocks
    there, and an operator's retry starts another one.

    Raises:
        SagaDefinitionError: when the class is created, if it contradicts itself.
    """

    saga: ClassVar[type[Saga[Any]]]
    """The child's definition; it is run by whoever runs the parent's."""
    timeout: ClassVar[timedelta | None] = None
    """When the child is cancelled, whose end is awaited all the same; None: it ends by its own timeouts."""
    nothing_to_undo: ClassVar[bool] = False
    retriable: ClassVar[bool] = False

    @abstractmethod
    def child_state(self, state: S) -> C:
        """What the child starts with."""

    def on_completed(self, state: S, child: C) -> None:
        """Take what the child has come to into the state."""

    def on_compensated(self, state: S, child: C) -> None:
        """Take why the child failed into the state."""


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


class StartOnEvent(ABC, Generic[S, E]):
    """Has an event `E` start a saga whose state is `S`, at most once for each key: list it in the saga's `starts_on`.

    Its hooks are plain functions of the event. An event for which they raise starts nothing: it is kept with why.
    """

    @abstractmethod
    def event_key(self, event: E) -> str:
        """The business key of the saga: unique among the sagas of its name, whoever starts them."""

    @abstractmethod
    def state(self, event: E) -> S:
        """What the saga starts with."""


KINDS: Final[Mapping[type[Any], Kind]] = {
    Step: Kind(
        hooks=("when", "events", "command", "on_reply", "on_failure", "compensation"),
        durations=("timeout", "compensation_timeout"),
        undo="compensation",
    ),
    ItemStep: Kind(
        hooks=("when", "command", "on_reply", "on_failure", "compensation"),
        durations=("timeout", "compensation_timeout"),
        undo="compensation",
    ),
    LocalStep: Kind(
        hooks=("when", "events", "on_failure"),
        functions=("run", "undo"),
        durations=("timeout",),
        undo="undo",
        outcome_is_known=True,
    ),
    WaitForEvent: Kind(
        hooks=("when", "events", "awaited_key", "event_key", "on_event", "on_expired"),
        durations_or_none=("timeout", "accepts_events_up_to"),
        words={"on_timeout": ("compensate", "continue", "block")},
    ),
    Delay: Kind(hooks=("when", "events", "until")),
    ForEach: Kind(
        hooks=("when", "events", "items", "item_key"),
        numbers=("concurrency", "compensation_concurrency"),
    ),
    SubSaga: Kind(
        hooks=("when", "events", "child_state", "on_completed", "on_compensated"),
        durations_or_none=("timeout",),
    ),
}
"""What is checked of a class of steps, when it is created, by the class here that it is based on."""
