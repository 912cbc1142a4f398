"""Sagas over a command/event bus: defined as step classes, persisted step by step, undone on failure."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from messaging.retry import Retry
from orchestrator.definition import Parallel, Saga, Sequence, Step, WaitForEvent
from orchestrator.errors import (
    ActionRefused,
    SagaDefinitionError,
    SagaError,
    StateUnusable,
    UnknownSaga,
)
from orchestrator.instance import BlockedReason, SagaStatus

if TYPE_CHECKING:
    from orchestrator.app import Orchestrator, run, running
    from orchestrator.client import BlockingSagaClient, SagaClient, SagaNotEnded, StartedSaga
    from orchestrator.settings import OrchestratorSettings

__all__ = [
    # errors
    "ActionRefused",
    # read
    "BlockedReason",
    # use
    "BlockingSagaClient",
    # run
    "Orchestrator",
    "OrchestratorSettings",
    # define
    "Parallel",
    "Retry",
    "Saga",
    "SagaClient",
    "SagaDefinitionError",
    "SagaError",
    "SagaNotEnded",
    "SagaStatus",
    "Sequence",
    "StartedSaga",
    "StateUnusable",
    "Step",
    "UnknownSaga",
    "WaitForEvent",
    "run",
    "running",
]

_LATER = {
    "Orchestrator": "app",
    "run": "app",
    "running": "app",
    "BlockingSagaClient": "client",
    "SagaClient": "client",
    "SagaNotEnded": "client",
    "StartedSaga": "client",
    "OrchestratorSettings": "settings",
}


def __getattr__(name: str) -> Any:
    """Import what needs a database only when it is asked for: defining sagas stays light."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"orchestrator.{_LATER[name]}"), name)
