"""Inbox and outbox in a SQL database, through SQLAlchemy: PostgreSQL and SQLite."""

from messaging.outage import Fault
from messaging.sql.dead_letters import SqlDeadLetters
from messaging.sql.faults import fault_of
from messaging.sql.inbox import SqlInbox
from messaging.sql.outbox import SqlOutbox
from messaging.sql.sessions import Sessions, in_transaction
from messaging.sql.tables import MessagingTables, create_tables, messaging_metadata, tables
from messaging.sql.writing import write_outgoing

__all__ = [
    "Fault",
    "MessagingTables",
    "Sessions",
    "SqlDeadLetters",
    "SqlInbox",
    "SqlOutbox",
    "create_tables",
    "fault_of",
    "in_transaction",
    "messaging_metadata",
    "tables",
    "write_outgoing",
]
