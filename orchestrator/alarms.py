"""What raises an alarm: the questions, when they are asked, and what is said.

One alarm stands for all sagas or messages that are in the same trouble. docs/alarms.md lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from orchestrator.backlog import BlockedSagas, OldSagas, Outcomes, UnsentCommands
from orchestrator.holding_failing import FAILING
from orchestrator.holds import Hold
from orchestrator.instance import Pin
from orchestrator.registry import SagaRegistry, pin_of
from orchestrator.settings import OrchestratorSettings
from orchestrator.store_records import HeldLock
from orchestrator.watchdog import Alarm, Check, Facts, Look
from orchestrator.words import duration

_IS_ONE_RUNNING = (
    "Is an engine running (saga run ...), and can it keep up? saga doctor tells which engines were heard of"
)


def checks_of(settings: OrchestratorSettings, registry: SagaRegistry | None = None) -> list[Check]:
    """Those that the settings switch on.

    Args:
        settings: the limits.
        registry: the definitions, which say what is slow; without them that is not asked, and of locks it is.
    """
    window = settings.seconds("alarm_window")
    slow = {pin_of(saga): saga.alarm_after for saga in registry or () if saga.alarm_after is not None}
    checks = {
        locks_held_too_long(settings.seconds("lock_alarm")): settings.lock_alarm_seconds
        and (registry is None or registry.locking),
        held_too_long(settings.seconds("hold_alarm")): settings.hold_alarm_seconds,
        blocked(settings.seconds("blocked_alarm")): settings.blocked_alarm_seconds,
        overdue(settings.seconds("overdue_alarm")): settings.overdue_alarm_seconds,
        slower_than(slow): slow,
        unsent(settings.seconds("unsent_alarm")): settings.unsent_alarm_seconds,
        outbox_lag(settings.seconds("outbox_alarm")): settings.outbox_alarm_seconds,
        unmatched(settings.unmatched_alarm_messages, window): settings.unmatched_alarm_messages,
        failing(settings.failing_alarm_percent, settings.failing_alarm_sagas, window): settings.failing_alarm_percent,
    }
    return [check for check, wanted in checks.items() if wanted]


def locks_held_too_long(limit: timedelta) -> Check:
    """Resources that a saga has held for longer than this, whether or not others wait for them."""

    async def check(look: Look) -> list[Alarm]:
        held = await look.tx.held_locks(before=look.now - limit)
        return [_lock_held(lock, look.now - lock.since) for lock in held]

    return check


def _lock_held(lock: HeldLock, for_so_long: timedelta) -> Alarm:
    text = (
        f"{lock.resource} is held by step {lock.step} of saga {lock.saga_id} for {duration(for_so_long)}, "
        f"and {_waiting(lock.waiters)} for it. Look what that saga waits for: saga why {lock.saga_id}"
    )
    facts: Facts = {
        "resource": lock.resource,
        "holder": str(lock.saga_id),
        "step": lock.step,
        "held_seconds": for_so_long.total_seconds(),
        "waiters": lock.waiters,
    }
    return Alarm("lock-held", str(lock.id), text, facts)


def _waiting(sagas: int) -> str:
    return {0: "nobody waits", 1: "1 saga waits"}.get(sagas, f"{sagas} sagas wait")


def held_too_long(limit: timedelta) -> Check:
    """Definitions that have been held for longer than this, so that somebody may have forgotten it."""

    async def check(look: Look) -> list[Alarm]:
        return [
            _held(hold, look.now - hold.held_at) for hold in await look.tx.holds() if look.now - hold.held_at > limit
        ]

    return check


def _held(hold: Hold, for_so_long: timedelta) -> Alarm:
    version = "" if hold.version is None else f" --version {hold.version}"
    text = (
        f"{hold.which} is held for {duration(for_so_long)} by {hold.by or 'an operator'}: {hold.reason}. Its sagas "
        f"that were started wait. Release it if it may begin again: saga release {hold.saga}{version}"
    )
    facts: Facts = {
        "saga": hold.saga,
        "version": "all" if hold.version is None else hold.version,
        "by": hold.by,
        "held_seconds": for_so_long.total_seconds(),
    }
    return Alarm("held", hold.which, text, facts, for_so_long.total_seconds())


def blocked(limit: timedelta) -> Check:
    """Sagas, steps and reasons of which one saga has been blocked for longer than this."""

    async def check(look: Look) -> list[Alarm]:
        groups = look.backlog.blocked_sagas
        return [_blocked(group, look.now - group.since) for group in groups if look.now - group.since > limit]

    return check


def _blocked(group: BlockedSagas, for_so_long: timedelta) -> Alarm:
    at = f" at {group.step}" if group.step else ""
    text = (
        f"{group.name} blocked{at}: {_sagas(group.sagas)} ({group.reason}), the first for {duration(for_so_long)}. "
        f"See what they have in common: saga failures --saga {group.name}; then saga why ID of one"
    )
    facts: Facts = {
        "saga": group.name,
        "step": group.step,
        "reason": group.reason,
        "sagas": group.sagas,
        "blocked_seconds": for_so_long.total_seconds(),
    }
    return Alarm("blocked", f"{group.name}{at}: {group.reason}", text, facts, group.sagas)


def overdue(limit: timedelta) -> Check:
    """That a saga has been due for longer than this, and no engine has looked at it."""

    async def check(look: Look) -> list[Alarm]:
        seconds = look.backlog.wake_overdue_seconds
        if seconds <= limit.total_seconds():
            return []
        text = (
            f"No engine has looked at a saga that is due for {duration(timedelta(seconds=seconds))}. {_IS_ONE_RUNNING}"
        )
        facts = {"overdue_seconds": seconds, "engines": look.backlog.engines}
        return [Alarm("overdue", "sagas", text, facts, seconds)]

    return check


def slower_than(limits: Mapping[Pin, timedelta]) -> Check:
    """Versions of which a saga is older than its definition expects, and has not ended."""

    async def check(look: Look) -> list[Alarm]:
        found = await look.tx.sagas_begun({pin: look.now - limit for pin, limit in limits.items()})
        return [_slow(old, look.now - old.since) for old in found]

    return check


def _slow(old: OldSagas, age: timedelta) -> Alarm:
    which = f"{old.name} v{old.version}"
    text = (
        f"{which} is slow: {_sagas(old.sagas)} older than its alarm_after, the first begun {duration(age)} ago. "
        f"See where they are: saga stats --saga {old.name}, saga list --saga {old.name}; then saga why ID of one"
    )
    facts: Facts = {"saga": old.name, "version": old.version, "sagas": old.sagas, "oldest_seconds": age.total_seconds()}
    return Alarm("slow", which, text, facts, old.sagas)


def unsent(limit: timedelta) -> Check:
    """Participants to which commands should have left longer ago than this."""

    async def check(look: Look) -> list[Alarm]:
        found = await look.tx.unsent_commands(before=look.now - limit)
        return [_unsent(group, look.now - group.since) for group in found]

    return check


def _unsent(group: UnsentCommands, age: timedelta) -> Alarm:
    commands = "1 command" if group.commands == 1 else f"{group.commands} commands"
    why = f"The broker says: {group.error}" if group.error else _IS_ONE_RUNNING
    text = (
        f"{commands} to {group.participant} could not be sent so far, the oldest step begun {duration(age)} ago. {why}"
    )
    facts: Facts = {"participant": group.participant, "commands": group.commands, "error": group.error}
    return Alarm("unsent", group.participant, text, facts | {"oldest_seconds": age.total_seconds()}, group.commands)


def outbox_lag(limit: timedelta) -> Check:
    """That a message has been in the outbox for longer than this."""

    async def check(look: Look) -> list[Alarm]:
        seconds = look.backlog.outbox_oldest_seconds
        if seconds <= limit.total_seconds():
            return []
        text = (
            f"The oldest message in the outbox is there for {duration(timedelta(seconds=seconds))}. "
            "Is an engine or a relay running, and the broker reachable? last_error in message_outbox says why"
        )
        return [Alarm("outbox-lag", "message_outbox", text, {"oldest_seconds": seconds}, seconds)]

    return check


def unmatched(limit: int, window: timedelta) -> Check:
    """That more messages than this fit no saga, in the time before the look."""

    async def check(look: Look) -> list[Alarm]:
        messages = await look.tx.unmatched_since(look.now - window)
        if messages <= limit:
            return []
        text = (
            f"{messages} messages that fit no saga came within {duration(window)}. "
            "They are kept with why in the table saga_unmatched: group it by reason"
        )
        return [Alarm("unmatched", "messages", text, {"messages": messages}, messages)]

    return check


def failing(percent: float, at_least: int, window: timedelta) -> Check:
    """Versions of which too many sagas turned back or were blocked, in the time before the look.

    Args:
        percent: of those that ended or were blocked then; more than that is too many.
        at_least: so many sagas that did not complete must there be; fewer say nothing.
        window: how long that time is.
    """

    async def check(look: Look) -> list[Alarm]:
        found = await look.tx.outcomes(since=look.now - window, at_least=at_least)
        return [_failing(one, window) for one in found if one.failed_percent > percent]

    return check


def _failing(one: Outcomes, window: timedelta) -> Alarm:
    which, of = f"{one.name} v{one.version}", one.failed + one.completed
    text = (
        f"{which} fails: {one.failed} of {of} sagas within {duration(window)} did not complete "
        f"({one.turned_back} turned back, {one.blocked} blocked). See why: saga failures --saga {one.name} --all"
    )
    facts: Facts = {
        "saga": one.name,
        "version": one.version,
        "completed": one.completed,
        "turned_back": one.turned_back,
        "blocked": one.blocked,
    }
    return Alarm(FAILING, which, text, facts, one.failed)


def _sagas(number: int) -> str:
    return "1 saga" if number == 1 else f"{number} sagas"
