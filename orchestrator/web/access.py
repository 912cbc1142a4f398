"""Who asks, and what they may do.

A caller is told by a bearer token, by a trusted proxy's header, or by the cookie of `/login`; with nothing set up, this
machine alone is answered. What a browser sends by itself does not prove that its user meant it: such a write needs
the CSRF token that our pages carry.
"""

from __future__ import annotations

import base64
import getpass
import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from ipaddress import ip_address
from typing import Annotated, Final, TypeAlias
from urllib.parse import urlsplit

from fastapi import Depends, Request
from pydantic import SecretStr

from orchestrator.web.problems import Problem
from orchestrator.web.settings import EVERYONE, DashboardSettings, is_loopback

COOKIE: Final = "saga_session"
CSRF_HEADER: Final = "x-csrf-token"
SESSION_SECONDS: Final = 12 * 3600
_LONGEST_NAME: Final = 100


class Role(StrEnum):
    """What somebody may do."""

    READER = "reader"
    OPERATOR = "operator"


_ROLES: Final = {role.value: role for role in Role}


@dataclass(frozen=True, slots=True)
class Who:
    """Somebody who asks. `ambient`: their browser says so by itself, whoever made it ask."""

    name: str
    role: Role
    ambient: bool


class Access:
    """Tells callers apart.

    Args:
        settings: what is set up.
    """

    def __init__(self, settings: DashboardSettings) -> None:
        self._settings, self._networks = settings, settings.networks
        self._keys = _keys_of(settings)

    @property
    def by_token(self) -> bool:
        """Whether one may sign in with a token."""
        return self._settings.token is not None or self._settings.read_token is not None

    def who(self, request: Request) -> Who:
        """Tell who asks.

        Raises:
            Problem: nobody who may look.
        """
        found = self._by_bearer(request) or self._by_proxy(request) or self._by_cookie(request) or self._here(request)
        if found is None:
            raise self._stranger()
        if self._settings.read_only:
            return Who(found.name, Role.READER, found.ambient)
        return found

    def csrf_token(self, who: Who) -> str:
        """What a form of ours carries, for this caller."""
        return self._signed(f"csrf:{who.name}", who.role)

    def may_write(self, who: Who, csrf: str) -> None:
        """See to it that somebody may act, and means to.

        Raises:
            Problem: they may not, or it is not certain that they mean to.
        """
        if who.role is not Role.OPERATOR:
            text = f"{who.name} may look and not act here. {self._to_act()}"
            raise Problem(HTTPStatus.FORBIDDEN, "read-only", text)
        self.means_it(who, csrf)

    def means_it(self, who: Who, csrf: str) -> None:
        """See to it that a browser was not made to send this by somebody else's page.

        Raises:
            Problem: it is not certain.
        """
        if who.ambient and not hmac.compare_digest(csrf.encode(), self.csrf_token(who).encode()):
            raise Problem(
                HTTPStatus.FORBIDDEN,
                "csrf",
                "the request has no valid CSRF token, so nothing was done. On a page: load it again. "
                "A program sends Authorization: Bearer TOKEN, or X-CSRF-Token with what GET /api/session tells",
            )

    def signed_in(self, token: str, name: str) -> str | None:
        """The cookie for somebody who signs in with a token; None if it is none of ours."""
        role = self._role_of(token)
        if role is None:
            return None
        shown = base64.urlsafe_b64encode((_name(name) or role.value).encode()).decode()
        content = f"{role.value}:{int(time.time()) + SESSION_SECONDS}:{shown}"
        return f"{content}:{self._signed(content, role)}"

    def _by_bearer(self, request: Request) -> Who | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not self.by_token:
            return None
        role = self._role_of(token.strip())
        if role is None:
            raise self._stranger()
        return Who(f"{role.value} token", role, ambient=False)

    def _by_proxy(self, request: Request) -> Who | None:
        header = self._settings.proxy_user_header
        name = _name(request.headers.get(header, "")) if header else ""
        if not name or not self._from_proxy(request):
            return None
        operators = self._settings.operators
        role = Role.OPERATOR if EVERYONE in operators or name in operators else Role.READER
        return Who(name, role, ambient=True)

    def _from_proxy(self, request: Request) -> bool:
        try:
            address = ip_address(request.client.host if request.client else "")
        except ValueError:
            return False
        return any(address in network for network in self._networks)

    def _by_cookie(self, request: Request) -> Who | None:
        content, _, signature = request.cookies.get(COOKIE, "").rpartition(":")
        role = _ROLES.get(content.partition(":")[0])
        if role is None or not hmac.compare_digest(signature.encode(), self._signed(content, role).encode()):
            return None
        _, expires, shown = content.split(":")
        if int(expires) < time.time():
            return None
        return Who(base64.urlsafe_b64decode(shown).decode(), role, ambient=True)

    def _here(self, request: Request) -> Who | None:
        """This machine's own users, where nothing is set up.

        A page from elsewhere whose name was made to lead here asks for another host than this one.
        """
        if not self._settings.open or not is_loopback(request.client.host if request.client else ""):
            return None
        return Who(_user(), Role.OPERATOR, ambient=True) if is_loopback(_asked_for(request)) else None

    def _role_of(self, token: str) -> Role | None:
        if _same(token, self._settings.token):
            return Role.OPERATOR
        return Role.READER if _same(token, self._settings.read_token) else None

    def _signed(self, content: str, role: Role) -> str:
        return hmac.new(self._keys[role], content.encode(), hashlib.sha256).hexdigest()

    def _to_act(self) -> str:
        """What somebody who may only look can do about it."""
        if self._settings.read_only:
            return "Nobody may: DASHBOARD_READ_ONLY is set"
        if self._settings.proxy_user_header:
            return "DASHBOARD_OPERATORS names who may"
        return "Whoever has DASHBOARD_TOKEN may" + (", which is not set" if self._settings.token is None else "")

    def _stranger(self) -> Problem:
        if self._settings.open:
            text = "only this machine is answered, by the name localhost. For others, set DASHBOARD_TOKEN"
            return Problem(HTTPStatus.FORBIDDEN, "not-here", text)
        text = "who asks? Send Authorization: Bearer TOKEN, or sign in at /login"
        if not self.by_token:
            text = f"who asks? The proxy says so in {self._settings.proxy_user_header}, and did not"
        return Problem(HTTPStatus.UNAUTHORIZED, "who", text, {"www-authenticate": "Bearer"})


def _keys_of(settings: DashboardSettings) -> dict[Role, bytes]:
    """What is signed for each role, the same in all processes that have the same tokens.

    An operator's key follows from what operators know alone: who may only look could sign for one otherwise.
    """
    return {Role.OPERATOR: _key(settings.token), Role.READER: _key(settings.read_token or settings.token)}


def _key(token: SecretStr | None) -> bytes:
    if token is None:
        return secrets.token_bytes(32)
    return hashlib.sha256(f"sagasmith\0{token.get_secret_value()}".encode()).digest()


def _same(given: str, token: SecretStr | None) -> bool:
    return token is not None and hmac.compare_digest(given.encode(), token.get_secret_value().encode())


def _asked_for(request: Request) -> str:
    """The host that somebody asked for, without its port; empty if it is none."""
    try:
        return urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


def _name(text: str) -> str:
    """A name as it may be stored and shown."""
    return "".join(one for one in text if one.isprintable()).strip()[:_LONGEST_NAME]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        return "somebody here"


def access_of(request: Request) -> Access:
    """What tells callers apart, in the application that answers this request."""
    access: Access = request.app.state.web.access
    return access


def reading(request: Request) -> Who:
    """Who asks; at least a reader.

    Raises:
        Problem: nobody who may look.
    """
    return access_of(request).who(request)


def acting(request: Request, who: Annotated[Who, Depends(reading)]) -> Who:
    """Who asks for something to be done; an operator who means it.

    Raises:
        Problem: they may not, or it is not certain that they mean to.
    """
    access_of(request).may_write(who, request.headers.get(CSRF_HEADER, ""))
    return who


Reader: TypeAlias = Annotated[Who, Depends(reading)]
Operator: TypeAlias = Annotated[Who, Depends(acting)]
