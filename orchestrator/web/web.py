"""What the routes share: the database, who may ask, and what else there is to show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from fastapi import Request

from messaging.dead_letters import KeepsDeadLetters
from orchestrator.registry import SagaRegistry
from orchestrator.web.access import Access
from orchestrator.web.bulk import BulkRunner
from orchestrator.web.database import Database
from orchestrator.web.live import Streams
from orchestrator.web.queues import BrokerQueues
from orchestrator.web.rate import Rate
from orchestrator.web.seldom import Seldom
from orchestrator.web.settings import DashboardSettings
from orchestrator.web.surveys import Hour, Pace

Letters: TypeAlias = Callable[[], AbstractAsyncContextManager[tuple[KeepsDeadLetters, Sequence[str]]]]
"""Opens what keeps dead letters, with the queues that are known, whether or not there are any such."""

_PACE_SECONDS: Final = 300.0
"""How old that may be: it is dearer to read than the rest of the overview."""
_QUEUES_SECONDS: Final = 10.0
"""How old that may be: each time a connection is made."""


@dataclass(frozen=True, slots=True)
class Web:
    """One application's parts."""

    database: Database
    access: Access
    settings: DashboardSettings
    bulks: BulkRunner
    completions: Rate
    registry: SagaRegistry | None = None
    letters: Letters | None = None
    streams: Streams = field(default_factory=Streams)
    hours: Seldom[list[Hour]] = field(default_factory=Seldom[list[Hour]])
    pace: Seldom[Pace] = field(default_factory=lambda: Seldom[Pace](_PACE_SECONDS))
    queues: Seldom[BrokerQueues] = field(default_factory=lambda: Seldom[BrokerQueues](_QUEUES_SECONDS))


def web_of(request: Request) -> Web:
    """The parts of the application that answers this request."""
    web: Web = request.app.state.web
    return web
