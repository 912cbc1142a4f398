"""Having a step go wrong on purpose, to watch what the saga makes of it.

A row in `trouble` says of one order's command what happens in its first so many attempts:

    refuse   the service refuses: a fact, so the saga turns back
    raise    the handler raises: a fault, so the step is tried again
    silent   the handler says nothing until the row is deleted, and then does its work after all

A real shop has none of this; the rest of the example does not depend on it.
"""

from __future__ import annotations

import asyncio
from uuid import UUID

from create_order.database import Trouble
from messaging import Context, Failure


async def rehearsed(command: str, order_id: UUID, context: Context) -> Failure | None:
    """Go wrong as told; a handler returns the failure, if there is one."""
    while trouble := await context.session.get(Trouble, (order_id, command), populate_existing=True):
        if context.attempt > trouble.attempts:
            break
        if trouble.kind == "refuse":
            return Failure(reason=f"{command} was rehearsed to be refused")
        if trouble.kind == "raise":
            raise RuntimeError(f"{command} was rehearsed to fail")
        await asyncio.sleep(0.2)
    return None
