"""Where the broker is, shown without its password."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import timedelta

import aio_pika
from yarl import URL


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is and how to greet it."""

    url: str
    app_id: str = ""
    heartbeat: timedelta = timedelta(seconds=10)
    connect_timeout: timedelta = timedelta(seconds=10)
    ssl_context: ssl.SSLContext | None = None
    server_name: str = ""
    """What the broker's certificate is for, where that is not the URL's host."""

    def __str__(self) -> str:
        url = self._parsed().with_query(None)  # files and more may be named there
        return str(url.with_password("***") if url.password else url)

    def __repr__(self) -> str:
        return f"Broker({self})"

    def _parsed(self) -> URL:
        try:
            return URL(self.url)
        except ValueError:
            return URL("amqp://unreadable-url")

    @property
    def hint(self) -> str:
        """What else to think of when it does not answer: over TLS its reason may be lost with the connection."""
        if self._parsed().scheme != "amqps":
            return ""
        return " It may demand a certificate of its clients: MESSAGING_TLS_CERTIFICATE_FILE, MESSAGING_TLS_KEY_FILE."

    def masked(self, text: str) -> str:
        """The text without the password, in case a library wrote it there."""
        url = self._parsed()
        for secret in (url.raw_password, url.password):
            if secret and len(secret) > 2:
                text = text.replace(secret, "***")
        return text

    def connection(self, purpose: str) -> aio_pika.Connection:
        """A connection that is not connected yet; its name is seen in the broker's management."""
        name = f"{self.app_id} {purpose}".strip()
        url = self._parsed()
        if "heartbeat" not in url.query:
            url = url.update_query(heartbeat=str(max(1, round(self.heartbeat.total_seconds()))))
        made = aio_pika.Connection(url, ssl_context=self.ssl_context, client_properties={"connection_name": name})
        if self.server_name:
            made.kwargs["server_hostname"] = self.server_name  # handed on to the socket's maker as it is
        return made
