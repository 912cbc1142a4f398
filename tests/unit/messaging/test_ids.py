"""Ids."""

from __future__ import annotations

from uuid import UUID

from messaging.ids import derived_id, new_id


def test_new_ids_are_uuids_of_version_7_in_the_order_they_were_made() -> None:
    ids = [new_id() for _ in range(20_000)]

    assert ids == sorted(set(ids))
    assert {(UUID(one).version, UUID(one).variant) for one in ids} == {(7, UUID(ids[0]).variant)}
    assert UUID(ids[0]).variant == "specified in RFC 4122"


def test_derived_ids_are_pinned() -> None:
    assert derived_id("payments", "order-1", "0") == "8399cf09-b983-5995-be53-d742f8cd5d21"
    assert derived_id("a", "b") != derived_id("ab")
