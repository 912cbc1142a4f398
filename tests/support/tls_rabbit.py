"""A RabbitMQ of a test's own that speaks TLS, with a second virtual host and a user of few rights."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.certificates import Certificates
from tests.support.private import PrivateRabbit, free_ports

SHIPPED_DEFINITIONS = Path(__file__).parents[2] / "docs" / "deploy" / "rabbitmq" / "definitions.json"
EVERYTHING = {"configure": ".*", "write": ".*", "read": ".*"}
DECLARES_NOTHING = {"configure": "^$", "write": ".*", "read": ".*"}


class PrivateTlsRabbit(PrivateRabbit):
    """Its certificate is for `broker.test` and `localhost`; over TLS a client must show one of the same CA.

    Beside guest, who may do everything in the virtual hosts `/` and `shop`, there is the user clerk, with the
    password `clerk-secret`, who may publish and consume in `/`, and declare nothing. The host `shop` and its other
    users are those of the definitions that we ship.
    """

    certificates: Certificates

    def tls_url(self, host: str = "localhost", account: str = "guest:guest", vhost: str = "") -> str:
        """Where it listens with TLS."""
        return f"amqps://{account}@{host}:{self._tls_port}/{vhost}"

    @property
    def clerk_url(self) -> str:
        """Without TLS, as the user who may declare nothing."""
        return self.url.replace("guest:guest", "clerk:clerk-secret")

    def _prepare(self) -> None:
        super()._prepare()
        (self._tls_port,) = free_ports(1)
        folder = self.directory / "certificates"
        folder.mkdir()
        self.certificates = Certificates.made(folder)
        definitions = self.directory / "definitions.json"
        shipped = json.loads(SHIPPED_DEFINITIONS.read_text("utf-8"))
        definitions.write_text(json.dumps({kind: shipped.get(kind, []) + own for kind, own in _DEFINITIONS.items()}))
        lines = [
            f"load_definitions = {definitions}",
            f"listeners.ssl.1 = 127.0.0.1:{self._tls_port}",
            f"ssl_options.cacertfile = {folder / 'ca.pem'}",
            f"ssl_options.certfile = {folder / 'server.pem'}",
            f"ssl_options.keyfile = {folder / 'server.key'}",
            "ssl_options.verify = verify_peer",
            "ssl_options.fail_if_no_peer_cert = true",
        ]
        with (self.directory / "rabbitmq.conf").open("a") as configuration:
            configuration.write("\n".join(lines) + "\n")


_DEFINITIONS = {
    "vhosts": [{"name": "/"}],
    "users": [
        {"name": "guest", "password": "guest", "tags": "administrator"},
        {"name": "clerk", "password": "clerk-secret", "tags": ""},
    ],
    "permissions": [
        {"user": "guest", "vhost": "/", **EVERYTHING},
        {"user": "guest", "vhost": "shop", **EVERYTHING},
        {"user": "clerk", "vhost": "/", **DECLARES_NOTHING},
    ],
}
