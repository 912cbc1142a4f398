"""Start messages that came: the sagas they start, or why they start none.

A message that comes again finds its saga there by its id; one that is refused is kept whole, with why.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from pydantic import ValidationError

from messaging.printable import error_text
from orchestrator.incoming import Start, unmatched_message
from orchestrator.instance import SagaInstance
from orchestrator.registry import SagaRegistry
from orchestrator.start import new_instance
from orchestrator.store import StoreTransaction
from orchestrator.store_records import UnmatchedMessage

logger = logging.getLogger(__name__)


async def take_starts(tx: StoreTransaction, registry: SagaRegistry, starts: Sequence[Start]) -> list[UnmatchedMessage]:
    """Start the sagas, of definitions known here; return those messages that start none."""
    if not starts:
        return []
    now, refused = await tx.now(), list[UnmatchedMessage]()
    # In order of their keys: two processes never wait for each other in a circle.
    for start in sorted(starts, key=lambda start: (start.saga_name, start.key or "", start.saga_id)):
        if problem := await _problem(tx, registry, start, now):
            reason = f"it starts no {start.saga_name!r}: {problem}"
            logger.warning("Start of saga %s: %s. It is put aside", start.saga_id, reason)
            refused.append(unmatched_message(start, reason))
    return refused


async def _problem(tx: StoreTransaction, registry: SagaRegistry, start: Start, now: datetime) -> str:
    """Start one; empty if it is there now."""
    saga = registry.version_or_latest(start.saga_name, start.version)
    if saga is None:
        return "no such saga, or version, is known here"
    try:
        state = saga.state_type.model_validate_json(start.body)
        new: SagaInstance = new_instance(saga, state, start.key, start.trace, now, saga_id=start.saga_id)
    except ValidationError as error:  # its own text would hold what the state holds
        wrong = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'it'}: {one['msg']}" for one in error.errors())
        return f"the body is no {saga.state_type.__name__}: {wrong}"
    except Exception as error:  # noqa: BLE001 - the author's validators; whatever they raise, other messages go on
        return error_text(error)
    holder: UUID = (await tx.start(new, reuse_key_after_end=saga.reuse_key_after_end))[0]
    return "" if holder == start.saga_id else f"its key {start.key!r} belongs to saga {holder}"
