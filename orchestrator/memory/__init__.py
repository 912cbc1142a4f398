"""A store inside the process, transactional as a database is: for tests, tutorials and simulations."""

from orchestrator.memory.store import MemoryStore, MemoryTransaction, SystemClock
from orchestrator.memory.tables import KeptEvent, KeptSignal, MemoryTables

__all__ = ["KeptEvent", "KeptSignal", "MemoryStore", "MemoryTables", "MemoryTransaction", "SystemClock"]
