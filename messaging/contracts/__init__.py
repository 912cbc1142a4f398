"""Contracts between services: what may be sent to whom, as JSON Schema and as an AsyncAPI document.

parties = [party_of(payments), party_of(orders)]
contracts_of(parties)["charge"].schema
asyncapi(parties, title="Shop", version="1.4.0")
"""

from __future__ import annotations

from messaging.contracts.asyncapi import asyncapi
from messaging.contracts.catalogue import Contract, Kind, contracts_of
from messaging.contracts.parties import Party, Received, Sent, party_of

# Grouped as they are met: who takes part, what is said, the document.
__all__ = [  # noqa: RUF022
    "Party",
    "Received",
    "Sent",
    "party_of",
    "Contract",
    "Kind",
    "contracts_of",
    "asyncapi",
]
