"""The dashboard in a real browser: live, searched, by keyboard alone, in the dark, on a phone, for everyone.

Each page is kept as a picture, in `build/screenshots`: for people to look at, no test does.
"""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from playwright.sync_api import Browser, Page, Route, expect
from sqlalchemy import create_engine, make_url

from messaging.dead_letters import KeepsDeadLetters
from messaging.envelope import Envelope, to_queue, to_subscribers
from messaging.memory import MemoryTransport
from messaging.transport import Outgoing, QueueSpec
from orchestrator import BlockingSagaClient, SagaStatus
from orchestrator.outgoing import event_message
from orchestrator.signals import LocksAsked
from orchestrator.sql import SqlStore
from orchestrator.status import SagaRow
from orchestrator.store_records import UnmatchedMessage
from orchestrator.web import live
from tests.conformance.stores import command, started
from tests.conformance.transport_backends import a_message
from tests.support.browser import launched, serious_faults, shoot
from tests.support.chromium import BrowserMissing, chromium_program
from tests.support.dashboard import dashboard_served
from tests.support.databases import new_sqlite
from tests.support.services import in_ci
from tests.unit.cli import walls
from tests.unit.web.conftest import READ_TOKEN, TOKEN

MANY = 1000
expect.set_options(timeout=20_000)
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}


@dataclass
class Shop:
    """A dashboard with an engine beside it, and a client that does things behind its back."""

    address: str
    client: BlockingSagaClient
    database_url: str

    def start(self, ends: str, *keys: str) -> list[UUID]:
        """Start sagas that end so, and wait until they have come to where they stay."""
        state = walls.Wall.model_validate({"name": "north", "ends": ends})
        ids = [self.client.start(walls.PaintWallSaga, state, key=key).id for key in keys]
        until = time.monotonic() + 60
        for saga_id in ids:
            while not _rests(self.client.get(saga_id), ends):
                assert time.monotonic() < until
                time.sleep(0.02)
        return ids


def _rests(row: SagaRow, ends: str) -> bool:
    return row.status is not SagaStatus.RUNNING or (ends == "waiting" and row.current_step == "Drying")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        chromium_program()
    except BrowserMissing as missing:
        pytest.fail(str(missing)) if in_ci() else pytest.skip(str(missing))
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("dashboard")
    url = f"sqlite+aiosqlite:///{folder / 'saga.db'}"
    new_sqlite(url)
    walls.ladder_is_back.clear()
    before = Path.cwd()
    os.chdir(folder)
    try:
        with dashboard_served(url, walls.app, walls.painter, letters=_one_letter, bulk_per_second=200) as address:
            engine = create_engine(url.replace("+aiosqlite", ""), connect_args={"timeout": 20})
            yield Shop(address, BlockingSagaClient(engine), url)
            engine.dispose()
    finally:
        os.chdir(before)


@asynccontextmanager
async def _one_letter() -> AsyncGenerator[tuple[KeepsDeadLetters, Sequence[str]]]:
    """A broker with one dead letter, a new one each time."""
    transport = MemoryTransport()
    await transport.open()
    await transport.declare([QueueSpec("painter")])
    envelope = Envelope("0198c0de-0000-7000-8000-000000000001", b"{}", "paint")
    await transport.publish([Outgoing(envelope, to_queue("painter"))], timeout=timedelta(seconds=30))
    subscription = await transport.subscribe("painter", prefetch_messages=1)
    (delivery,) = await subscription.take(1)
    await subscription.dead_letter(delivery, "handler-raised", "ValueError: the ladder is too short for this wall")
    await subscription.close()
    yield transport, ["painter"]
    await transport.close()


@pytest.fixture
def jam(tmp_path: Path) -> Iterator[Shop]:
    """A dashboard without an engine, of sagas that nothing leaves of, with a broker where nobody takes anything."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'saga.db'}"
    new_sqlite(url)
    with ThreadPoolExecutor(1) as apart:  # as playwright has the event loop of this thread
        apart.submit(asyncio.run, _jammed(url)).result()
    with dashboard_served(url, letters=_jammed_queues) as address:
        engine = create_engine(url.replace("+aiosqlite", ""))
        yield Shop(address, BlockingSagaClient(engine), url)
        engine.dispose()


async def _jammed(url: str) -> None:
    begun = datetime.now(UTC) - timedelta(minutes=7)
    store = SqlStore(url, runs_engine=False)
    await store.open()
    for number in range(9):
        to, why = [("customers", ""), ("warehouse-of-the-north", "no queue 'warehouse-of-the-north'")][number % 2]
        record = command(participant=to, started_at=begun, send_after=begun)
        saga = await started(store, record, business_key=f"order-{number}")
        async with store.transaction() as tx:
            if why and record.command_id:
                await tx.put_off_sends({record.command_id: (begun + timedelta(hours=1), why)})
            await tx.change_locks(saga, [LocksAsked("Debiting", ("account:DE-0000-0000-0000-4711",), waits=True)])
            held = [row.id for row in await tx.contended_locks()][:1]
            await tx.settle_locks(held, [])
            published = Outgoing(a_message(), to_subscribers(f"order-placed.{number % 2}"))
            await tx.add_outgoing([published, event_message(walls.PaintDried(name="north"), saga)])
            why = f"it answers command {uuid4()}, which no saga here has sent"
            await tx.add_unmatched([UnmatchedMessage(str(uuid4()), why, b"{}", "{}", saga.id)])
    await store.close()


@asynccontextmanager
async def _jammed_queues() -> AsyncGenerator[tuple[KeepsDeadLetters, Sequence[str]]]:
    transport = MemoryTransport()
    queues = ["orchestrator.shop.replies", "orchestrator.shop.events", "customers", "banks"]
    await transport.declare([QueueSpec(queue) for queue in queues])
    await transport.subscribe("banks", prefetch_messages=1)
    at = ["orchestrator.shop.replies"] * 412 + ["customers.dead"] * 3
    await transport.publish([Outgoing(a_message(), to_queue(queue)) for queue in at], timeout=timedelta(seconds=30))
    yield transport, queues


@contextmanager
def looking(browser: Browser, shop: Shop, *, expected: str = "$^", **more: Any) -> Iterator[Page]:
    """A page that must not complain, but of what is expected: no script error, nothing that the policy stops."""
    context = browser.new_context(**{"base_url": shop.address, "viewport": DESK, **more})
    page, complaints = context.new_page(), list[str]()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.set_default_timeout(15_000)
    try:
        yield page
    except BaseException as failure:
        failure.add_note(f"the page at {page.url} complained: {complaints}")
        raise
    finally:
        context.close()
    assert [one for one in complaints if not re.search(expected, one)] == []


def tab_to(page: Page, words: str) -> None:
    """Press Tab until what is so named has the focus."""
    for _ in range(80):
        page.keyboard.press("Tab")
        named = "(e => (e.getAttribute('aria-label') || e.innerText || e.name || '').trim())(document.activeElement)"
        if page.evaluate(named).startswith(words):
            return
    pytest.fail(f"Tab never comes to {words!r}")


def test_what_happens_is_seen_without_loading_again(browser: Browser, shop: Shop) -> None:
    with looking(browser, shop) as page:
        page.goto("/sagas")
        page.evaluate("() => { window.sameDocument = true }")
        (waiting,) = shop.start("waiting", "live-1")
        expect(page.get_by_role("row").filter(has_text="live-1")).to_contain_text("event paint-dried")

        page.get_by_role("link", name="paint-wall").first.click()
        expect(page.locator("h1")).to_contain_text("running")
        page.evaluate("() => { window.sameDocument = true }")
        shop.client.cancel(waiting, reason="too wet")

        expect(page.locator("h1")).to_contain_text("compensated")
        expect(page.locator("#notes")).to_contain_text("too wet")
        expect(page.locator("#timeline rect.bar.undo[x]")).to_have_count(1)
        assert page.evaluate("() => window.sameDocument")
        shoot(page, "cancelled-light")


FAILS: dict[str, Callable[[Route], None]] = {
    "cut": lambda route: route.abort(),
    "refused": lambda route: route.fulfill(status=503, body="<h1>Not now</h1>", content_type="text/html"),
    "signed out": lambda route: route.fulfill(status=303, headers={"location": "/login"}),
}
AS_EXPECTED = "Failed to load resource|Failed to fetch"


@pytest.mark.parametrize(
    ("part", "how"), [("stream", "cut"), ("stream", "refused"), ("section", "refused"), ("section", "signed out")]
)
def test_a_page_that_is_not_told_what_happens_says_so_and_asks_again(
    browser: Browser, shop: Shop, part: str, how: str
) -> None:
    (waiting,) = shop.start("waiting", f"again-{part}-{how}")
    here = f"/sagas/{waiting}"
    failing = re.compile(f"{here}$" if part == "section" else f"/api{here}/events")
    with looking(browser, shop, expected=AS_EXPECTED) as page:
        if part == "stream":
            page.route(failing, FAILS[how])
            page.goto(here)
        else:
            with page.expect_response("**/events?*"):
                page.goto(here)
            page.route(failing, FAILS[how])
        shop.client.cancel(waiting, reason="too wet")
        expect(page.locator("#not-live")).to_be_visible()
        expect(page.locator("h1")).to_contain_text("running")
        assert not serious_faults(page)
        shoot(page, "not-live-light")

        page.unroute(failing)
        expect(page.locator("h1")).to_contain_text("compensated")
        expect(page.locator("#actions")).to_have_count(0)
        expect(page.locator("#not-live")).to_be_hidden()


def test_a_stream_that_does_not_come_back_is_told_until_it_does(
    browser: Browser, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LONGEST_SECONDS", 0.0)  # so each ends at once, and comes back
    with looking(browser, shop, expected=AS_EXPECTED) as page:
        with page.expect_response("**/api/events?*"):
            page.goto("/sagas")
        page.route("**/api/events?*", FAILS["cut"])
        expect(page.locator("#not-live")).to_be_visible()
        shop.start("waiting", "back-1")

        page.unroute("**/api/events?*")
        expect(page.get_by_role("row").filter(has_text="back-1")).to_be_visible()
        expect(page.locator("#not-live")).to_be_hidden()


def test_what_each_step_changed_is_seen(browser: Browser, shop: Shop) -> None:
    (waiting,) = shop.start("waiting", "states-1")
    with looking(browser, shop) as page:
        page.goto(f"/sagas/{waiting}")
        changes = [one.inner_text().split() for one in page.locator("#states .changes li").all()]
        assert changes[0] == ["~", "changed", "coats", "0", "→", "1"] and len(changes) == 2
        page.locator("#states summary").first.click()
        expect(page.locator("#states pre")).to_contain_text('"name": "north"')


def test_a_form_that_somebody_fills_in_is_not_taken_away(browser: Browser, shop: Shop) -> None:
    (waiting,) = shop.start("waiting", "form-1")
    with looking(browser, shop) as page:
        page.goto(f"/sagas/{waiting}")
        page.locator("summary", has_text="Cancel").click()
        expect(page.locator("#preview-cancel")).to_contain_text("running → compensating")
        page.get_by_label("Reason").first.fill("half a rea")
        shop.client.pause(waiting, reason="closed")

        expect(page.locator("h1")).to_contain_text("paused")
        expect(page.get_by_text("The saga has changed meanwhile")).to_be_visible()
        expect(page.get_by_label("Reason").first).to_have_value("half a rea")


def progress_of(page: Page) -> Iterator[int]:
    """How far a bulk action is, each time that the page shows another number, until it is done."""
    bar = page.locator("progress")
    while (value := int(bar.get_attribute("value") or 0)) < MANY:
        yield value
        expect(bar).not_to_have_attribute("value", str(value))


def test_many_are_retried_at_once_with_the_keyboard_alone(browser: Browser, shop: Shop) -> None:
    blocked = shop.start("blocked", *(f"many-{number}" for number in range(MANY)))
    walls.ladder_is_back.set()
    with looking(browser, shop) as page:
        page.goto("/")
        tab_to(page, "Failures")
        page.keyboard.press("Enter")
        page.wait_for_url("**/failures")
        tab_to(page, f"Act on all {MANY}")
        page.keyboard.press("Enter")
        tab_to(page, "reason")
        page.keyboard.type("the ladder is back")
        page.keyboard.press("Enter")

        page.wait_for_url("**/bulk/*")
        expect(page.locator("#bulk")).to_contain_text(f"Retry of {MANY} sagas")
        seen = list(progress_of(page))
        expect(page.locator("#bulk")).to_contain_text("ended")
        assert any(0 < value < MANY for value in seen) and seen == sorted(seen), "how far it is, is seen meanwhile"
        shoot(page, "bulk")

        page.keyboard.press("/")
        page.keyboard.type("many-7")
        page.keyboard.press("Enter")
        page.wait_for_url("**/sagas?q=many-7")
        expect(page.locator("#rows tbody tr")).to_have_count(1)
        tab_to(page, "paint-wall")
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/sagas/{blocked[7]}")
        expect(page.locator("#notes")).to_contain_text("the ladder is back")


def test_a_filter_is_kept_by_name_in_this_browser_and_stays_text(browser: Browser, shop: Shop) -> None:
    name = "<b>waiting</b>"
    with looking(browser, shop) as page:
        page.goto("/sagas?q=&saga=&status=running&step=Drying")
        page.get_by_label("Keep this filter").fill(name)
        page.keyboard.press("Enter")
        page.goto("/sagas")
        page.get_by_role("link", name=name).click()
        page.wait_for_url("**/sagas?status=running&step=Drying")
        expect(page.get_by_role("link", name=name)).to_have_attribute("aria-current", "true")
        assert not serious_faults(page)

        page.get_by_role("button", name=f"Forget {name}").click()
        page.goto("/sagas")
        expect(page.locator("#saved")).to_be_hidden()


def test_without_scripts_everything_else_works(browser: Browser, shop: Shop) -> None:
    (waiting,) = shop.start("waiting", "plain-1")
    with looking(browser, shop, java_script_enabled=False) as page:
        page.goto("/sagas")
        page.get_by_label("Status").select_option("running")
        page.get_by_role("button", name="Show").click()
        page.get_by_role("row").filter(has_text="plain-1").get_by_role("link").click()
        page.locator("summary", has_text="Abandon").click()
        page.locator("#preview-abandon a").click()
        expect(page.locator("#preview-abandon")).to_contain_text("running → abandoned")
        page.get_by_label("Reason").last.fill("settled by hand")
        page.get_by_role("button", name="Abandon this saga").click()

        expect(page.get_by_text("✓ abandon: running → abandoned")).to_be_visible()
    assert shop.client.get(waiting).status is SagaStatus.ABANDONED


@pytest.mark.parametrize(("scheme", "size"), [("light", DESK), ("dark", PHONE)], ids=["light-desk", "dark-phone"])
def test_no_page_shuts_anybody_out(browser: Browser, shop: Shop, scheme: str, size: dict[str, int]) -> None:
    walls.ladder_is_back.clear()
    (blocked,) = shop.start("blocked", f"axe-{scheme}")
    (undone,) = shop.start("refused", f"undone-{scheme}")
    (done,) = shop.start("well", f"done-{scheme}")
    shop.client.hold("strip-wall", reason="the paint is off", by="ann")
    with looking(browser, shop, color_scheme=scheme, viewport=size) as page:
        faults: dict[str, Any] = {}
        pages = {
            "overview": "/",
            "list": "/sagas?status=blocked",
            "blocked": f"/sagas/{blocked}",
            "undone": f"/sagas/{undone}",
            "done": f"/sagas/{done}",
            "failures": "/failures",
            "bulks": "/bulk",
            "definitions": "/definitions",
            "definition": "/definitions/paint-wall?version=1",
            "letters": "/letters",
            "audit": "/audit",
            "bus": "/bus",
        }
        for name, path in pages.items():
            page.goto(path)
            page.evaluate("() => document.querySelectorAll('details').forEach(one => { one.open = true })")
            if found := serious_faults(page):
                faults[name] = found
            wide = page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
            assert wide <= 0, f"{name} is {wide} pixels too wide"
            shoot(page, f"{name}-{'phone' if size is PHONE else scheme}")
            if size is DESK:
                page.emulate_media(color_scheme="dark")
                shoot(page, f"{name}-dark")
                page.emulate_media(color_scheme="light")
        shop.client.release("strip-wall", reason="new paint")
        dark = page.evaluate("() => getComputedStyle(document.body).backgroundColor")

    assert faults == {}
    numbers = [int(number) for number in re.findall(r"\d+", dark)[:3]]
    assert (max(numbers) < 60) if scheme == "dark" else (min(numbers) > 200)


@pytest.mark.parametrize(("called", "size"), [("light", DESK), ("phone", PHONE)], ids=["desk", "phone"])
def test_the_bus_tells_where_it_jams_so_that_everybody_can_read_it(
    browser: Browser, jam: Shop, called: str, size: dict[str, int]
) -> None:
    with looking(browser, jam, viewport=size) as page:
        page.goto("/bus")
        page.evaluate("() => { window.sameDocument = true }")
        commands = page.get_by_role("region", name="Commands that have not left")
        expect(commands).to_contain_text("No engine was heard of")
        expect(commands.get_by_role("row").filter(has_text="customers")).to_contain_text("5")
        queues = page.get_by_role("region", name="Queues")
        expect(queues.get_by_role("row").filter(has_text="replies")).to_contain_text("nobody takes from it")
        expect(queues.get_by_role("row").filter(has_text="warehouse")).to_contain_text("no such queue")
        assert not serious_faults(page)
        assert page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth") <= 0
        shoot(page, f"bus-jammed-{called}")
        if size is DESK:
            page.emulate_media(color_scheme="dark")
            assert not serious_faults(page)
            shoot(page, "bus-jammed-dark")

        with sqlite3.connect(str(make_url(jam.database_url).database)) as database:
            database.execute("DELETE FROM message_outbox")
        expect(page.get_by_role("region", name="Messages in the outbox")).to_contain_text("The outbox is empty")
        assert page.evaluate("() => window.sameDocument")
        commands.get_by_role("link").first.click()
        page.wait_for_url("**/sagas/*")


@pytest.mark.parametrize(("called", "size"), [("light", DESK), ("phone", PHONE)], ids=["desk", "phone"])
def test_who_is_not_let_in_or_refused_is_told_so_that_everybody_can_read_it(
    browser: Browser, shop: Shop, called: str, size: dict[str, int]
) -> None:
    (waiting,) = shop.start("waiting", f"refused-{called}")
    faults: dict[str, Any] = {}

    def seen(page: Page, name: str, says: str) -> None:
        expect(page.locator("main")).to_contain_text(says)
        if found := serious_faults(page):
            faults[name] = found
        assert page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth") <= 0, name
        shoot(page, f"{name}-{called}")

    def sign_in(page: Page, token: str) -> None:
        page.goto("/login")
        page.get_by_label("Token").fill(token)
        page.get_by_label("Your name").fill("Ann")
        page.get_by_role("button", name="Sign in").click()

    expected = "responded with a status of 4"
    with (
        dashboard_served(shop.database_url, token=TOKEN, read_token=READ_TOKEN) as address,
        looking(browser, shop, expected=expected, base_url=address, viewport=size) as page,
    ):
        page.goto("/failures")
        seen(page, "login", "Token")
        sign_in(page, "not the token")
        seen(page, "login-wrong", "That is not the token")
        sign_in(page, TOKEN)
        expect(page.get_by_role("button", name="Sign out")).to_be_visible()
        page.goto(f"/sagas/{uuid4()}")
        seen(page, "unknown-saga", "No saga has the id")
        page.goto("/nowhere")
        seen(page, "nowhere", "Not found")
        page.goto("/sagas?where=customer")
        seen(page, "invalid", "write FIELD=VALUE")

        page.goto(f"/sagas/{waiting}")
        page.locator("summary", has_text="Abandon").click()
        page.get_by_label("Reason").last.fill("settled by hand")
        reader = page.context.new_page()
        sign_in(reader, READ_TOKEN)
        reader.wait_for_url("**/")
        page.get_by_role("button", name="Abandon this saga").click()
        seen(page, "read-only", "may look and not act")

    with looking(browser, shop, viewport=size) as page:
        page.goto(f"/sagas/{waiting}")
        page.locator("summary", has_text="Abandon").click()
        page.get_by_label("Reason").last.fill("settled by hand")
        shop.client.cancel(waiting, reason="too wet")
        expect(page.locator("h1")).to_contain_text("compensated")
        page.get_by_role("button", name="Abandon this saga").click()
        seen(page, "refused-action", "abandon was refused")
    assert faults == {}
