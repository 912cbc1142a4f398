"""Settings, and what is made of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

import messaging
from messaging.errors import SettingsError
from messaging.memory import MemoryTransport
from messaging.settings import MessagingSettings
from messaging.wiring import transport_from


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in MessagingSettings.model_fields:
        monkeypatch.delenv(f"MESSAGING_{name.upper()}", raising=False)


def test_without_settings_messages_stay_in_the_process() -> None:
    assert isinstance(transport_from(MessagingSettings()), MemoryTransport)


def test_the_environment_wins_over_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "saga.toml").write_text('[messaging]\nprefix = "toml."\nqueue_type = "classic"\n')
    monkeypatch.setenv("MESSAGING_PREFIX", "env.")

    settings = MessagingSettings()

    assert (settings.prefix, settings.queue_type) == ("env.", "classic")


def test_a_prefix_stands_before_names_on_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESSAGING_BROKER_URL", "amqp://ann:secret@localhost/shop")
    monkeypatch.setenv("MESSAGING_PREFIX", "shop.")

    assert transport_from(MessagingSettings()).full_name("payments") == "shop.payments"


def test_a_redis_is_not_promised_to_be_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESSAGING_BROKER_URL", "redis://localhost/")
    monkeypatch.setenv("MESSAGING_TOPOLOGY", "passive")

    with pytest.raises(SettingsError, match="MESSAGING_TOPOLOGY=passive is for RabbitMQ"):
        transport_from(MessagingSettings())


def test_passwords_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESSAGING_BROKER_URL", "amqps://ann:secret@broker:5671/shop?cert=secret")

    settings = MessagingSettings()

    assert settings.shown_url == "amqps://ann:***@broker:5671/shop"
    assert settings.url.endswith("cert=secret")
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BROKER_URL", "http://ann:secret@host"),
        ("BROKER_URL", "secret"),
        ("PREFIX", "a b"),
        ("QUEUE_TYPE", "lazy"),
        ("MAX_DEPTH", "1000"),
    ],
)
def test_a_wrong_setting_is_refused_by_name_and_without_its_secret(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"MESSAGING_{name}", value)

    with pytest.raises(ValidationError, match=name.lower()) as caught:
        MessagingSettings()
    assert "secret" not in str(caught.value)


def test_the_names_of_the_package_are_pinned() -> None:
    assert {name for name in messaging.__all__ if getattr(messaging, name) is None} == set()
    assert messaging.__all__[:17] == [
        "Command",
        "Reply",
        "Failure",
        "Accepted",
        "Event",
        "Service",
        "Context",
        "CommandHandler",
        "EventHandler",
        "Retry",
        "QueueOptions",
        "Destination",
        "ServiceRunner",
        "Bus",
        "BlockingBus",
        "run_services",
        "Middleware",
    ]
    assert not hasattr(messaging, "Nothing")


def test_importing_the_package_loads_messages_but_no_client_no_database_and_nothing_that_runs() -> None:
    heavy = "{'sqlalchemy', 'aio_pika', 'pydantic_settings', 'asyncio', 'messaging.transport', 'messaging.service'}"
    program = f"import sys, messaging; print({heavy} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"
