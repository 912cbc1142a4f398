"""What becomes of the money."""

from __future__ import annotations

from datetime import timedelta

from money_transfer.sagas import (
    AccountClosed,
    Done,
    GiveBackMoney,
    NotCovered,
    PutMoney,
    PuttingMoney,
    SendingStatement,
    SendStatement,
    TakeMoney,
    TakingMoney,
    Transfer,
    TransferMoney,
)
from orchestrator import BlockedReason, SagaStatus
from orchestrator.testing import SagaHarness, SagaProbe, Seen, explore

RENT = Transfer(transfer_id="1", source="ann", target="bob", cents=500)
REFUND = Transfer(transfer_id="2", source="bob", target="ann", cents=200)


def moves(transfer: Transfer) -> list[TakeMoney | PutMoney]:
    """What the accounts are told of a transfer when all goes well."""
    taken = TakeMoney(transfer_id=transfer.transfer_id, account=transfer.source, cents=transfer.cents)
    return [taken, PutMoney(transfer_id=transfer.transfer_id, account=transfer.target, cents=transfer.cents)]


def test_money_is_taken_put_and_told_about() -> None:
    probe = SagaProbe(TransferMoney, RENT)
    assert probe.just_sent == [TakeMoney(transfer_id="1", account="ann", cents=500)]
    probe.reply(TakingMoney, Done())
    assert probe.just_sent == [PutMoney(transfer_id="1", account="bob", cents=500)]
    probe.reply(PuttingMoney, Done())
    probe.reply(SendingStatement, Done())
    assert probe.status is SagaStatus.COMPLETED


def test_what_is_not_covered_never_happened() -> None:
    probe = SagaProbe(TransferMoney, RENT)
    probe.reply(TakingMoney, NotCovered(reason="not covered", balance_cents=20))
    assert (probe.status, probe.just_sent) == (SagaStatus.COMPENSATED, [])


async def test_money_for_a_closed_account_is_given_back() -> None:
    harness = SagaHarness(TransferMoney)
    accounts = harness.participant("accounts")
    accounts.on(TakeMoney, GiveBackMoney).answers(Done())
    accounts.on(PutMoney).answers(AccountClosed(reason="bob has no account here"))

    transfer = await harness.start(TransferMoney, RENT)

    assert (transfer.status, transfer.state.refusal) == (SagaStatus.COMPENSATED, "bob has no account here")
    assert accounts.received[-1] == GiveBackMoney(transfer_id="1")


async def test_transfers_over_the_same_accounts_go_one_after_the_other() -> None:
    harness = SagaHarness(TransferMoney)
    accounts = harness.participant("accounts")
    accounts.on(TakeMoney).answers(Done())
    accounts.on(PutMoney).answers(Done(), after=timedelta(seconds=10))
    harness.participant("letters").on(SendStatement).answers(Done())

    rent, refund = await harness.start(TransferMoney, RENT), await harness.start(TransferMoney, REFUND)
    assert accounts.received == moves(RENT)

    await harness.advance(seconds=10)
    assert rent.status is SagaStatus.COMPLETED
    assert accounts.received == moves(RENT) + moves(REFUND)
    await harness.advance(seconds=10)
    assert refund.status is SagaStatus.COMPLETED


async def test_a_transfer_that_waits_too_long_for_its_accounts_never_happened() -> None:
    harness = SagaHarness(TransferMoney)
    accounts = harness.participant("accounts")
    accounts.on(TakeMoney).answers(Done())
    accounts.on(PutMoney).stays_silent()
    await harness.start(TransferMoney, RENT)
    refund = await harness.start(TransferMoney, REFUND)

    await harness.advance(minutes=5)

    assert refund.first_cause is not None
    assert (refund.status, refund.first_cause.code) == (SagaStatus.COMPENSATED, "lock-timeout")
    assert moves(REFUND)[0] not in accounts.received


async def test_nobody_guesses_whether_the_money_has_arrived() -> None:
    harness = SagaHarness(TransferMoney)
    accounts, letters = harness.participant("accounts"), harness.participant("letters")
    accounts.on(TakeMoney).answers(Done())
    accounts.on(PutMoney).stays_silent()
    letters.on(SendStatement).answers(Done())
    transfer = await harness.start(TransferMoney, RENT)

    await harness.advance(hours=1)
    assert (transfer.status, transfer.blocked_reason) == (SagaStatus.BLOCKED, BlockedReason.PIVOT_UNKNOWN)
    assert GiveBackMoney(transfer_id="1") not in accounts.received

    accounts.on(PutMoney).answers(Done())
    await transfer.ask("retry", reason="the accounts answer again")
    assert transfer.status is SagaStatus.COMPLETED


async def test_a_statement_is_sent_however_long_that_takes() -> None:
    harness = SagaHarness(TransferMoney)
    harness.participant("accounts").on(TakeMoney, PutMoney).answers(Done())
    letters = harness.participant("letters")
    letters.on(SendStatement).raises("no paper", times=20)
    letters.on(SendStatement).answers(Done())

    transfer = await harness.start(TransferMoney, RENT)
    assert transfer.current_step == "SendingStatement"

    await harness.advance(timedelta(days=1))
    assert transfer.status is SagaStatus.COMPLETED


def money_arrives_only_once_it_is_taken(seen: Seen[Transfer]) -> bool:
    return seen.in_effect(TakingMoney) or not seen.in_effect(PuttingMoney)


def test_no_money_is_made_or_lost_whatever_happens() -> None:
    print(explore(TransferMoney, RENT, invariants=[money_arrives_only_once_it_is_taken]))
