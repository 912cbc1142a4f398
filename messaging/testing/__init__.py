"""For the tests of those who use the bus."""

from __future__ import annotations

from messaging.testing.golden import assert_contracts

__all__ = ["assert_contracts"]
