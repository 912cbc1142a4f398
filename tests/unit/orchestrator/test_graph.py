"""A saga's steps as a diagram, and the statuses as the page about them shows them."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest

from orchestrator import Delay, graph
from orchestrator.draft import TRANSITIONS
from orchestrator.graph_svg import svg
from tests.unit.orchestrator.orders import (
    AwaitingPayment,
    CreatingOrder,
    GiftSaga,
    OrderState,
    PaymentSaga,
    Shipping,
    ShippingSaga,
    variant,
    with_steps,
)

SEMANTICS = Path(__file__).parents[3] / "docs" / "semantics.md"
SVG = "{http://www.w3.org/2000/svg}"


def test_the_page_about_semantics_shows_the_statuses_of_the_code() -> None:
    (shown,) = re.findall(r"```mermaid\n(stateDiagram.*?)```", SEMANTICS.read_text(encoding="utf-8"), re.DOTALL)

    assert shown == graph.statuses(), "print it anew: saga graph --statuses"


def test_every_way_between_statuses_is_drawn_once() -> None:
    drawn = re.findall(r"(\w+) --> (\w+)", graph.statuses())

    assert len(drawn) == len(set(drawn))
    assert set(drawn) == {(one.value, other.value) for one, others in TRANSITIONS.items() for other in others}


def test_a_flowchart_names_commands_participants_and_what_undoes_them() -> None:
    assert graph.mermaid(GiftSaga) == (
        "flowchart TB\n"
        '    start(["gift v1"])\n'
        '    done(["completed"])\n'
        '    s0["CreatingOrder<br/>create-order → orders"]\n'
        '    s0 -. undone by .-> us0["reject-order"]\n'
        '    subgraph g2["together"]\n'
        '        s1["ReservingCredit<br/>reserve-credit → customers"]\n'
        '        s1 -. undone by .-> us1["release-credit"]\n'
        '        subgraph g3["in sequence"]\n'
        '            s2["ReservingStock<br/>reserve-stock → warehouse"]\n'
        '            s2 -. undone by .-> us2["release-stock"]\n'
        '            s3["PackingGift<br/>pack-gift → warehouse"]\n'
        '            s3 -. undone by .-> us3["unpack-gift"]\n'
        "            s2 --> s3\n"
        "        end\n"
        "    end\n"
        "    start --> s0\n"
        "    s0 --> g2\n"
        "    g2 --> done\n"
    )


def test_pivot_retriable_steps_and_waits_look_different() -> None:
    shipping, payment = graph.mermaid(ShippingSaga), graph.mermaid(PaymentSaga)

    assert '[["Shipping<br/>ship → warehouse<br/>pivot"]]' in shipping
    assert '("Mailing<br/>send-mail → mailer<br/>tried until it succeeds")' in shipping
    assert '{{"AwaitingPayment<br/>waits for payment-captured<br/>at most 1 h, then compensate"}}' in payment


def test_a_wait_after_the_pivot_blocks_whatever_its_default_says() -> None:
    assert "at most 1 h, then block" in graph.mermaid(with_steps(CreatingOrder(), Shipping(), AwaitingPayment()))


def test_a_delay_is_drawn_as_a_wait() -> None:
    class CoolingOff(Delay[OrderState]):
        def until(self, state: OrderState) -> timedelta:
            return timedelta(days=1)

    assert '{{"CoolingOff<br/>waits for a time"}}' in graph.mermaid(with_steps(CreatingOrder(), CoolingOff()))


def test_a_digraph_cuts_the_edges_of_groups_at_their_border() -> None:
    dot = graph.dot(GiftSaga)

    assert "    s0 -> s1 [lhead=cluster_g2]\n" in dot
    assert "    s3 -> done [ltail=cluster_g2]\n" in dot
    assert dot.count("{") == dot.count("}")


def test_names_that_a_diagram_would_read_as_its_own_are_escaped() -> None:
    saga = with_steps(variant(CreatingOrder, participant='a"b<c>\\')())

    assert "a#quot;b&lt;c&gt;" in graph.mermaid(saga)
    assert 'a\\"b<c>\\\\' in graph.dot(saga)
    assert ElementTree.fromstring(svg(saga)).tag == f"{SVG}svg"


def test_a_picture_tells_each_step_in_words_as_well() -> None:
    picture = ElementTree.fromstring(svg(GiftSaga))

    assert picture.get("role") == "img"
    assert [title.text for title in picture.iter(f"{SVG}title")] == [
        "gift v1",
        "CreatingOrder (create-order → orders, undone by reject-order)",
        "ReservingCredit (reserve-credit → customers, undone by release-credit)",
        "ReservingStock (reserve-stock → warehouse, undone by release-stock)",
        "PackingGift (pack-gift → warehouse, undone by unpack-gift)",
    ]
    assert "together with ReservingStock" in (picture.findtext(f"{SVG}desc") or "")


def test_a_picture_has_colours_for_dark_pages_and_needs_nothing_from_elsewhere() -> None:
    drawn = svg(ShippingSaga)

    assert "prefers-color-scheme: dark" in drawn and "point of no return" in drawn
    assert re.findall(r"https?://[^\"]*", drawn) == ["http://www.w3.org/2000/svg"]


def test_all_of_a_picture_lies_within_its_borders() -> None:
    picture = ElementTree.fromstring(svg(GiftSaga))
    width, height = float(picture.get("width", "")), float(picture.get("height", ""))

    for box in picture.iter(f"{SVG}rect"):
        left, top = float(box.get("x", "0")), float(box.get("y", "0"))
        assert 0 <= left <= left + float(box.get("width", "")) <= width
        assert 0 <= top <= top + float(box.get("height", "")) <= height


@pytest.mark.parametrize(
    ("duration", "words"),
    [
        (timedelta(seconds=30), "30 s"),
        (timedelta(seconds=0.5), "0.5 s"),
        (timedelta(minutes=90), "1 h 30 min"),
        (timedelta(days=1), "1 d"),
        (timedelta(0), "0 s"),
    ],
)
def test_durations_are_told_exactly(duration: timedelta, words: str) -> None:
    assert graph.spoken(duration) == words
