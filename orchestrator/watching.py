"""Those who watch an orchestrator: told what it takes, decides and sends, and with no say in it.

Where nobody watches, the engine asks once a batch and does nothing more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from messaging.errors import PublishError
from messaging.transport import Delivery, Outgoing
from orchestrator.backlog import Backlog
from orchestrator.instance import SagaInstance
from orchestrator.signals import Decision
from orchestrator.watchdog import Alarm

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Change:
    """What one committed transaction did to one saga."""

    before: SagaInstance
    decision: Decision

    @property
    def after(self) -> SagaInstance:
        """The saga as it was written."""
        return self.decision.instance


def nothing() -> None:
    """What is called at the end where there is nothing to do."""


class Watcher:
    """Is told what an orchestrator does. Override what you need; what is raised is logged, and changes nothing."""

    def begun(self, saga: SagaInstance) -> str:
        """A saga is taken on for the first time that was started without a trace; return one, or nothing."""
        return ""

    def taken(self, deliveries: Sequence[Delivery]) -> Callable[[], None]:
        """Replies or events are about to be handled; return what to call when they are."""
        return nothing

    def sending(self, messages: list[Outgoing]) -> list[Outgoing]:
        """Commands are about to be published; return them, with other headers if need be, in the same order."""
        return messages

    def sent(self, messages: Sequence[Outgoing], outcomes: Sequence[PublishError | None]) -> None:
        """They were, or were not."""

    def committed(self, changes: Sequence[Change]) -> None:
        """A transaction has committed."""

    def unmatched(self, messages: int) -> None:
        """So many messages were put aside because they fit no saga."""

    def alarmed(self, alarm: Alarm) -> None:
        """Somebody should look at something; told once, until it is over."""

    def dead_lettered(self, messages: int) -> None:
        """So many replies or events were dead-lettered, since they cannot be read or handled."""

    def waiting(self, backlog: Backlog) -> None:
        """Every 15 s, unless set otherwise: what waits in the database. Read for those who override this."""


class Watching:
    """All who watch one orchestrator. Nothing of theirs ends a batch."""

    def __init__(self, watchers: Iterable[Watcher]) -> None:
        self._watchers = tuple(watchers)

    def begun(self, saga: SagaInstance) -> str:
        """The first trace that one of them gives."""
        return next(filter(None, (_safely("", w.begun, saga) for w in self._watchers)), "")

    def taken(self, deliveries: Sequence[Delivery]) -> Callable[[], None]:
        """Tell them, and return what tells them the end."""
        ends = [_safely(nothing, w.taken, deliveries) for w in self._watchers]

        def done() -> None:
            for end in ends:
                _safely(None, end)

        return done

    def sending(self, messages: list[Outgoing]) -> list[Outgoing]:
        """Hand the messages through all of them."""
        for watcher in self._watchers:
            messages = _safely(messages, watcher.sending, messages)
        return messages

    def sent(self, messages: Sequence[Outgoing], outcomes: Sequence[PublishError | None]) -> None:
        """Tell them."""
        for watcher in self._watchers:
            _safely(None, watcher.sent, messages, outcomes)

    def committed(self, changes: Sequence[Change]) -> None:
        """Tell them, if there is something to tell."""
        for watcher in self._watchers if changes else ():
            _safely(None, watcher.committed, changes)

    def unmatched(self, messages: int) -> None:
        """Tell them, if there is something to tell."""
        for watcher in self._watchers if messages else ():
            _safely(None, watcher.unmatched, messages)

    def alarmed(self, alarm: Alarm) -> None:
        """Tell them."""
        for watcher in self._watchers:
            _safely(None, watcher.alarmed, alarm)

    def dead_lettered(self, messages: int) -> None:
        """Tell them."""
        for watcher in self._watchers:
            _safely(None, watcher.dead_lettered, messages)

    @property
    def want_backlog(self) -> bool:
        """Whether one of them does."""
        return any(type(watcher).waiting is not Watcher.waiting for watcher in self._watchers)

    def waiting(self, backlog: Backlog) -> None:
        """Tell them."""
        for watcher in self._watchers:
            _safely(None, watcher.waiting, backlog)


def _safely(otherwise: T, tell: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return tell(*args, **kwargs)
    except Exception:
        logger.exception("A watcher raised; the sagas go on")
        return otherwise
