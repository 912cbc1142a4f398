"""Redis as a broker, as far as it goes without one: settings, and messages as fields of an entry."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from messaging.envelope import Envelope, to_queue
from messaging.errors import SettingsError
from messaging.redis import fields
from messaging.redis.server import Client, Server
from messaging.settings import MessagingSettings
from messaging.wiring import transport_from


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("url", ["redis://ann:secret@localhost/3", "rediss://localhost", "unix:///run/redis.sock?db=3"])
def test_a_url_of_redis_makes_a_transport_over_redis(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("MESSAGING_BROKER_URL", url)
    monkeypatch.setenv("MESSAGING_PREFIX", "shop.")
    monkeypatch.setenv("MESSAGING_REDIS_SURVIVES_RESTART", "true")

    transport = transport_from(MessagingSettings())

    assert transport.full_name("payments") == "shop.queue:payments"
    assert transport.promises.survives_restart


def test_without_the_client_for_redis_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESSAGING_BROKER_URL", "redis://ann:secret@localhost")
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)

    with pytest.raises(SettingsError, match=r"sagasmith\[redis\]") as caught:
        transport_from(MessagingSettings())
    assert "secret" not in str(caught.value)


def test_the_client_for_redis_is_loaded_only_where_redis_is_used() -> None:
    program = (
        "import sys, messaging.wiring as w, messaging.settings as s; from pydantic import SecretStr; "
        "w.transport_from(s.MessagingSettings(broker_url=SecretStr('memory://'))); print('redis' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONPATH": _ROOT}
    )
    assert done.stdout.strip() == "False"


_ROOT = str(Path(__file__).resolve().parents[3])


@pytest.mark.parametrize(
    "url",
    [
        "redis://ann:p%40ss-word@host:6379/1",
        "redis://:p%40ss-word@host",
        "rediss://host/1?password=p%40ss-word",
    ],
)
def test_a_password_is_in_no_text(url: str) -> None:
    server = Server(url)
    texts = f"{server} {server!r} {server.told(OSError(f'no way to {url} with p@ss-word'))}"
    assert "p@ss-word" not in texts
    assert "p%40ss-word" not in texts
    assert "host" in str(server)


def read(*words: bytes) -> tuple[Envelope, int, str]:
    return fields.decoded(fields.by_name(words))


def test_what_another_client_wrote_without_any_property_can_be_read() -> None:
    assert read(b"body", b"{}") == (Envelope("", b"{}", content_type=""), 1, "")


def test_seconds_are_an_instant_as_well() -> None:
    envelope, _, problem = read(b"body", b"{}", b"timestamp", b"1767225600")
    assert (envelope.timestamp, problem) == (datetime(2026, 1, 1, tzinfo=UTC), "")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ((b"type", b"\xff", b"body", b"{}"), "type is not UTF-8"),
        ((b"headers", b"{", b"body", b"{}"), "'headers' is no JSON"),
        ((b"headers", b"[1]", b"body", b"{}"), "'headers' is no JSON object"),
        ((b"headers", b"[" * 100_000, b"body", b"{}"), "'headers' is no JSON"),
        ((b"headers", b'{"n":' + b"9" * 5000 + b"}", b"body", b"{}"), "'headers' is no JSON"),
        ((b"headers", b"\xff", b"body", b"{}"), "'headers' is no JSON"),
        ((b"type", b"charge"), "no field 'body'"),
    ],
)
def test_what_cannot_be_read_says_why_and_keeps_the_rest(words: tuple[bytes, ...], problem: str) -> None:
    envelope, attempt, told = read(*words, b"message-id", b"m-1")
    assert problem in told
    assert (envelope.message_id, attempt) == ("m-1", 1)


@pytest.mark.parametrize("raw", [b"yesterday", b"9" * 30, b"\xff", b"", b"0001-01-01T00:00:00+23:59"])
def test_absurd_instants_and_attempts_harm_nothing(raw: bytes) -> None:
    envelope, attempt, problem = read(b"body", b"{}", b"timestamp", raw, b"attempt", raw)
    assert (envelope.body, attempt, problem) == (b"{}", 1, "")


def test_headers_of_any_shape_become_plain_values() -> None:
    envelope, _, _ = read(b"body", b"{}", b"headers", b'{"a":{"b":[1]},"c":NaN,"d":null,"e":true}')
    assert envelope.headers == {"a": '{"b": [1]}', "c": "NaN", "d": None, "e": True}


@pytest.mark.parametrize("envelope", [Envelope("\ud800", b""), Envelope("m", b"", headers={"n": float("nan")})])
def test_what_no_reader_could_read_is_not_written(envelope: Envelope) -> None:
    with pytest.raises(ValueError, match=r"surrogate|NaN|nan|JSON"):
        fields.encoded(envelope, "", to_queue("orders"))


class _Forgetful:
    """A server's connections whose greeting forgets that it was cancelled, as `asyncio.wait_for` may."""

    is_connected = True

    def __init__(self, outcome: Exception | None) -> None:
        self.outcome, self.greeting = outcome, asyncio.Event()

    def make_connection(self) -> _Forgetful:
        return self

    async def connect(self) -> None:
        self.greeting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if self.outcome is not None:
                raise self.outcome from None

    def pack_commands(self, commands: object) -> list[bytes]:
        return []

    async def send_packed_command(self, packed: object, *, check_health: bool) -> None: ...

    async def read_response(self, *, disable_decoding: bool) -> bytes:
        return b"OK"

    async def disconnect(self, *, nowait: bool) -> None: ...


@pytest.mark.parametrize("outcome", [None, ConnectionError("cut")], ids=["connected", "cut"])
async def test_a_command_cancelled_while_it_connects_is_cancelled(
    monkeypatch: pytest.MonkeyPatch, outcome: Exception | None
) -> None:
    connections = _Forgetful(outcome)
    monkeypatch.setattr(Server, "connections", lambda _: connections)
    command: asyncio.Task[Any] = asyncio.create_task(Client(Server("redis://localhost")).command("PING"))
    await connections.greeting.wait()

    command.cancel()

    with pytest.raises(asyncio.CancelledError):
        await command
