"""The tables of sagas, as SQLAlchemy Core describes them; `migrations/` creates them.

saga_instance       one saga; its row is the lock on everything below that concerns it
saga_step           one direction of one step: the command (which is sent from here), or the wait
saga_item           one item of a ForEach, as it was when that was reached
saga_attempt        command ids that a later attempt replaced; replies to them still count
saga_signal         what a saga has yet to be told
saga_history        what happened beside the plain path; only ever appended to
saga_event          events received, kept or consumed
saga_unmatched      messages that fit no saga, whole, with why
saga_key            (saga name, business key) -> saga; decides who starts, and outlives the saga
saga_lock           resources that sagas hold or wait for
saga_search         searchable fields of states, as text
saga_state          states as they were, of sagas that keep them
saga_audit          what operators asked for, and what became of it
saga_worker         processes and the definitions they know
saga_request        what was asked over HTTP under an idempotency key, and what it became
saga_bulk           one action on many sagas
saga_bulk_item      one saga of those: asked, and under which signal
saga_installation   one row: which installation this database belongs to
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from orchestrator.instance import BlockedReason, Direction, SagaStatus, StepStatus
from orchestrator.sql.types import Id, Instant

SCHEMA_REVISION: Final = "0012"
"""The oldest revision of `migrations/versions/orchestrator` that this code works with."""
VERSION_TABLE: Final = "saga_schema_version"

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_HOT: Final[Any] = {"postgresql_with": {"fillfactor": 80}}
"""Room in each page for the next version of a row."""


def one_of(column: str, words: type[SagaStatus | StepStatus | Direction | BlockedReason]) -> str:
    """The condition that a column holds one of these words."""
    return f"{column} IN ({', '.join(repr(word.value) for word in words)})"


_RESTING: Final = ", ".join(
    repr(status.value) for status in SagaStatus if status.terminal or status is SagaStatus.BLOCKED
)


def _required(name: str, *args: Any, **kwargs: Any) -> Column[str]:
    return Column(name, Text, *args, nullable=False, **kwargs)


def _blank(name: str, **kwargs: Any) -> Column[str]:
    return Column(name, Text, nullable=False, server_default=text("''"), **kwargs)


def _instant(name: str, **kwargs: Any) -> Column[Any]:
    return Column(name, Instant, **kwargs)


def _partial(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    return Index(name, *columns, unique=unique, postgresql_where=text(where), sqlite_where=text(where))


saga_instance = Table(
    "saga_instance",
    metadata,
    Column("id", Id, primary_key=True),
    _required("name"),
    Column("version", Integer, nullable=False),
    _required("fingerprint"),
    Column("business_key", Text),
    _required("status"),
    _required("state"),
    Column("revision", Integer, nullable=False),
    _instant("wake_at"),
    Column("seq", Integer, nullable=False, server_default=text("0")),
    _blank("current_step"),
    _instant("deadline"),
    Column("blocked_reason", Text),
    _blank("blocked_step"),
    Column("blocked_from", Text),
    _instant("blocked_at"),
    _instant("paused_at"),
    Column("failed_step", Text),
    Column("error_code", Text),
    Column("error_text", Text),
    Column("parent_id", Id),
    Column("root_id", Id),
    Column("parent_step", Text),
    _blank("trace"),
    _instant("started_at", nullable=False),
    _instant("updated_at", nullable=False),
    _instant("ended_at"),
    CheckConstraint(one_of("status", SagaStatus), name="status"),
    CheckConstraint(f"(wake_at IS NULL) = (status IN ({_RESTING}) OR paused_at IS NOT NULL)", name="wake_at"),
    CheckConstraint("status <> 'blocked' OR blocked_reason IS NOT NULL", name="blocked"),
    CheckConstraint(one_of("blocked_reason", BlockedReason), name="blocked_reason"),
    _partial("ix_saga_instance_due", "wake_at", where="wake_at IS NOT NULL"),
    Index("ix_saga_instance_status_name", "status", "name", "id"),
    Index("ix_saga_instance_name", "name", "id"),
    _partial("ix_saga_instance_key", "business_key", where="business_key IS NOT NULL"),
    _partial("ix_saga_instance_parent", "parent_id", where="parent_id IS NOT NULL"),
    _partial("ix_saga_instance_root", "root_id", where="root_id IS NOT NULL"),
    _partial("ix_saga_instance_ended", "status", "ended_at", "id", where="ended_at IS NOT NULL AND parent_id IS NULL"),
    **_HOT,
)

saga_step = Table(
    "saga_step",
    metadata,
    Column("saga_id", Id, ForeignKey("saga_instance.id", ondelete="CASCADE"), primary_key=True),
    Column("step", Text, primary_key=True),
    Column("direction", Text, primary_key=True),
    Column("branch", Text, primary_key=True),
    Column("seq", Integer, nullable=False),
    _required("status"),
    _blank("wire_name"),
    _blank("participant"),
    Column("round", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("unanswered", Integer, nullable=False),
    Column("command_id", Id),
    _blank("compensates"),
    Column("body", Text),
    _instant("send_after"),
    _instant("sent_at"),
    Column("send_attempts", Integer, nullable=False, server_default=text("0")),
    _blank("send_error"),
    _instant("deadline"),
    _blank("awaited_key"),
    # Equals awaited_key while the step waits, else null: an index on `status` would make every update
    # of a row write to every index.
    Column("waiting_key", Text),
    Column("reply", Text),
    _blank("memo"),
    _blank("error_code"),
    _blank("error_text"),
    _instant("started_at", nullable=False),
    _instant("updated_at", nullable=False),
    _instant("ended_at"),
    Column("schema_version", Integer, nullable=False, server_default=text("1")),
    CheckConstraint(one_of("status", StepStatus), name="status"),
    CheckConstraint(one_of("direction", Direction), name="direction"),
    CheckConstraint("(status = 'waiting') = (waiting_key IS NOT NULL)", name="waiting_key"),
    _partial("ix_saga_step_command", "command_id", where="command_id IS NOT NULL", unique=True),
    _partial("ix_saga_step_unsent", "send_after", where="send_after IS NOT NULL"),
    _partial("ix_saga_step_waiting", "wire_name", "waiting_key", where="waiting_key IS NOT NULL"),
    **_HOT,
)

saga_item = Table(
    "saga_item",
    metadata,
    Column("saga_id", Id, ForeignKey("saga_instance.id", ondelete="CASCADE"), primary_key=True),
    Column("step", Text, primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    _required("key"),
    _required("item"),
    UniqueConstraint("saga_id", "step", "key"),
)

saga_attempt = Table(
    "saga_attempt",
    metadata,
    Column("command_id", Id, primary_key=True),
    Column("saga_id", Id, ForeignKey("saga_instance.id", ondelete="CASCADE"), nullable=False, index=True),
    _required("step"),
    _required("direction"),
    _required("branch"),
    Column("round", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
)

saga_signal = Table(
    "saga_signal",
    metadata,
    Column("id", Id, primary_key=True),
    Column("saga_id", Id, nullable=False, index=True),
    _required("kind"),
    _required("body"),
    _blank("error"),
    _instant("arrived_at", nullable=False),
    _instant("taken_at"),
    _partial("ix_saga_signal_pending", "saga_id", "id", where="taken_at IS NULL AND error = ''"),
)

saga_history = Table(
    "saga_history",
    metadata,
    Column("id", Id, primary_key=True, comment="Id of the row, which rises"),
    Column("saga_id", Id, nullable=False, comment="The saga's id"),
    _instant("at", nullable=False, comment="When it happened"),
    _required("kind", comment="What happened, in a word: retry, timeout, turned_back, blocked and the like"),
    _blank("step", comment="The step it is about; empty if none"),
    _required("text", comment="What happened, in words"),
    Index("ix_saga_history_saga", "saga_id", "id"),
)

saga_event = Table(
    "saga_event",
    metadata,
    Column("id", Id, primary_key=True),
    _required("message_id"),
    _required("wire_name"),
    _required("key"),
    _required("body"),
    _instant("arrived_at", nullable=False),
    _instant("expires_at", nullable=False),
    _instant("consumed_at"),
    Column("consumed_by", Id),
    CheckConstraint("(consumed_at IS NULL) = (consumed_by IS NULL)", name="consumed"),
    UniqueConstraint("message_id", "key"),
    _partial("ix_saga_event_kept", "wire_name", "key", where="consumed_at IS NULL"),
    _partial("ix_saga_event_consumed_by", "consumed_by", where="consumed_by IS NOT NULL"),
    Index("ix_saga_event_expires_at", "expires_at"),
)

saga_unmatched = Table(
    "saga_unmatched",
    metadata,
    Column("id", Id, primary_key=True, comment="Id of the row, which rises"),
    _instant("arrived_at", nullable=False, comment="When it came"),
    _required("message_id", comment="Id of the message"),
    _required("reason", comment="Why it fits no saga"),
    Column("saga_id", Id, comment="The saga that it named, or was found to be about; null if there is none"),
    _required("properties", comment="Type, headers and other properties, as JSON"),
    Column("body", LargeBinary, nullable=False, comment="The body as it came, secrets included"),
    _partial("ix_saga_unmatched_saga", "saga_id", where="saga_id IS NOT NULL"),
)

saga_key = Table(
    "saga_key",
    metadata,
    Column("name", Text, primary_key=True),
    Column("business_key", Text, primary_key=True),
    Column("saga_id", Id, nullable=False),
    _instant("created_at", nullable=False),
    # Of a saga that is gone: when it went, and the status it had ended in.
    _instant("purged_at"),
    Column("ended_as", Text),
    _partial("ix_saga_key_purged", "saga_id", where="purged_at IS NOT NULL"),
)

saga_lock = Table(
    "saga_lock",
    metadata,
    Column("id", Id, primary_key=True),
    _required("resource"),
    Column("root_id", Id, nullable=False, index=True),
    Column("saga_id", Id, nullable=False),
    _required("step"),
    Column("waits", Boolean(create_constraint=False), nullable=False),
    _instant("asked_at", nullable=False),
    _instant("held_since"),
    Index("ix_saga_lock_resource", "resource", "id"),
    Index("ix_saga_lock_saga", "saga_id", "step"),
    _partial("ix_saga_lock_asked", "resource", where="held_since IS NULL"),
)

saga_search = Table(
    "saga_search",
    metadata,
    Column("saga_id", Id, ForeignKey("saga_instance.id", ondelete="CASCADE"), primary_key=True),
    Column("field", Text, primary_key=True),
    _required("value"),
    # With the id last, a page is read in its order, however many sagas have the value.
    Index("ix_saga_search_found", "field", "value", "saga_id"),
)

saga_state = Table(
    "saga_state",
    metadata,
    Column("saga_id", Id, ForeignKey("saga_instance.id", ondelete="CASCADE"), primary_key=True),
    # That of the saga once it is written, and which change of that transaction it is: times may be equal.
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
    _required("step"),
    _required("direction"),
    _required("branch"),
    _required("cause"),
    _required("state"),
    _instant("at", nullable=False),
    CheckConstraint(one_of("direction", Direction), name="direction"),
)

saga_audit = Table(
    "saga_audit",
    metadata,
    Column("id", Id, primary_key=True, comment="Id of the row, which rises"),
    Column("saga_id", Id, nullable=False, comment="The saga's id"),
    _instant("at", nullable=False, comment="When an engine took the request"),
    _required("action", comment="What was asked: retry, cancel, skip and the like"),
    Column("by", Text, nullable=False, comment="Who asked"),
    _required("reason", comment="Why, as they said"),
    _required("before", comment="Status before"),
    _required("after", comment="Status after"),
    _blank("refused", comment="Why nothing was done; empty if it was done"),
    Column("signal_id", Id, comment="Id of the request"),
    Index("ix_saga_audit_saga", "saga_id", "id"),
    Index("ix_saga_audit_at", "at"),
    _partial("ix_saga_audit_signal", "signal_id", where="signal_id IS NOT NULL"),
)

saga_worker = Table(
    "saga_worker",
    metadata,
    Column("id", Id, primary_key=True),
    _required("host"),
    Column("process_id", Integer, nullable=False),
    Column("epoch", Integer, nullable=False, server_default=text("1")),
    _required("definitions"),
    _instant("started_at", nullable=False),
    _instant("heartbeat_at", nullable=False),
    Index("ix_saga_worker_heartbeat_at", "heartbeat_at"),
)

saga_hold = Table(
    "saga_hold",
    metadata,
    Column("id", Id, primary_key=True),
    _required("name"),
    # Null: all versions.
    Column("version", Integer),
    _instant("held_at", nullable=False),
    Column("by", Text, nullable=False),
    _required("reason"),
    # Of what is over: it stays, for who asks later.
    _instant("released_at"),
    _blank("released_by"),
    _blank("release_reason"),
    _partial("ix_saga_hold_held", "name", where="released_at IS NULL"),
)

saga_request = Table(
    "saga_request",
    metadata,
    Column("key", Text, primary_key=True),
    _required("fingerprint"),
    Column("result_id", Id, nullable=False),
    _instant("created_at", nullable=False),
    Index("ix_saga_request_created_at", "created_at"),
)

saga_bulk = Table(
    "saga_bulk",
    metadata,
    Column("id", Id, primary_key=True),
    _required("action"),
    _required("reason"),
    Column("by", Text, nullable=False),
    Column("per_second", Integer, nullable=False),
    Column("total", Integer, nullable=False),
    _instant("created_at", nullable=False),
    # When the next few are asked; null once all are, or it was stopped.
    _instant("next_at"),
    _instant("stopped_at"),
    _partial("ix_saga_bulk_open", "next_at", where="next_at IS NOT NULL"),
)

saga_bulk_item = Table(
    "saga_bulk_item",
    metadata,
    Column("bulk_id", Id, ForeignKey("saga_bulk.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("saga_id", Id, nullable=False),
    Column("signal_id", Id),
    _blank("error"),
    _partial("ix_saga_bulk_item_unasked", "bulk_id", "position", where="signal_id IS NULL AND error = ''"),
)

saga_installation = Table(
    "saga_installation",
    metadata,
    Column("only_row", Integer, primary_key=True, autoincrement=False, server_default=text("1")),
    Column("id", Id, nullable=False),
    _required("name"),
    _instant("created_at", nullable=False),
    Column("token_secret", Text),
    # When the next process purges; whoever moves it is the one.
    _instant("purge_at"),
    CheckConstraint("only_row = 1", name="only_row"),
)


@lru_cache
def metadata_in(schema: str | None) -> MetaData:
    """The tables as they stand in a schema; None is the connection's default one."""
    if schema is None:
        return metadata
    copies = MetaData(schema=schema, naming_convention=metadata.naming_convention)
    for table in metadata.sorted_tables:
        table.to_metadata(copies, schema=schema)
    return copies


def in_schema(table: Table, schema: str | None) -> Table:
    """One table as it stands in a schema."""
    return table if schema is None else metadata_in(schema).tables[f"{schema}.{table.name}"]
