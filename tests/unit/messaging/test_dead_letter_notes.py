"""Notes on dead letters stay within their bounds, whatever is to be noted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from messaging.dead_letter_notes import MAX_DETAIL_BYTES, MAX_REASON_CHARACTERS, bounded_detail, bounded_reason


def test_a_long_traceback_keeps_its_beginning_and_its_end() -> None:
    detail = bounded_detail("Traceback\n" + "ü" * 10_000 + "\nOSError: away\n")

    assert detail.startswith("Traceback\nüüü") and detail.endswith("üüü\nOSError: away\n")
    assert "[...]" in detail
    assert MAX_DETAIL_BYTES - 4 < len(detail.encode()) <= MAX_DETAIL_BYTES


def test_a_reason_is_one_line() -> None:
    assert bounded_reason("a\nb\tc ") == "a b c"
    assert len(bounded_reason("x" * 1000)) == MAX_REASON_CHARACTERS


@given(st.text(st.characters(codec=None), max_size=3000))
def test_any_text_becomes_one_that_a_database_can_hold(text: str) -> None:
    for bounded in (bounded_detail(text * 3), bounded_reason(text)):
        assert len(bounded.encode()) <= MAX_DETAIL_BYTES
        assert "\0" not in bounded
