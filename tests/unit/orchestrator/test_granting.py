"""Who gets which resources: all or none, in order, and nobody waits in a circle."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.granting import LOCK_DEADLOCK, LOCKED, LockRow, Settled, settle


class Table:
    """Rows of locks, by hand."""

    def __init__(self) -> None:
        self.rows: list[LockRow] = []

    def _add(self, saga: str, resources: str, *, waits: bool, held: bool, step: str = "A") -> None:
        for resource in resources:
            row = LockRow(UUID(int=len(self.rows)), resource, _id(saga), _id(saga), step, waits, held)
            self.rows.append(row)

    def held(self, saga: str, resources: str) -> Table:
        self._add(saga, resources, waits=True, held=True)
        return self

    def asked(self, saga: str, resources: str, *, waits: bool = True, step: str = "B") -> Table:
        self._add(saga, resources, waits=waits, held=False, step=step)
        return self

    def settled(self) -> tuple[str, dict[str, str]]:
        """Who is granted what it asks for, and who is denied it with which code."""
        return _told(settle(self.rows))


def _id(saga: str) -> UUID:
    return UUID(int=1000 + ord(saga))


def _name(saga: UUID) -> str:
    return chr(saga.int - 1000)


def _told(settled: Settled) -> tuple[str, dict[str, str]]:
    denied = {_name(request.saga_id): code for request, code in settled.denied}
    return "".join(_name(request.saga_id) for request in settled.granted), denied


def test_what_is_free_is_granted_to_the_first_who_asked() -> None:
    assert Table().asked("x", "r").asked("y", "r").asked("z", "s").settled() == ("xz", {})


def test_a_step_gets_all_it_names_or_none_of_it() -> None:
    table = Table().held("x", "r").asked("y", "rs").asked("z", "s")

    assert table.settled() == ("", {}), "z does not pass by y, which was first to ask for s"


def test_who_would_not_wait_is_denied_what_is_taken_and_keeps_nobody_waiting() -> None:
    table = Table().held("x", "r").asked("y", "rs", waits=False).asked("z", "s")

    assert table.settled() == ("z", {"y": LOCKED})


def test_a_tree_gets_at_once_what_it_holds_already_whoever_else_waits_for_it() -> None:
    table = Table().held("x", "r").asked("y", "r").asked("x", "r")

    assert table.settled() == ("x", {})


def test_of_two_that_wait_for_each_other_the_last_to_begin_is_denied() -> None:
    table = Table().held("x", "r").held("y", "s").asked("x", "s").asked("y", "r")

    assert table.settled() == ("", {"y": LOCK_DEADLOCK})


def test_a_circle_of_three_is_found_and_who_only_waits_before_it_is_left_alone() -> None:
    table = Table().held("x", "r").held("y", "s").held("z", "t")
    table.asked("x", "s").asked("y", "t").asked("z", "r").asked("w", "r")

    assert table.settled() == ("", {"z": LOCK_DEADLOCK})


def test_a_circle_through_somebodys_place_in_a_line_is_a_circle() -> None:
    """Y is before x in the line for s, and waits for what x holds."""
    table = Table().held("x", "r").asked("y", "rs").asked("x", "s")

    assert table.settled() == ("", {"x": LOCK_DEADLOCK})


SAGAS = st.sampled_from("uvwxyz")
ASKS = st.lists(st.tuples(SAGAS, st.sets(st.sampled_from("qrst"), min_size=1), st.booleans()), max_size=14)


@given(ASKS)
def test_nothing_is_held_twice_and_somebody_always_goes_on(asks: list[tuple[str, set[str], bool]]) -> None:
    rows: list[LockRow] = []
    for number, (saga, resources, waits) in enumerate(asks):
        for one in sorted(resources):
            rows.append(LockRow(UUID(int=len(rows)), one, _id(saga), _id(saga), f"S{number}", waits, held=False))
        rows = _after(rows)
        holders: dict[str, set[UUID]] = {}
        for row in rows:
            if row.held:
                holders.setdefault(row.resource, set()).add(row.root)
        assert all(len(roots) == 1 for roots in holders.values())
        assert all(row.waits for row in rows if not row.held)
    ended = 0
    while rows:  # whoever waits for nothing ends: so in the end all do
        waiting = {row.root for row in rows if not row.held}
        going = {row.root for row in rows} - waiting
        assert going, "everybody waits"
        rows = _after([row for row in rows if row.root not in going])
        ended += len(going)


def _after(rows: list[LockRow]) -> list[LockRow]:
    settled = settle(rows)
    granted = {one for request in settled.granted for one in request.ids}
    denied = {one for request, _ in settled.denied for one in request.ids}
    kept = [row for row in rows if row.id not in denied]
    return [LockRow(r.id, r.resource, r.root, r.saga_id, r.step, r.waits, r.held or r.id in granted) for r in kept]
