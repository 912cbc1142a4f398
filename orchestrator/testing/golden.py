"""A golden file of what sagas in flight depend on, so that no step or saga is renamed unnoticed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

from messaging.testing.golden import assert_golden
from orchestrator.definition import Saga
from orchestrator.plan import shape_of
from orchestrator.registry import SagaRegistry

RENEW: Final = "RENEW_SAGAS"
Told: TypeAlias = dict[str, Any]
"""What the file says of one version of a saga."""


def assert_sagas(*sagas: type[Saga[Any]], golden: str | Path) -> None:
    """Hold sagas, and those they start, against what was agreed: names, versions, steps, kinds, wire names.

    To agree to a change, or for the first time, run the test with `RENEW_SAGAS=1` in the environment, and look at
    what it wrote.

        def test_our_sagas_are_those_in_flight() -> None:
            assert_sagas(CreateOrder, CreateOrderV2, golden=Path(__file__).parent / "sagas.json")

    Args:
        sagas: all that are run, of every version.
        golden: the file.

    Raises:
        AssertionError: they differ; the text says what to do. Or there is no such file.
        SagaDefinitionError: two of them have one name and version.
    """
    now = {f"{saga.name} v{saga.version}": _told(saga) for saga in SagaRegistry(sagas)}
    text = json.dumps(dict(sorted(now.items())), indent=2) + "\n"
    path = Path(golden)
    assert_golden(path, text, RENEW, lambda agreed: "\n".join(_differences(path.name, json.loads(agreed), now)))


def _told(saga: type[Saga[Any]]) -> Told:
    steps = {str(shape[1]): " ".join(_words(shape)) for shape in _leaves(shape_of(saga.plan.root))}
    return {"fingerprint": saga.plan.fingerprint, "steps": steps}


def _leaves(shape: list[Any]) -> Iterator[list[Any]]:
    """The steps of a shape, those of a `ForEach` below it too."""
    if shape[0] in ("sequence", "parallel"):
        for part in shape[1]:
            yield from _leaves(part)
        return
    yield shape
    if shape[0] == "for-each":
        yield from _leaves(shape[2])


def _words(shape: list[Any]) -> Iterator[str]:
    kind, _, *more = shape
    yield kind
    for word in more if kind != "for-each" else ():
        yield "/".join(cast("list[str]", word)) or "-" if isinstance(word, list) else str(word)


# -- what to do


def _differences(file: str, agreed: Mapping[str, Told], now: Mapping[str, Told]) -> Iterator[str]:
    yield f"sagas are not what {file} says:"
    names = {label.rpartition(" v")[0] for label in now}
    for label in sorted({*agreed, *now}):
        if label not in agreed:
            yield f"- {label} is new."
        elif label in now:
            yield from _changed(label, agreed[label], now[label])
        elif (name := label.rpartition(" v")[0]) in names:
            yield f"- {label} is gone. Sagas of it in flight need it until they have ended, or were upgraded:"
            yield "  register it beside the newer one; `saga check --against-db` counts them."
        else:
            yield f"- {label} is gone. Was its class renamed? Say name = {name!r} on it."
    yield f"If it is meant so: {RENEW}=1 pytest ..., and commit {file}."


def _changed(label: str, agreed: Told, now: Told) -> Iterator[str]:
    if agreed == now:
        return
    yield f"- {label} has changed, and sagas of it in flight would be left without their definition:"
    before, after = agreed["steps"], now["steps"]
    gone, new = _without(before, after), _without(after, before)
    for step in gone:
        renamed = next((one for one in new if after[one] == before[step]), "")
        hint = f"; {renamed} is new. Renamed? Say name = {step!r} on the class" if renamed else ""
        yield f"  step {step} ({before[step]}) is gone{hint}."
    yield from (f"  step {step} ({after[step]}) is new." for step in new)
    for step in before:
        if step in after and before[step] != after[step]:
            yield f"  step {step} was {before[step]!r}, and is {after[step]!r}."
    if not gone and not new and before == after:
        yield "  its steps stand in another order, or in other groups."
    yield "  Unless names alone differ: give the class a higher version, and register the old class beside it."


def _without(steps: Iterable[str], others: Iterable[str]) -> list[str]:
    there = set(others)
    return [step for step in steps if step not in there]
