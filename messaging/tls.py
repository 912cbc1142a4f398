"""TLS towards a broker, from settings alone."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from messaging.errors import SettingsError

if TYPE_CHECKING:
    from messaging.settings import MessagingSettings


def tls_context(settings: MessagingSettings) -> ssl.SSLContext | None:
    """What the `tls_*` settings ask for; None when there are none, and the URL says all.

    Raises:
        SettingsError: they do not fit the URL or one another, or a file cannot be used; the text names the setting.
    """
    given = [name for name in settings.model_fields_set if name.startswith("tls_") and getattr(settings, name)]
    if not given:
        return None
    _refuse_unfit(settings, sorted(given))
    context = ssl.create_default_context(cafile=_file("ca_file", settings.tls_ca_file))
    if settings.tls_certificate_file is not None:
        _show_certificate(context, settings)
    return context


def _refuse_unfit(settings: MessagingSettings, given: list[str]) -> None:
    names = ", ".join(f"MESSAGING_{name.upper()}" for name in given)
    scheme = urlsplit(settings.url).scheme
    if scheme == "rediss":
        raise SettingsError(
            f"{names}: for Redis, say it in MESSAGING_BROKER_URL: rediss://...?ssl_ca_certs=FILE&ssl_certfile=FILE"
        )
    if scheme != "amqps":
        raise SettingsError(f"{names} without TLS: MESSAGING_BROKER_URL is {settings.shown_url}, not amqps://...")
    if settings.tls_certificate_file is None and (settings.tls_key_file or settings.tls_key_password):
        raise SettingsError("MESSAGING_TLS_KEY_FILE without MESSAGING_TLS_CERTIFICATE_FILE. Name both, or neither")


def _show_certificate(context: ssl.SSLContext, settings: MessagingSettings) -> None:
    """Have the broker shown our own certificate."""
    certificate = _file("certificate_file", settings.tls_certificate_file)
    assert certificate is not None
    key = _file("key_file", settings.tls_key_file)
    password = settings.tls_key_password
    try:
        # Never left to ask at the terminal, which is what a key with a password does otherwise.
        context.load_cert_chain(certificate, key, lambda: password.get_secret_value() if password else "")
    except (ssl.SSLError, OSError, ValueError) as problem:
        raise SettingsError(
            f"MESSAGING_TLS_CERTIFICATE_FILE {certificate} with MESSAGING_TLS_KEY_FILE {key or '(in the same file)'} "
            f"cannot be used: {_said(problem)}. Both are PEM; a key with a password needs MESSAGING_TLS_KEY_PASSWORD"
        ) from problem


def _file(setting: str, path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        with path.open("rb"):
            pass
    except OSError as problem:
        raise SettingsError(f"MESSAGING_TLS_{setting.upper()} {path} cannot be read: {problem.strerror}") from problem
    return str(path)


def _said(problem: Exception) -> str:
    return getattr(problem, "reason", None) or str(problem) or type(problem).__name__
