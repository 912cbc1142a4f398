"""Reply tokens: who may make one up (nobody), and what becomes of the answers they bring."""

from __future__ import annotations

import re
from dataclasses import replace
from uuid import UUID, uuid5

import pytest

from messaging.envelope import REPLY_TOKEN
from messaging.messages import Accepted
from orchestrator import SagaStatus
from orchestrator.errors import ActionRefused, UnknownToken
from orchestrator.instance import StepStatus
from orchestrator.outgoing import command_message
from orchestrator.reply_tokens import ReplyTokens
from orchestrator.store_records import SagaCommand
from orchestrator.testing import SagaHarness
from orchestrator.testing.harness import START, StartedInHarness
from tests.conformance.stores import command
from tests.unit.orchestrator.orders import (
    HOUR,
    CreateOrder,
    CreatingOrder,
    Done,
    OrderState,
    Refused,
    RejectOrder,
    ReleaseStock,
    ReserveStock,
    ReservingStock,
    StockReserved,
    with_steps,
)

OURS, THEIRS = ReplyTokens("01" * 32), ReplyTokens("02" * 32)
COMMAND = UUID(int=77)
Approving = with_steps(ReservingStock(), CreatingOrder())


def test_a_token_names_its_attempt_and_is_the_same_each_time() -> None:
    token = OURS.token_of(COMMAND)

    assert OURS.command_of(f" {token}\n") == COMMAND
    assert OURS.token_of(COMMAND) == token
    assert re.fullmatch("[A-Za-z0-9._]{44}", token), "fit for a URL, and for a command line"
    assert OURS.token_of(UUID(int=78)) != token
    assert OURS.token_of(UUID(int=0x3E << 122 | 77)).startswith("."), "where a hyphen would be taken for an option"


def test_who_knows_the_commands_id_or_another_installations_secret_has_no_token() -> None:
    with pytest.raises(UnknownToken, match="not of this installation"):
        OURS.command_of(THEIRS.token_of(COMMAND))
    with pytest.raises(UnknownToken, match="not of this installation"):
        OURS.command_of(ReplyTokens("").token_of(COMMAND))


def test_no_token_is_good_with_one_letter_changed_or_missing() -> None:
    token = OURS.token_of(COMMAND)
    others = [token[:n] + ("A" if letter != "A" else "B") + token[n + 1 :] for n, letter in enumerate(token)]

    for forged in (*others, token[:-4], token[4:], token + "AAAA", "", "no token", "ä" * 44, str(COMMAND)):
        with pytest.raises(UnknownToken):
            OURS.command_of(forged)


def test_a_command_carries_its_token_where_the_installation_has_a_secret() -> None:
    record = replace(command(), command_id=COMMAND)
    saga_command = SagaCommand(uuid5(COMMAND, "saga"), "create-order", record)

    signed = command_message(saga_command, reply_to="r", now=START, tokens=OURS).envelope
    plain = command_message(saga_command, reply_to="r", now=START).envelope

    assert OURS.command_of(signed.text_header(REPLY_TOKEN)) == COMMAND
    assert REPLY_TOKEN not in plain.headers


async def awaiting_approval() -> tuple[SagaHarness, StartedInHarness[OrderState]]:
    harness = SagaHarness(Approving)
    warehouse, orders = harness.participant("warehouse"), harness.participant("orders")
    warehouse.on(ReserveStock).answers(StockReserved(warehouse="north"))
    warehouse.on(ReleaseStock).answers(Done())
    orders.on(CreateOrder).answers(Accepted(within=48 * HOUR))
    orders.on(RejectOrder).answers(Done())
    return harness, await harness.start(Approving, OrderState())


async def test_an_accepted_command_waits_as_long_as_its_participant_says_and_is_answered_by_its_token() -> None:
    harness, order = await awaiting_approval()
    await harness.advance(hours=47)
    assert (order.status, order.current_step) == (SagaStatus.RUNNING, "CreatingOrder")

    await order.complete(CreatingOrder, Done())

    assert order.status is SagaStatus.COMPLETED
    assert len(harness.participant("orders").received) == 1


async def test_a_refusal_by_token_turns_the_saga_back() -> None:
    _, order = await awaiting_approval()

    await order.complete(CreatingOrder, Refused(reason="over the limit"))

    cause = order.first_cause
    assert cause is not None
    assert (cause.step, cause.text) == ("CreatingOrder", "over the limit")


async def test_a_token_answers_once_and_says_why_not_again() -> None:
    _, order = await awaiting_approval()
    await order.complete(CreatingOrder, Done())

    with pytest.raises(ActionRefused, match=r"complete of saga .* refused: it is completed"):
        await order.complete(CreatingOrder, Done())


async def test_while_the_saga_turns_back_a_token_settles_its_step_and_then_answers_nothing_more() -> None:
    harness, order = await awaiting_approval()
    harness.participant("orders").on(RejectOrder).stays_silent()

    await order.ask("cancel")
    await order.complete(CreatingOrder, Done())
    assert order.step_status(CreatingOrder) is StepStatus.SUCCEEDED, "until it is settled its answer counts"
    with pytest.raises(ActionRefused, match="success for attempt 1, step is succeeded"):
        await order.complete(CreatingOrder, Done())


async def test_nothing_comes_of_a_token_after_its_time() -> None:
    harness, order = await awaiting_approval()
    await harness.advance(days=9)  # each of three attempts was accepted for two days

    assert order.status is SagaStatus.COMPENSATED
    with pytest.raises(ActionRefused, match="it is compensated"):
        await order.complete(CreatingOrder, Done())


async def test_a_token_redeemed_while_the_saga_is_paused_is_taken_and_followed_by_nothing_yet() -> None:
    _, order = await awaiting_approval()
    await order.ask("pause")

    await order.complete(CreatingOrder, Done())
    assert order.status is SagaStatus.RUNNING
    assert order.step_status(CreatingOrder) is StepStatus.SUCCEEDED
    await order.ask("resume")

    assert order.status is SagaStatus.COMPLETED
