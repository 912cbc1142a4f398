"""Tokens that answer a command later: they name the attempt, and are signed, so that nobody makes one up.

A command's id alone would not do: it is derived from the saga's id, which callers know. The secret is drawn when
the database is migrated and never leaves it; a token is as good as the right to answer this one command, once.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from typing import Final
from uuid import UUID

from messaging.inbox import Answer
from orchestrator.errors import UnknownToken
from orchestrator.signals import CompleteRequested
from orchestrator.store_records import CommandRef

_PURPOSE: Final = b"sagasmith reply token"
_BESIDE_LETTERS_AND_DIGITS: Final = b"._"
"""Fit for a URL; and no token begins as an option of a command does, with a hyphen."""
_ID_BYTES: Final = 16
_SIGNATURE_BYTES: Final = 17
"""Beside the id it makes a multiple of three bytes, so that one text alone stands for each token."""


class ReplyTokens:
    """Makes and reads the tokens of one installation.

    Args:
        secret: what they are signed with, in hexadecimal.
    """

    def __init__(self, secret: str) -> None:
        self._secret = bytes.fromhex(secret)

    def token_of(self, command_id: UUID) -> str:
        """The token of an attempt of a command: the same each time, 44 letters, digits, `.` and `_`."""
        raw = command_id.bytes + self._signature(command_id.bytes)
        return b64encode(raw, _BESIDE_LETTERS_AND_DIGITS).decode()

    def command_of(self, token: str) -> UUID:
        """The attempt that a token names.

        Raises:
            UnknownToken: it is none of ours.
        """
        try:
            raw = b64decode(token.strip().encode("ascii"), _BESIDE_LETTERS_AND_DIGITS, validate=True)
        except ValueError as error:
            raise UnknownToken("it is not a token, or not all of one") from error
        command_id, signature = raw[:_ID_BYTES], raw[_ID_BYTES:]
        if not hmac.compare_digest(signature, self._signature(command_id)):
            raise UnknownToken("it is not of this installation. Was it copied whole, and is this its database?")
        return UUID(bytes=command_id)

    def _signature(self, command_id: bytes) -> bytes:
        return hmac.digest(self._secret, _PURPOSE + command_id, "sha256")[:_SIGNATURE_BYTES]


def completed(attempt: CommandRef, answer: Answer, reason: str, by: str) -> CompleteRequested:
    """What to ask of the saga of an attempt whose token is redeemed."""
    return CompleteRequested(
        reason,
        attempt.key.label,
        by,
        attempt.key.direction.value,
        attempt.round,
        attempt.attempt,
        answer.outcome,
        answer.body.decode(),
        answer.error_code,
    )
