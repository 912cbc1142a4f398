"""Sagas over a command/event bus: defined as step classes, persisted step by step, undone on failure."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from orchestrator.errors import (
    ActionRefused,
    SagaDefinitionError,
    SagaErased,
    SagaError,
    SagaPurged,
    SearchRefused,
    StateUnusable,
    UnknownSaga,
)
from orchestrator.instance import BlockedReason, SagaStatus

if TYPE_CHECKING:
    from messaging.retry import Retry
    from orchestrator.app import Orchestrator, run, running
    from orchestrator.client import BlockingSagaClient, SagaClient, SagaNotEnded
    from orchestrator.definition import Saga
    from orchestrator.searchable import Searchable, SearchValue
    from orchestrator.settings import OrchestratorSettings
    from orchestrator.start_messages import start_later
    from orchestrator.starting import StartedSaga
    from orchestrator.steps import (
        Delay,
        ForEach,
        ItemStep,
        LocalStep,
        Parallel,
        Sequence,
        StartOnEvent,
        Step,
        SubSaga,
        WaitForEvent,
    )

__all__ = [
    # errors
    "ActionRefused",
    # read
    "BlockedReason",
    # use
    "BlockingSagaClient",
    # define
    "Delay",
    "ForEach",
    "ItemStep",
    "LocalStep",
    # run
    "Orchestrator",
    "OrchestratorSettings",
    "Parallel",
    "Retry",
    "Saga",
    "SagaClient",
    "SagaDefinitionError",
    "SagaErased",
    "SagaError",
    "SagaNotEnded",
    "SagaPurged",
    "SagaStatus",
    "SearchRefused",
    "SearchValue",
    "Searchable",
    "Sequence",
    "StartOnEvent",
    "StartedSaga",
    "StateUnusable",
    "Step",
    "SubSaga",
    "UnknownSaga",
    "WaitForEvent",
    "run",
    "running",
    "start_later",
]

_LATER = {
    "Delay": "orchestrator.steps",
    "ForEach": "orchestrator.steps",
    "ItemStep": "orchestrator.steps",
    "LocalStep": "orchestrator.steps",
    "SubSaga": "orchestrator.steps",
    "Parallel": "orchestrator.steps",
    "Saga": "orchestrator.definition",
    "SearchValue": "orchestrator.searchable",
    "Searchable": "orchestrator.searchable",
    "Sequence": "orchestrator.steps",
    "StartOnEvent": "orchestrator.steps",
    "Step": "orchestrator.steps",
    "WaitForEvent": "orchestrator.steps",
    "Retry": "messaging.retry",
    "Orchestrator": "orchestrator.app",
    "run": "orchestrator.app",
    "running": "orchestrator.app",
    "BlockingSagaClient": "orchestrator.client",
    "SagaClient": "orchestrator.client",
    "SagaNotEnded": "orchestrator.client",
    "StartedSaga": "orchestrator.starting",
    "OrchestratorSettings": "orchestrator.settings",
    "start_later": "orchestrator.start_messages",
}


def __getattr__(name: str) -> Any:
    """Import only what is asked for: defining sagas needs no database, and `saga --help` none of it."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
