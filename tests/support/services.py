"""Run a command with RabbitMQ, PostgreSQL and Redis at hand, and offer them to tests.

    python -m tests.support.services -- pytest ...

Each service is, in this order: the one its variable names; the one that answers on the usual loopback port; a
private one, started from the installed programs and gone afterwards; the same after installing Debian's packages,
where this is Debian and we are root. What remains missing is said plainly; with CI=true it is a failure.

    SAGASMITH_TEST_AMQP_URL, SAGASMITH_TEST_POSTGRES_URL, SAGASMITH_TEST_REDIS_URL   use this one
    SAGASMITH_TEST_PRIVATE=1   do not look at the usual ports: start private ones

The command finds the addresses in the same variables. Chromium is installed in the same way, see
`tests.support.chromium`, and so are the programs of `tests.support.tools`. Node needs nothing here: it comes with the
environment, see `tests.support.node`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from tests.support import chromium, debian, tools
from tests.support.private import (
    NotInstalled,
    PrivatePostgres,
    PrivateRabbit,
    PrivateRedis,
    PrivateServer,
    ServerDidNotStart,
    free_ports,
)
from tests.support.probes import NotAnswering, probe_amqp, probe_postgres, probe_redis

__all__ = [
    "AMQP",
    "POSTGRES",
    "REDIS",
    "SERVICES",
    "Located",
    "NotInstalled",
    "PrivatePostgres",
    "PrivateRabbit",
    "PrivateRedis",
    "PrivateServer",
    "ServerDidNotStart",
    "Service",
    "ServiceMissing",
    "free_ports",
    "in_ci",
    "locate",
]


@dataclass(frozen=True, slots=True)
class Service:
    """A service that tests need, and how to come by it."""

    title: str
    variable: str
    usual_urls: tuple[str, ...]
    probe: Callable[[str], None]
    private: type[PrivateServer]
    debian_package: str


@dataclass(frozen=True, slots=True)
class Located:
    """A service that answers; `server` is set when it was started for us and is ours to stop."""

    url: str
    origin: str
    server: PrivateServer | None = None


class ServiceMissing(Exception):
    """A service can neither be found nor started; the text says what to do."""

    def __init__(self, service: Service, reason: str) -> None:
        super().__init__(
            f"no {service.title} to test against: {reason}. "
            f"Set {service.variable}, or install it (Debian: apt-get install {service.debian_package})"
        )


AMQP = Service(
    title="RabbitMQ",
    variable="SAGASMITH_TEST_AMQP_URL",
    usual_urls=("amqp://guest:guest@127.0.0.1:5672/",),
    probe=probe_amqp,
    private=PrivateRabbit,
    debian_package="rabbitmq-server",
)
POSTGRES = Service(
    title="PostgreSQL",
    variable="SAGASMITH_TEST_POSTGRES_URL",
    usual_urls=(
        "postgresql://postgres@127.0.0.1:5432/postgres",
        "postgresql://postgres:postgres@127.0.0.1:5432/postgres",
    ),
    probe=probe_postgres,
    private=PrivatePostgres,
    debian_package="postgresql",
)
REDIS = Service(
    title="Redis",
    variable="SAGASMITH_TEST_REDIS_URL",
    usual_urls=("redis://127.0.0.1:6379/0",),
    probe=probe_redis,
    private=PrivateRedis,
    debian_package="redis-server",
)
SERVICES = (AMQP, POSTGRES, REDIS)


def in_ci() -> bool:
    """Whether a missing service is a failure instead of a reason to skip."""
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def locate(service: Service) -> Located:
    """Find a service, or start a private one; never installs anything.

    Raises:
        ServiceMissing: it is not there and cannot be started, or the one its variable names does not answer.
    """
    named = os.environ.get(service.variable)
    if named:
        return _named(service, named)
    if not os.environ.get("SAGASMITH_TEST_PRIVATE"):
        for url in service.usual_urls:
            try:
                service.probe(url)
            except NotAnswering:
                continue
            return Located(url, "already running")
    try:
        server = service.private().start()
    except (NotInstalled, ServerDidNotStart) as error:
        raise ServiceMissing(service, str(error)) from error
    return Located(server.url, "started for this run", server)


def _named(service: Service, url: str) -> Located:
    plain = _without_driver(url)
    try:
        service.probe(plain)
    except NotAnswering as error:
        raise ServiceMissing(service, f"{service.variable} is set, but {error}") from error
    return Located(plain, f"from {service.variable}")


def _without_driver(url: str) -> str:
    """`postgresql://...` for `postgresql+asyncpg://...`; other URLs as they are."""
    scheme, separator, rest = url.partition("://")
    return scheme.partition("+")[0] + separator + rest


@contextmanager
def provided() -> Iterator[list[str]]:
    """Have every service located, installing what is missing where that may be done; stop ours at the end.

    Sets the services' variables in this process, and yields what is missing, one sentence each.
    """
    missing: list[str] = []
    if in_ci():  # also where every address is given: fault tests start servers of their own
        with suppress(debian.InstallFailed):  # each service then says what it lacks
            _install_programs()
    with ExitStack() as started:
        for service in SERVICES:
            try:
                located = _located_or_installed(service)
            except ServiceMissing as error:
                missing.append(str(error))
                continue
            if located.server is not None:
                started.callback(located.server.stop)
            os.environ[service.variable] = located.url
            _say(f"{service.title:<10} {_without_password(located.url)} ({located.origin})")
        missing += _missing_browser()
        missing += filter(None, map(_missing_tool, tools.TOOLS))
        yield missing


def _missing_browser() -> list[str]:
    """Install Chromium if it is not there and that may be done; what is missing then, one sentence."""
    try:
        if not _has_browser():
            _install_programs()
        _say(f"{'Chromium':<10} {chromium.chromium_program()}")
    except (chromium.BrowserMissing, debian.InstallFailed) as error:
        return [str(error)]
    return []


def _missing_tool(tool: tools.Tool) -> str:
    """Install it if it is not there and that may be done; what is missing then, a sentence."""
    try:
        with suppress(tools.ToolMissing):
            tool.program()
            return ""
        if debian.can_install():
            _say(f"installing {tool.name} from Debian")
            tool.install()
        tool.program()
    except (tools.ToolMissing, debian.InstallFailed) as error:
        return str(error)
    return ""


def _has_browser() -> bool:
    try:
        chromium.chromium_program()
    except chromium.BrowserMissing:
        return False
    return True


def _located_or_installed(service: Service) -> Located:
    try:
        return locate(service)
    except ServiceMissing as error:
        if not isinstance(error.__cause__, NotInstalled) or not debian.can_install():
            raise
    try:
        _install_programs()
    except debian.InstallFailed as failure:
        raise ServiceMissing(service, str(failure)) from failure
    return locate(service)


def _install_programs() -> None:
    """Install the programs that are not there, where that may be done."""
    packages = [service.debian_package for service in SERVICES if not _is_installed(service)]
    packages += [] if _has_browser() else chromium.DEBIAN_PACKAGES
    if packages and debian.can_install():
        _say(f"installing {', '.join(packages)} from Debian, without starting them as system services")
        debian.install(packages)


def _is_installed(service: Service) -> bool:
    try:
        service.private.program()
    except NotInstalled:
        return False
    return True


def _without_password(url: str) -> str:
    """The URL as it may be printed."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _say(text: str) -> None:
    print(f"services: {text}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run the command after `--` with the services provided; returns its exit status.

    Whether it ends, fails or is interrupted, what was started for it is stopped.
    """
    command = list(arguments[1:] if arguments[:1] == ["--"] else arguments)
    if not command:
        print("usage: python -m tests.support.services -- COMMAND [ARGUMENT...]", file=sys.stderr)
        return 2
    # Turned into an exception, so that what was started so far is stopped.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit_on_signal)
    with provided() as missing:
        for sentence in missing:
            _say(sentence)
        if missing and in_ci():
            _say("CI is set, so this is a failure")
            return 1
        if missing:
            _say("tests that need them will be skipped")
        return _run(command)


def _exit_on_signal(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _run(command: Sequence[str]) -> int:
    child = subprocess.Popen(command)
    # The terminal sends Ctrl-C to the child as well, and the child says how it ends.
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        status = child.wait()
    except SystemExit:
        child.terminate()
        child.wait()
        raise
    finally:
        signal.signal(signal.SIGINT, previous)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
