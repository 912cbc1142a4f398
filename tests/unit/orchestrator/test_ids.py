"""Ids that are derived: the same for ever, whoever computes them."""

from __future__ import annotations

from uuid import UUID

from orchestrator.ids import idempotency_key, message_id, new_saga_id
from orchestrator.instance import Direction, StepKey

SAGA = UUID("0190b3a5-7c1e-7a44-9c53-3f8a2b9d4e10")
ACTION = StepKey("ReservingCredit")
UNDO = StepKey("ReservingCredit", Direction.COMPENSATION)
BRANCH = StepKey("ReservingStock", branch="item%2F7")


def test_message_ids_are_what_they_were_when_sagas_in_flight_were_written() -> None:
    assert message_id(SAGA, ACTION, 1, 1) == UUID("789269b6-8b01-57e7-93c1-b2602dadedf3")
    assert message_id(SAGA, ACTION, 1, 2) == UUID("6b64285c-9a06-5f62-bb74-dbaf7fb622a2")
    assert message_id(SAGA, ACTION, 2, 2) == UUID("434f006e-adc5-5e12-b311-d14c2f7a854d")
    assert message_id(SAGA, UNDO, 1, 1) == UUID("358be235-16fa-5c71-9686-3326a0ecbc10")
    assert message_id(SAGA, BRANCH, 1, 1) == UUID("f310ce89-48f3-500d-a3dd-35dd5d193449")


def test_idempotency_keys_are_what_participants_have_stored() -> None:
    assert idempotency_key(SAGA, ACTION, 1) == f"{SAGA}/ReservingCredit/action#1"
    assert idempotency_key(SAGA, UNDO, 2) == f"{SAGA}/ReservingCredit/compensation#2"
    assert idempotency_key(SAGA, BRANCH, 1) == f"{SAGA}/ReservingStock/item%2F7/action#1"


def test_nothing_that_tells_attempts_apart_can_be_confused() -> None:
    keys = [ACTION, UNDO, BRANCH, StepKey("ReservingStock"), StepKey("item%2F7", branch="ReservingStock")]
    ids = {message_id(SAGA, key, round_, attempt) for key in keys for round_ in (1, 2) for attempt in (1, 2, 11)}

    assert len(ids) == len(keys) * 6


def test_new_saga_ids_are_uuids_of_version_7_and_differ() -> None:
    ids = {new_saga_id() for _ in range(1000)}

    assert len(ids) == 1000
    assert {saga_id.version for saga_id in ids} == {7}
