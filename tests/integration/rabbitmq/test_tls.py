"""TLS as the settings say it, against a broker that demands a certificate of its clients too."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from messaging.errors import SettingsError, TransportError
from messaging.settings import MessagingSettings
from messaging.transport import QueueSpec, Transport
from messaging.wiring import transport_from
from tests.conformance.transport_backends import a_message, bodies, send, take
from tests.support.broker import Broker
from tests.support.certificates import KEY_PASSWORD, SERVER_NAME
from tests.support.tls_rabbit import PrivateTlsRabbit


@pytest.fixture
def rabbit(tls_rabbit: PrivateTlsRabbit) -> PrivateTlsRabbit:
    return tls_rabbit


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def settings(rabbit: PrivateTlsRabbit, url: str = "", **changed: Any) -> MessagingSettings:
    """What a client of this broker needs, unless changed; None leaves a setting out."""
    files = rabbit.certificates
    everything: dict[str, Any] = {
        "broker_url": url or rabbit.tls_url(),
        "tls_ca_file": files.file("ca.pem"),
        "tls_certificate_file": files.file("client.pem"),
        "tls_key_file": files.file("client.key"),
        "tls_key_password": KEY_PASSWORD,
        "patience_seconds": 5.0,
        **changed,
    }
    return MessagingSettings.model_validate({name: value for name, value in everything.items() if value is not None})


async def refusal(transport: Transport, *, within: float = 4) -> str:
    """Why it cannot be opened; told at once, not after the patience."""
    with pytest.raises(TransportError) as refused:
        await asyncio.wait_for(transport.open(), within)
    return str(refused.value)


@pytest.mark.parametrize("fast", [True, False])
async def test_with_the_right_ca_and_certificate_messages_come_and_go(
    rabbit: PrivateTlsRabbit, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fast:
        monkeypatch.setattr("messaging.rabbitmq.transport.unusable", lambda: "there is no way in")
    transport = transport_from(settings(rabbit))
    await transport.open()
    try:
        await transport.declare([QueueSpec("orders")])
        assert await send(transport, a_message(b"over TLS"), to="orders") == [None]
        subscription = await transport.subscribe("orders", prefetch_messages=5)
        deliveries = await take(subscription, 1)
        assert bodies(deliveries) == [b"over TLS"]
        await subscription.ack(deliveries)
    finally:
        await transport.close()


async def test_a_broker_with_a_certificate_of_a_stranger_is_refused(rabbit: PrivateTlsRabbit) -> None:
    stranger = rabbit.certificates.file("stranger.pem")
    told = await refusal(transport_from(settings(rabbit, tls_ca_file=stranger)))
    assert "certificate" in told and "MESSAGING_TLS_CA_FILE" in told
    assert "guest:guest" not in told


@pytest.mark.parametrize("fast", [True, False])
async def test_a_certificate_for_another_name_is_refused_unless_that_name_is_expected(
    rabbit: PrivateTlsRabbit, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fast:
        monkeypatch.setattr("messaging.rabbitmq.transport.unusable", lambda: "there is no way in")
    by_address = rabbit.tls_url("127.0.0.1")
    told = await refusal(transport_from(settings(rabbit, by_address)))
    assert "not valid for '127.0.0.1'" in told and "MESSAGING_TLS_SERVER_NAME" in told

    transport = transport_from(settings(rabbit, by_address, tls_server_name=SERVER_NAME))
    await transport.open()
    await transport.close()


@pytest.mark.parametrize("fast", [True, False])
async def test_a_client_without_the_certificate_that_is_demanded_is_told_so(
    rabbit: PrivateTlsRabbit, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fast:
        monkeypatch.setattr("messaging.rabbitmq.transport.unusable", lambda: "there is no way in")
    nothing = {"tls_certificate_file": None, "tls_key_file": None, "tls_key_password": None}
    # The alert that says so may be lost with the connection, again and again.
    told = await refusal(transport_from(settings(rabbit, patience_seconds=2.0, **nothing)))
    assert "MESSAGING_TLS_CERTIFICATE_FILE" in told


async def test_a_wrong_password_over_tls_is_told_and_never_shown(
    rabbit: PrivateTlsRabbit, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="messaging")
    told = await refusal(transport_from(settings(rabbit, rabbit.tls_url(account="guest:hunter2-secret"))))
    assert "ACCESS_REFUSED" in told
    assert "hunter2" not in told + caplog.text


async def test_a_virtual_host_is_that_of_the_url(rabbit: PrivateTlsRabbit) -> None:
    transport = transport_from(settings(rabbit, rabbit.tls_url(vhost="shop")))
    await transport.open()
    await transport.declare([QueueSpec("only-in-shop")])
    await transport.close()
    for vhost, depth in (("shop", 0), ("", None)):
        async with Broker(rabbit.url + vhost) as broker:
            assert await broker.depth("only-in-shop") == depth


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"tls_ca_file": "nowhere.pem"}, "MESSAGING_TLS_CA_FILE nowhere.pem cannot be read"),
        ({"tls_key_password": "wrong-password"}, "MESSAGING_TLS_KEY_PASSWORD"),
        ({"tls_key_password": None}, "MESSAGING_TLS_KEY_PASSWORD"),
        ({"tls_certificate_file": None}, "without MESSAGING_TLS_CERTIFICATE_FILE"),
        ({"broker_url": "amqp://guest:hunter2@localhost/"}, "is amqp://guest:***@localhost/, not amqps://"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(
    rabbit: PrivateTlsRabbit, changed: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingsError, match=words.replace("*", r"\*")) as refused:
        transport_from(settings(rabbit, **changed))
    assert "hunter2" not in str(refused.value) and "wrong-password" not in str(refused.value)
