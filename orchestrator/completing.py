"""Redeeming a reply token: which command it names, and what its saga is to be told."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection

from messaging.inbox import Answer, answer_of
from messaging.messages import Failure, Reply
from orchestrator.errors import UnknownToken
from orchestrator.reply_tokens import completed
from orchestrator.signals import CompleteRequested
from orchestrator.sql import client_statements as statements
from orchestrator.sql.installation import installation_of


def completion(
    connection: Connection, token: str, answer: Reply | Failure | Answer, reason: str, by: str, schema: str | None
) -> tuple[UUID, CompleteRequested]:
    """The saga whose command a token answers, and what to ask of it.

    Raises:
        UnknownToken: it is none of this installation's, or its command is not known any more.
    """
    tokens = installation_of(connection, schema=schema).tokens
    if tokens is None:
        raise UnknownToken("this database gives out none yet. Run: saga migrate")
    ref = statements.command_of(connection, tokens.command_of(token), schema)
    if ref is None:
        raise UnknownToken("its command is not known here any more. Was its saga deleted?")
    given = answer if isinstance(answer, Answer) else answer_of(answer)
    return ref.saga_id, completed(ref, given, reason, by)
