"""Metrics of sagas for Prometheus, with labels that are bounded: names in definitions, statuses, reasons.

app.use(SagaMetrics())      # or MESSAGING_METRICS_PORT=9100, which measures all that a process runs
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from messaging.errors import NotConfirmed, PublishError, Unroutable
from messaging.metrics import SECONDS
from messaging.transport import Delivery, Outgoing
from orchestrator.backlog import Backlog
from orchestrator.instance import SagaStatus
from orchestrator.watchdog import Alarm
from orchestrator.watching import Change, Watcher

_LONG_SECONDS = (*SECONDS, 300, 1800, 3600, 6 * 3600, 86400)


class SagaMetrics(Watcher):
    """Counts and times what an orchestrator does.

    Args:
        registry: where the metrics stand. All `SagaMetrics` of one registry share them.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._of = _collectors.get(registry) or _collectors.setdefault(registry, _Collectors(registry))

    def taken(self, deliveries: Sequence[Delivery]) -> Callable[[], None]:
        """Count replies and events, and time the batch."""
        begun = time.perf_counter()
        self._of.taken.inc(len(deliveries))
        return lambda: self._of.batch_seconds.observe(time.perf_counter() - begun)

    def sent(self, messages: Sequence[Outgoing], outcomes: Sequence[PublishError | None]) -> None:
        """Count commands by destination and outcome."""
        for outgoing, error in zip(messages, outcomes, strict=True):
            self._of.commands.labels(str(outgoing.destination), _outcome_of(error)).inc()

    def committed(self, changes: Sequence[Change]) -> None:
        """Count what has begun, ended, been blocked or tried again, and time the steps that have ended."""
        for change in changes:
            before, after = change.before, change.after
            saga, version = after.pin.name, str(after.pin.version)
            if before.revision == 0:
                self._of.begun.labels(saga, version).inc()
            if after.status.terminal and not before.status.terminal:
                self._of.ended.labels(saga, version, after.status.value).inc()
                ended_at = after.ended_at or after.updated_at
                self._of.saga_seconds.labels(saga, after.status.value).observe(
                    (ended_at - after.started_at).total_seconds()
                )
            if after.status is SagaStatus.BLOCKED and before.status is not SagaStatus.BLOCKED:
                reason = after.blocked_reason.value if after.blocked_reason else ""
                self._of.blocked.labels(saga, version, reason).inc()
            self._steps(change, saga)

    def _steps(self, change: Change, saga: str) -> None:
        for replaced in change.decision.replaced:
            self._of.retries.labels(saga, replaced.key.step, replaced.key.direction.value).inc()
        for key in (*change.decision.added, *change.decision.changed):
            record, earlier = change.decision.steps[key], change.before.steps.get(key)
            if record.ended_at is not None and (earlier is None or earlier.ended_at is None):
                took = (record.ended_at - record.started_at).total_seconds()
                labels = (saga, key.step, key.direction.value, record.status.value)
                self._of.step_seconds.labels(*labels).observe(took)

    def unmatched(self, messages: int) -> None:
        """Count them."""
        self._of.unmatched.inc(messages)

    def alarmed(self, alarm: Alarm) -> None:
        """Count alarms by what they are about."""
        self._of.alarms.labels(alarm.kind).inc()

    def dead_lettered(self, messages: int) -> None:
        """Count them."""
        self._of.dead_lettered.inc(messages)

    def waiting(self, backlog: Backlog) -> None:
        """Show what waits in the database; all processes on it show the same."""
        self._of.blocked_now.clear()
        for (saga, reason), count in backlog.blocked.items():
            self._of.blocked_now.labels(saga, reason).set(count)
        self._of.overdue.set(backlog.command_overdue_seconds)
        self._of.outbox_oldest.set(backlog.outbox_oldest_seconds)
        self._of.wake_overdue.set(backlog.wake_overdue_seconds)
        self._of.engines.set(backlog.engines)


def _outcome_of(error: PublishError | None) -> str:
    if error is None:
        return "sent"
    if isinstance(error, Unroutable):
        return "unroutable"
    return "not-confirmed" if isinstance(error, NotConfirmed) else "refused"


class _Collectors:
    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        def histogram(name: str, text: str, *labels: str, buckets: Sequence[float] = _LONG_SECONDS) -> Histogram:
            return Histogram(name, text, labels, buckets=buckets, registry=registry)

        self.begun = counter("saga_begun", "Sagas taken on", "saga", "version")
        self.ended = counter("saga_ended", "Sagas that have ended", "saga", "version", "status")
        self.saga_seconds = histogram("saga_seconds", "From a saga's start to its end", "saga", "status")
        self.blocked = counter("saga_blocked", "Times that sagas came to need someone", "saga", "version", "reason")
        self.retries = counter("saga_step_retries", "Commands sent again", "saga", "step", "direction")
        self.step_seconds = histogram(
            "saga_step_seconds", "From a step's begin to its end", "saga", "step", "direction", "status"
        )
        self.commands = counter("saga_commands", "Commands published, by outcome", "destination", "outcome")
        self.taken = counter("saga_deliveries", "Replies and events taken")
        self.dead_lettered = counter("saga_messages_dead_lettered", "Replies and events that could not be used")
        self.batch_seconds = histogram(
            "saga_batch_seconds", "From taking a batch of replies or events to settling it", buckets=SECONDS
        )
        self.blocked_now = gauge(
            "saga_blocked_now", "Sagas that need an operator, in the whole database", "saga", "reason"
        )
        self.overdue = gauge("saga_command_overdue_seconds", "By how much the most overdue command is unsent")
        self.outbox_oldest = gauge("saga_outbox_oldest_seconds", "Age of the oldest event of a saga not yet published")
        self.wake_overdue = gauge("saga_wake_overdue_seconds", "For how long a due saga has not been looked at")
        self.engines = gauge("saga_engines", "Processes with an engine that were heard of within a minute")
        self.alarms = counter("saga_alarms", "Alarms raised by this process", "kind")
        self.unmatched = counter("saga_messages_unmatched", "Messages put aside because they fit no saga")


_collectors: WeakKeyDictionary[CollectorRegistry, _Collectors] = WeakKeyDictionary()
