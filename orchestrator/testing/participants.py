"""Participants that are told what to answer: each a queue, and behind it the inbox and barrier of our kit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Generic, TypeVar

from messaging.compose import compose_event, compose_reply, flow_headers
from messaging.envelope import (
    COMPENSATES,
    IDEMPOTENCY_KEY,
    RETRY,
    Envelope,
    to_reply,
    to_subscribers,
)
from messaging.inbox import Answer, Claim, answer_of, open_order
from messaging.messages import Accepted, Command, Event, Failure, Reply
from messaging.transport import Outgoing

R = TypeVar("R", bound=Reply)

_AT_ONCE: Final = timedelta(0)


@dataclass(slots=True)
class _Behaviour:
    """What becomes of a command, so many times or for good."""

    answer: Callable[[Command[Any]], Reply | Failure | Accepted] | None
    """None: it stays silent."""
    outcome: str = ""
    after: timedelta = _AT_ONCE
    publishes: tuple[Event, ...] = ()
    times: int | None = None


@dataclass(slots=True)
class _Orders:
    """One kind of command, and what becomes of it: first what is for some times, then what is for good."""

    command: type[Command[Any]]
    some: list[_Behaviour] = field(default_factory=list[_Behaviour])
    then: _Behaviour | None = None

    def add(self, behaviour: _Behaviour) -> None:
        if behaviour.times is None:
            self.then = behaviour
        else:
            self.some.append(behaviour)

    def next(self) -> _Behaviour | None:
        if not self.some:
            return self.then
        behaviour = self.some[0]
        behaviour.times = (behaviour.times or 1) - 1
        if not behaviour.times:
            self.some.pop(0)
        return behaviour


class OnCommand(Generic[R]):
    """What a participant does when it gets such a command. The last thing said without `times` is for good."""

    def __init__(self, orders: Sequence[_Orders]) -> None:
        self._orders = orders

    def _say(self, behaviour: _Behaviour) -> None:
        for orders in self._orders:
            orders.add(replace(behaviour))

    def answers(
        self,
        reply: R | Failure | Accepted,
        *,
        after: timedelta = _AT_ONCE,
        publishes: Sequence[Event] = (),
        times: int | None = None,
    ) -> None:
        """It does it, refuses with a failure, or says that the answer comes later (`StartedInHarness.complete`).

        Args:
            reply: the answer.
            after: how long it takes, in the harness' time.
            publishes: events that it publishes with the answer; they carry the saga's id.
            times: only so many times, then what was said next.
        """
        self._say(_Behaviour(lambda _: reply, "", after, tuple(publishes), times))

    def does(self, function: Callable[[Any], R | Failure | Accepted], *, times: int | None = None) -> None:
        """It answers what the function returns for the command."""
        self._say(_Behaviour(function, times=times))

    def refuses(self, reason: str = "refused", *, after: timedelta = _AT_ONCE, times: int | None = None) -> None:
        """It refuses with a plain `Failure`."""
        failure = Failure(reason=reason)
        self._say(_Behaviour(lambda _: failure, "", after, times=times))

    def raises(self, reason: str = "busy", *, times: int | None = None) -> None:
        """Its handler raises: nothing has happened, and it is to be tried again."""
        fault = Failure(reason=reason, code=reason)
        self._say(_Behaviour(lambda _: fault, RETRY, times=times))

    def stays_silent(self, *, times: int | None = None) -> None:
        """It takes the command and is never heard of again: nothing has happened."""
        self._say(_Behaviour(None, times=times))


@dataclass(frozen=True, slots=True)
class Said:
    """What a participant sends, and when."""

    at: datetime
    messages: tuple[Outgoing, ...]


class FakeParticipant:
    """One service, as the harness plays it. It dedupes by idempotency key, and bars an action after its undo."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.received: list[Command[Any]] = []
        """All commands that reached it, in order; each attempt anew, copies too."""
        self._orders: dict[str, _Orders] = {}
        self._claims: dict[str, Claim] = {}
        self._done_at: dict[str, datetime] = {}
        """When what it was told is done, by idempotency key; copies and undos wait for it."""

    def on(self, command: type[Command[R]], *others: type[Command[R]]) -> OnCommand[R]:
        """Say what it does when it gets such a command, or one of others: `.on(ChargeCard).answers(Charged())`."""
        return OnCommand([self._orders.setdefault(one.wire_name, _Orders(one)) for one in (command, *others)])

    def take(self, envelope: Envelope, now: datetime) -> Said | None:
        """Handle one command; None if it stays silent.

        Raises:
            AssertionError: nothing was said about such a command.
        """
        orders = self._orders.get(envelope.type)
        if orders is None:
            raise AssertionError(self._nothing_said(envelope.type))
        command = orders.command.model_validate_json(envelope.body)
        self.received.append(command)
        key, compensates = envelope.text_header(IDEMPOTENCY_KEY), envelope.text_header(COMPENSATES)
        known = open_order(_Claims(dict(self._claims)), key, compensates)
        if known is not None:
            open_order(_Claims(self._claims), key, compensates)
            return _said(envelope, known, self._free_at(now, key, compensates))
        behaviour = orders.next()
        if behaviour is None:
            raise AssertionError(self._nothing_said(orders.command.__name__))
        if behaviour.answer is None:
            return None
        return self._carry_out(envelope, command, behaviour, self._free_at(now, compensates))

    def _free_at(self, now: datetime, *keys: str) -> datetime:
        return max(now, *(self._done_at.get(key, now) for key in keys))

    def _carry_out(self, envelope: Envelope, command: Command[Any], behaviour: _Behaviour, now: datetime) -> Said:
        assert behaviour.answer is not None
        answer = answer_of(behaviour.answer(command))
        if behaviour.outcome:
            answer = replace(answer, outcome=behaviour.outcome)
        if answer.outcome != RETRY:
            self._keep(envelope, answer, now + behaviour.after)
        headers = flow_headers(envelope)
        events = [
            Outgoing(compose_event(event, headers=headers), to_subscribers(event.wire_name))
            for event in behaviour.publishes
        ]
        return _said(envelope, answer, now + behaviour.after, events)

    def _keep(self, envelope: Envelope, answer: Answer, done_at: datetime) -> None:
        key, claims = envelope.text_header(IDEMPOTENCY_KEY), _Claims(self._claims)
        open_order(claims, key, envelope.text_header(COMPENSATES))
        claims.store(key, answer)
        self._done_at[key] = done_at

    def _nothing_said(self, command: str) -> str:
        return (
            f"participant {self.name!r} got {command!r}, and the test has not said what becomes of it. "
            f"Say, before it is sent: harness.participant({self.name!r}).on(...).answers(...)"
        )


def _said(envelope: Envelope, answer: Answer, at: datetime, events: Sequence[Outgoing] = ()) -> Said:
    reply = compose_reply(
        envelope,
        outcome=answer.outcome,
        body=answer.body,
        wire_type=answer.type,
        error_code=answer.error_code,
        deadline_seconds=answer.deadline_seconds,
    )
    return Said(at, (Outgoing(reply, to_reply(envelope.reply_to)), *events))


class _Claims:
    """An inbox in a dictionary."""

    def __init__(self, claims: dict[str, Claim]) -> None:
        self._claims = claims

    def claim(self, key: str, *, undone: bool = False) -> Claim | None:
        known = self._claims.get(key)
        if known is None:
            self._claims[key] = Claim(undone, None)
        return known

    def store(self, key: str, answer: Answer) -> None:
        self._claims[key] = replace(self._claims[key], answer=answer)
