"""What an action would do to a saga, asked of the core: nothing is written, sent, or left behind."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from orchestrator.definition import Saga
from orchestrator.errors import UnknownDefinition
from orchestrator.instance import SagaInstance
from orchestrator.redacted import Redaction
from orchestrator.simulating import Simulated, simulated
from orchestrator.sql.versions import read_sagas
from orchestrator.status import missing
from orchestrator.web.asking import Wish
from orchestrator.web.web import Web


async def preview(web: Web, saga_id: UUID, wish: Wish) -> Simulated:
    """Ask the core what it would decide now. The saga's hooks run, in a thread: a slow one holds up nobody else.

    Raises:
        UnknownSaga: none has this id.
        UnknownDefinition: this process does not have its definition, without which nothing can be decided.
        Problem: a step is named, and the action concerns the saga as a whole.
    """
    asked, schema = wish.asked(), web.database.schema

    def read(connection: Connection) -> SagaInstance:
        found = read_sagas(connection, [saga_id], schema=schema).get(saga_id)
        if found is None:
            raise missing(connection, saga_id, schema=schema)
        return found

    instance = await web.database.read(read)
    definition = None if web.registry is None else web.registry.find(instance.pin)
    if definition is None:
        raise UnknownDefinition(instance.pin.name, instance.pin.version, instance.pin.fingerprint)
    told = await asyncio.to_thread(simulated, definition, instance, asked, now=datetime.now(UTC))
    return replace(told, refused=_without_secrets(told.refused, definition, instance))


def _without_secrets(text: str, saga: Saga[Any], instance: SagaInstance) -> str:
    """What a hook that raised said, without the secrets of the state it was given."""
    redaction = Redaction()
    redaction.text(saga.state_type, instance.state)
    return redaction.prose(text)
