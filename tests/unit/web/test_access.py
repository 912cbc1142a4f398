"""Who may look and act: every write without a token or a CSRF token is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from uuid import uuid4

import pytest
from pydantic import SecretStr, ValidationError
from sqlalchemy import func, select

from messaging.errors import SettingsError
from orchestrator.sql.tables import metadata
from orchestrator.web import DashboardSettings
from orchestrator.web.access import Access
from orchestrator.web.app import create_app
from orchestrator.web.serving import served
from tests.unit.web.conftest import READ_TOKEN, TOKEN, Site, opened
from tests.unit.web.paths import paths

OPEN_TO_ALL = {"/livez", "/readyz", "/login"}
BY_A_TOKEN_OF_ITS_OWN = {"/api/complete"}
Bearer = Callable[[str], dict[str, str]]


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def test_strangers_see_nothing(url: str) -> None:
    async with opened(url, token=TOKEN) as site:
        for path in set(paths(site, "GET")) - OPEN_TO_ALL:
            answer = await site.http.get(path)
            assert answer.status_code in (401, 303), path
            assert answer.status_code == 401 or answer.headers["location"] == "/login", path


async def test_every_write_of_a_stranger_is_refused(url: str) -> None:
    async with opened(url, token=TOKEN) as site:
        for path in set(paths(site, "POST")) - BY_A_TOKEN_OF_ITS_OWN:
            answer = await site.http.post(path, json={"action": "retry", "reason": "x", "saga_ids": [str(uuid4())]})
            assert answer.status_code == 401, path


async def test_every_write_without_a_csrf_token_is_refused_where_the_browser_speaks_for_itself(site: Site) -> None:
    writing = {path for path in paths(site, "POST") if not path.endswith("/simulate")}
    for path in writing - OPEN_TO_ALL - BY_A_TOKEN_OF_ITS_OWN:
        for sent in ({}, {"csrf": "made-up"}):
            form = {"action": "retry", "reason": "x", **sent}
            asked = {"json": {"action": "retry", "reason": "x", "saga_ids": [str(uuid4())]}}
            if not path.startswith("/api"):
                asked = {"data": form}
            answer = await site.http.post(path, **asked, headers={"x-csrf-token": sent.get("csrf", "")})
            assert answer.status_code == 403, path
            assert "CSRF" in answer.text, path


@pytest.mark.parametrize(
    ("token", "settings"),
    [(READ_TOKEN, {}), (TOKEN, {"read_only": True}), (READ_TOKEN, {"read_only": True})],
    ids=["reader", "read-only", "reader of read-only"],
)
async def test_every_write_of_somebody_who_may_only_look_is_refused_and_writes_nothing(
    url: str, token: str, settings: dict[str, bool]
) -> None:
    async with opened(url, token=TOKEN, read_token=READ_TOKEN, **settings) as site:
        saga = await site.blocked()
        open_to_them = OPEN_TO_ALL | {"/logout"} | (set() if settings else BY_A_TOKEN_OF_ITS_OWN)
        before = await rows_of(site)
        for path in {re.sub("[0-9a-f-]{36}", str(saga), path) for path in paths(site, "POST")} - open_to_them:
            if path.endswith("/simulate"):
                continue
            asked = {"action": "retry", "reason": "x", "saga_ids": [str(saga)], "token": "t"}
            given = {"json": asked} if path.startswith("/api") else {"data": asked}
            answer = await site.http.post(path, **given, headers=bearer(token))
            assert answer.status_code == 403, path
            assert "read-only" in answer.text or "look and not act" in answer.text, path
        assert await rows_of(site) == before


async def rows_of(site: Site) -> dict[str, int]:
    """How many rows each table has."""
    async with site.store.engine.connect() as connection:
        counts = {table.name: select(func.count()).select_from(table) for table in metadata.sorted_tables}
        return {name: (await connection.execute(count)).scalar_one() for name, count in counts.items()}


async def test_a_reader_looks_and_may_not_act(url: str) -> None:
    async with opened(url, token=TOKEN, read_token=READ_TOKEN) as site:
        saga = await site.blocked()

        seen = await site.http.get(f"/api/sagas/{saga}", headers=bearer(READ_TOKEN))
        asked = {"action": "retry", "reason": "again"}
        refused = await site.http.post(f"/api/sagas/{saga}/actions", json=asked, headers=bearer(READ_TOKEN))
        page = await site.http.get(f"/sagas/{saga}", headers=bearer(READ_TOKEN))

    assert (seen.status_code, refused.status_code) == (200, 403)
    assert refused.json()["type"] == "urn:sagasmith:problem:read-only"
    assert page.status_code == 200 and 'name="action"' not in page.text


async def test_an_operator_with_a_token_needs_nothing_else(url: str) -> None:
    async with opened(url, token=TOKEN) as site:
        saga = await site.blocked()

        asked = {"action": "retry", "reason": "again"}
        answer = await site.http.post(
            f"/api/sagas/{saga}/actions", json=asked, params={"wait": 0}, headers=bearer(TOKEN)
        )

    assert answer.status_code == 202


async def test_a_wrong_token_is_no_token(url: str) -> None:
    async with opened(url, token=TOKEN) as site:
        for wrong in (TOKEN[:-1], TOKEN + "x", "", "é"):
            answer = await site.http.get("/api/sagas", headers={b"authorization": f"Bearer {wrong}".encode()})  # type: ignore[arg-type]
            assert answer.status_code == 401


async def test_somebody_signs_in_acts_and_signs_out(url: str) -> None:
    async with opened(url, token=TOKEN) as site:
        wrong = await site.http.post("/login", data={"token": "guessed", "name": "eve"})
        right = await site.http.post("/login", data={"token": TOKEN, "name": "Ann"})
        cookie = right.headers["set-cookie"].lower()
        session = (await site.http.get("/api/session")).json()
        saga = await site.blocked()
        form = {"action": "retry", "reason": "again", "csrf": session["csrf_token"]}
        acted = await site.http.post(f"/sagas/{saga}/actions", data=form)
        out = await site.http.post("/logout", data={"csrf": session["csrf_token"]})
        after = await site.http.get("/api/session")

    assert (wrong.status_code, right.status_code) == (401, 303)
    assert "httponly" in cookie and "samesite=lax" in cookie and TOKEN not in cookie
    assert (session["user"], session["role"]) == ("Ann", "operator")
    assert (acted.status_code, out.status_code, after.status_code) == (303, 303, 401)


async def test_who_may_only_look_cannot_sign_as_an_operator(url: str) -> None:
    forger = Access(DashboardSettings(token=SecretStr(READ_TOKEN)))  # with all that a reader knows
    cookie = forger.signed_in(READ_TOKEN, "Mallory")
    async with opened(url, read_token=READ_TOKEN) as site:
        assert (await site.http.get("/api/sagas", headers={"cookie": f"saga_session={cookie}"})).status_code == 401


@pytest.mark.parametrize("cookie", ["operator:9999999999:QW5u:00", "x", "::", "operator:1:QW5u", '"'])
async def test_a_made_up_cookie_opens_nothing(url: str, cookie: str) -> None:
    async with opened(url, token=TOKEN) as site:
        assert (await site.http.get("/api/sagas", headers={"cookie": f"saga_session={cookie}"})).status_code == 401


@pytest.mark.parametrize(
    ("peer", "name", "status"),
    [
        (("127.0.0.1", 1), "localhost:8700", 200),
        (("127.0.0.1", 1), "127.0.0.1:8700", 200),
        (("::1", 1), "[::1]:8700", 200),
        (("127.0.0.1", 1), "elsewhere.example", 403),
        (("127.0.0.1", 1), "localhost.elsewhere.example", 403),
        (("192.0.2.7", 1), "localhost", 403),
    ],
)
async def test_with_nothing_set_up_this_machine_alone_is_answered(
    url: str, peer: tuple[str, int], name: str, status: int
) -> None:
    async with opened(url, peer=peer, name=name) as site:
        assert (await site.http.get("/api/sagas")).status_code == status


@pytest.mark.parametrize(
    ("peer", "sent", "user", "role"),
    [
        ("192.0.2.7", {"x-forwarded-user": "ann"}, "ann", "operator"),
        ("192.0.2.7", {"x-forwarded-user": "ben"}, "ben", "reader"),
        ("192.0.2.7", {}, None, None),
        ("192.0.2.8", {"x-forwarded-user": "ann"}, None, None),
    ],
)
async def test_a_proxy_is_believed_from_its_own_address_only(
    url: str, peer: str, sent: dict[str, str], user: str | None, role: str | None
) -> None:
    proxy = {"proxy_user_header": "X-Forwarded-User", "proxy_addresses": "192.0.2.7", "operators": "ann, cleo"}
    async with opened(url, peer=(peer, 1), name="sagas.example", **proxy) as site:
        answer = await site.http.get("/api/session", headers=sent)

    assert (answer.json().get("user"), answer.json().get("role")) == (user, role)
    assert answer.status_code == (200 if user else 401)


@pytest.mark.parametrize("host", ["[", "", "a b", "localhost@elsewhere.example", "127.0.0.1.elsewhere.example"])
async def test_a_host_that_is_none_of_ours_or_no_host_at_all_is_not_answered(site: Site, host: str) -> None:
    for path in ("/", "/api/sagas"):
        assert (await site.http.get(path, headers={"host": host})).status_code == 403


async def test_a_name_is_kept_without_what_no_database_takes(url: str) -> None:
    async with opened(url, token=TOKEN) as site:
        await site.http.post("/login", data={"token": TOKEN, "name": " Ann\0\n" + "x" * 500})
        user = (await site.http.get("/api/session")).json()["user"]

    assert user.startswith("Annx") and len(user) == 100


async def test_what_is_unexpected_is_told_without_details_and_keeps_to_itself(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("a-secret-of-ours")

    monkeypatch.setattr("orchestrator.web.api.list_sagas", broken)
    monkeypatch.setattr("orchestrator.web.pages.list_sagas", broken)
    for path in ("/sagas", "/api/sagas"):
        answer = await site.http.get(path)
        assert answer.status_code == 500 and "a-secret-of-ours" not in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_read_only_is_so_for_everybody(url: str) -> None:
    async with opened(url, read_only=True) as site:
        session = (await site.http.get("/api/session")).json()
        saga = await site.blocked()
        asked = {"action": "retry", "reason": "again"}
        answer = await site.http.post(f"/api/sagas/{saga}/actions", json=asked, headers=await site.csrf())

    assert (session["role"], answer.status_code) == ("reader", 403)
    assert "DASHBOARD_READ_ONLY is set" in answer.json()["detail"]


async def test_listening_for_others_needs_a_token_or_a_proxy(url: str) -> None:
    async with opened(url) as site:
        app = create_app(site.store.engine, settings=DashboardSettings())
        with pytest.raises(SettingsError, match=r"DASHBOARD_LISTEN: 0\.0\.0\.0:0 .*Set DASHBOARD_TOKEN"):
            async with served(app, DashboardSettings(listen="0.0.0.0:0")):
                pass


def test_a_token_that_could_be_guessed_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASHBOARD_TOKEN", "short-secret")

    with pytest.raises(ValidationError, match="16 printable ASCII") as caught:
        DashboardSettings()

    assert "short-secret" not in str(caught.value)


def test_tokens_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASHBOARD_TOKEN", TOKEN)

    assert TOKEN not in repr(DashboardSettings())


async def test_answers_keep_to_themselves(site: Site) -> None:
    for path in ("/", "/api/sagas", "/static/style.css", "/nope", "/api/nope"):
        headers = (await site.http.get(path)).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "access-control-allow-origin" not in headers
