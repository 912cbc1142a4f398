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

from abc import ABC
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, ClassVar, Generic, Literal

from pydantic import BaseModel

from messaging.messages import Event, kebab_cased
from orchestrator.compiling import compiled
from orchestrator.plan import Plan
from orchestrator.saga_checks import check_saga, state_type_of
from orchestrator.steps import Node, S, StartOnEvent


class Saga(ABC, Generic[S]):
    """A sequence of steps over a state `S`, a pydantic model that is stored as JSON.

    Raises:
        SagaDefinitionError: when the class is created, with the class and the remedy.
    """

    name: ClassVar[str] = ""
    """What rows, operators and other programs call it: the kebab-cased class name unless set."""
    version: ClassVar[int] = 1
    steps: tuple[Node[S], ...] = ()
    starts_on: tuple[StartOnEvent[S, Any], ...] = ()
    """Events that start a saga of this kind; sagas can be started by callers all the same."""
    deadline: ClassVar[timedelta | None] = None
    """For the whole saga: it turns back then, unless the pivot is passed."""
    alarm_after: ClassVar[timedelta | None] = None
    """How old a saga may be, and not have ended, before the alarm is raised; it goes on all the same."""
    on_compensation_failure: ClassVar[Literal["block", "continue_others"]] = "block"
    reuse_key_after_end: ClassVar[bool] = False
    """Whether a business key may start another saga once the earlier one has ended."""
    keep_states: ClassVar[bool] = False
    """Whether the state is also kept as it began, and as it was after each step that changed it.

    It is written in the transaction of the change, whole, and goes with the saga: it costs that much room. What a saga
    did before this was set is not known. Not part of the shape: it may be changed without a new version.
    """
    state_type: ClassVar[type[BaseModel]]
    plan: ClassVar[Plan]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):
            cls.name = kebab_cased(cls.__name__).removesuffix("-saga")
        if not cls.steps:
            return  # an abstract base of other sagas
        cls.state_type = state_type_of(cls, Saga)
        check_saga(cls)
        cls.plan = compiled(cls)

    @classmethod
    def upcast(cls, state: dict[str, Any], version: int) -> dict[str, Any]:
        """Lift the state of a saga of an earlier version to that of the next; asked when a saga is upgraded.

        Called for each version between the saga's and this one. Fields that have defaults need no lifting. What
        it raises refuses the upgrade.

        Args:
            state: as version `version` has it, as JSON; may be changed in place.
            version: from 1 to one less than the class' own.

        Returns:
            The state as version `version + 1` has it.
        """
        return state

    def on_completed(self, state: S) -> Iterable[Event]:
        """Events to publish when the saga completes, in the same transaction."""
        return ()

    def on_compensated(self, state: S) -> Iterable[Event]:
        """Events to publish when the saga is compensated, in the same transaction."""
        return ()
