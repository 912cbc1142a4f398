"""Ids: time-ordered for what is new, derived for what must be the same when it is done again."""

from __future__ import annotations

import os
import time
from typing import Final
from uuid import UUID, uuid5

_DERIVED: Final = UUID("5b6c6d0e-8a57-5d5e-9a0f-6a7d1f0b6f2c")


def new_id() -> str:
    """Return a UUIDv7 as dashed text: random, and near in an index to others of the same moment."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & (1 << 48) - 1) << 80 | random
    value = value & ~(0xF << 76) | 0x7 << 76
    return str(UUID(int=value & ~(0x3 << 62) | 0x2 << 62))


def derived_id(*parts: str) -> str:
    """Return the same UUID for the same parts, always and everywhere."""
    return str(uuid5(_DERIVED, "\0".join(parts)))
