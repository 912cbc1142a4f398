"""Money goes from one account to another: taken here, put there, and if it cannot be put there, given back.

Transfers that share an account go one after the other, so none counts on money that may still be given back.
"""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel

from messaging import Command, Failure, Reply, Retry
from orchestrator import Saga, Step


class Done(Reply):
    pass


class NotCovered(Failure):
    balance_cents: int = 0


class AccountClosed(Failure):
    pass


class TakeMoney(Command[Done], failures=(NotCovered, AccountClosed)):
    transfer_id: str
    account: str
    cents: int


class GiveBackMoney(Command[Done]):
    transfer_id: str


class PutMoney(Command[Done], failures=(AccountClosed,)):
    transfer_id: str
    account: str
    cents: int


class SendStatement(Command[Done]):
    transfer_id: str
    account: str
    cents: int


class Transfer(BaseModel):
    transfer_id: str
    source: str
    target: str
    cents: int
    refusal: str = ""


class TakingMoney(Step[Transfer, Done]):
    """Begins once no other transfer is under way on either account: they are this one's until it has ended."""

    participant = "accounts"
    lock_timeout = timedelta(minutes=5)

    def locks(self, state: Transfer) -> list[str]:
        return [f"account:{state.source}", f"account:{state.target}"]

    def command(self, state: Transfer) -> TakeMoney:
        return TakeMoney(transfer_id=state.transfer_id, account=state.source, cents=state.cents)

    def on_failure(self, state: Transfer, failure: Failure) -> None:
        state.refusal = failure.reason

    def compensation(self, state: Transfer) -> GiveBackMoney:
        return GiveBackMoney(transfer_id=state.transfer_id)


class PuttingMoney(Step[Transfer, Done]):
    """The point of no return: a refusal gives the money back, no answer at all waits for somebody to look."""

    participant = "accounts"
    pivot = True
    retry = Retry(max_attempts=5, backoff=timedelta(seconds=1))

    def command(self, state: Transfer) -> PutMoney:
        return PutMoney(transfer_id=state.transfer_id, account=state.target, cents=state.cents)

    def on_failure(self, state: Transfer, failure: Failure) -> None:
        state.refusal = failure.reason


class SendingStatement(Step[Transfer, Done]):
    """From here it only goes forward: tried again until it is done."""

    participant = "letters"
    retriable = True
    retry = Retry(max_attempts=None, backoff=timedelta(seconds=1), cap=timedelta(hours=1))

    def command(self, state: Transfer) -> SendStatement:
        return SendStatement(transfer_id=state.transfer_id, account=state.source, cents=state.cents)


class TransferMoney(Saga[Transfer]):
    steps = (TakingMoney(), PuttingMoney(), SendingStatement())
