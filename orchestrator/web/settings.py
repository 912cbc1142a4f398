"""Settings of the dashboard and its HTTP API: where it listens, and who may look and act."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Final, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode, SettingsConfigDict

from messaging.errors import SettingsError
from messaging.settings import LayeredSettings

Network: TypeAlias = IPv4Network | IPv6Network
EVERYONE: Final = "*"
_SHORTEST_TOKEN: Final = 16


def _token(token: SecretStr | None) -> SecretStr | None:
    value = "" if token is None else token.get_secret_value()
    if token is not None and (len(value) < _SHORTEST_TOKEN or not value.isascii() or not value.isprintable()):
        raise ValueError(f"must have at least {_SHORTEST_TOKEN} printable ASCII characters, so that nobody guesses it")
    return token


def _listen(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:8700 or [::1]:8700")
    return text


def _words(text: object) -> object:
    return [word for part in text.split(",") if (word := part.strip())] if isinstance(text, str) else text


def _networks(words: tuple[str, ...]) -> tuple[str, ...]:
    for word in words:
        ip_network(word, strict=False)
    return words


Token: TypeAlias = Annotated[SecretStr | None, AfterValidator(_token)]
Words: TypeAlias = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]


class DashboardSettings(LayeredSettings):
    """`DASHBOARD_*`, and the table `[dashboard]` of `saga.toml`."""

    model_config = SettingsConfigDict(
        env_prefix="DASHBOARD_",
        env_file=".env",
        toml_file="saga.toml",
        toml_table_header=("dashboard",),
        extra="ignore",
        hide_input_in_errors=True,
    )

    listen: Annotated[str, AfterValidator(_listen)] = Field(
        default="127.0.0.1:8700", description="HOST:PORT where it answers"
    )
    token: Token = Field(default=None, description="Who has this token may look and act")
    read_token: Token = Field(default=None, description="Who has this token may look")
    proxy_user_header: str = Field(
        default="", description="The header in which a trusted proxy says who asks, such as X-Forwarded-User"
    )
    proxy_addresses: Annotated[Words, AfterValidator(_networks)] = Field(
        default=("127.0.0.0/8", "::1"), description="From where that header is believed, with commas between"
    )
    operators: Words = Field(
        default=(), description="Who of those that the proxy names may act, with commas between; * for everyone"
    )
    read_only: bool = Field(default=False, description="Nobody acts here, whoever it is")
    bulk_per_second: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=50, description="How many sagas of one bulk action are asked in a second, at most"
    )
    bulk_sagas: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=10_000, description="How many sagas one bulk action may have"
    )
    complete_per_second: Annotated[int, Field(ge=0, le=10_000)] = Field(
        default=50, description="How many answers by reply token are taken in a second, at most; 0 takes none"
    )

    @property
    def host(self) -> str:
        """The host to listen on."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port to listen on; 0 takes a free one."""
        return int(self.listen.rpartition(":")[2])

    @property
    def open(self) -> bool:
        """Whether nothing is set up by which callers are told apart: then only this machine is answered."""
        return self.token is None and self.read_token is None and not self.proxy_user_header

    @property
    def networks(self) -> tuple[Network, ...]:
        """From where the proxy's header is believed."""
        return tuple(ip_network(word, strict=False) for word in self.proxy_addresses)

    def check(self) -> None:
        """See to it that nobody from outside is let in unasked.

        Raises:
            SettingsError: it would listen beyond this machine, and has neither a token nor a proxy.
        """
        if self.open and not is_loopback(self.host):
            raise SettingsError(
                f"DASHBOARD_LISTEN: {self.listen} is reached from other machines, and nothing tells who may look. "
                "Set DASHBOARD_TOKEN, or DASHBOARD_PROXY_USER_HEADER behind a proxy that signs people in; "
                "or listen on 127.0.0.1"
            )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
