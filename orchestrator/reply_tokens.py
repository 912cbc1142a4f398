"""Tokens that answer a command later: they name the attempt, and are signed, so that nobody makes one up.

A command's id alone would not do: it is derived from the saga's id, which callers know. The secret is drawn when
the database is migrated and never leaves it; a token is as good as the right to answer this one command, once.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final
from uuid import UUID

from orchestrator.errors import UnknownToken

_PURPOSE: Final = b"sagasmith reply token"
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
        """The token of an attempt of a command: the same each time, 44 letters, digits, `-` and `_`."""
        return urlsafe_b64encode(command_id.bytes + self._signature(command_id.bytes)).decode()

    def command_of(self, token: str) -> UUID:
        """The attempt that a token names.

        Raises:
            UnknownToken: it is none of ours.
        """
        try:
            raw = urlsafe_b64decode(token.strip().encode("ascii"))
        except ValueError as error:
            raise UnknownToken("it is not a token, or not all of one") from error
        command_id, signature = raw[:_ID_BYTES], raw[_ID_BYTES:]
        if not hmac.compare_digest(signature, self._signature(command_id)):
            raise UnknownToken("it is not of this installation. Was it copied whole, and is this its database?")
        return UUID(bytes=command_id)

    def _signature(self, command_id: bytes) -> bytes:
        return hmac.digest(self._secret, _PURPOSE + command_id, "sha256")[:_SIGNATURE_BYTES]
