"""Sagas in flight that no definition of this code would carry on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.checking.findings import Finding, Level
from orchestrator.checking.source import Place, place_of
from orchestrator.definition import Saga
from orchestrator.instance import Pin, SagaStatus
from orchestrator.registry import pin_of

if TYPE_CHECKING:
    from orchestrator.sql.in_flight import InFlight


@dataclass(frozen=True, slots=True)
class _Gap:
    """What the code has instead of a definition, and what to do."""

    instead: str
    remedy: str
    nearest: type[Saga[Any]] | None = None


def stranded(standing: Iterable[InFlight], sagas: Iterable[type[Saga[Any]]]) -> Iterator[Finding]:
    """Find the sagas in flight whose name, version and fingerprint this code does not have."""
    known = {pin_of(saga): saga for saga in sagas}
    for some in standing:
        if some.pin not in known:
            yield _told(some, _gap(some.pin, known))


def _gap(pin: Pin, known: dict[Pin, type[Saga[Any]]]) -> _Gap:
    named = {other.version: saga for other, saga in known.items() if other.name == pin.name}
    if not named:
        return _Gap("no saga of this name", "Register it, or let them end before code without it runs")
    if pin.version in named:
        instead = "other steps or messages under this version"
        remedy = "Raise the version, and register the old definition beside the new one until they have ended"
        return _Gap(instead, remedy, named[pin.version])
    versions = " and ".join(f"v{version}" for version in sorted(named))
    remedy = f"Register v{pin.version} beside {versions} until they have ended"
    return _Gap(f"{versions} only", remedy, named[max(named)])


def _told(some: InFlight, gap: _Gap) -> Finding:
    whose = f"{some.pin.name} v{some.pin.version}"
    text = f"{some.count} of {whose} {_where(some)}, which this code does not have: it has {gap.instead}"
    place = place_of(gap.nearest) if gap.nearest else Place()
    subject = gap.nearest.__name__ if gap.nearest else some.pin.name
    return Finding(Level.ERROR, "stranded", whose, subject, place.file, place.line, text, gap.remedy)


def _where(some: InFlight) -> str:
    one = some.count == 1
    if not some.current_step:
        return "has not begun" if one else "have not begun"
    if some.status is SagaStatus.BLOCKED:
        return f"{'is' if one else 'are'} blocked at {some.current_step}"
    return f"{'waits' if one else 'wait'} at {some.current_step}"
