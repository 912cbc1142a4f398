"""What every test may ask for: services, fresh databases, names of its own."""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest

from orchestrator.sql.migrate import upgrade
from tests.support.broker import Broker
from tests.support.chromium import PICTURES
from tests.support.databases import emptied, fresh_database
from tests.support.services import (
    AMQP,
    POSTGRES,
    REDIS,
    NotInstalled,
    PrivatePostgres,
    PrivateRabbit,
    PrivateRedis,
    PrivateServer,
    Service,
    ServiceMissing,
    in_ci,
    locate,
)
from tests.support.tools import PROMTOOL, SYSTEMD_ANALYZE, Tool, ToolMissing

_BEGUN = time.time()
ServerT = TypeVar("ServerT", bound=PrivateServer)


def pytest_configure() -> None:
    """Whatever runs in a shell's background ignores Ctrl-C, and so would each process that a test starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Workers hand reports on as UTF-8, and some tests log what is none."""
    report = yield
    report.sections = [(title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say where pictures of pages are, if this run has made some."""
    pictures = [one for one in PICTURES.glob("*.png") if one.stat().st_mtime >= _BEGUN]
    if pictures:
        terminalreporter.write_line(f"{len(pictures)} pages, as they looked: {PICTURES}")


def _missing(reason: Exception) -> NoReturn:
    """Skip at home, fail where every service is expected."""
    if in_ci():
        pytest.fail(str(reason), pytrace=False)
    pytest.skip(str(reason))


@contextmanager
def _located(service: Service) -> Iterator[str]:
    try:
        located = locate(service)
    except ServiceMissing as missing:
        _missing(missing)
    try:
        yield located.url
    finally:
        if located.server is not None:
            located.server.stop()


@pytest.fixture(scope="session")
def amqp_url() -> Iterator[str]:
    """A RabbitMQ broker, shared with other tests and maybe others' programs: use names of your own."""
    with _located(AMQP) as url:
        yield url


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """`postgresql://...` of a PostgreSQL user who may create databases; for tables, see `postgres_database`."""
    with _located(POSTGRES) as url:
        yield url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis database, shared with others: use keys of your own, flush nothing."""
    with _located(REDIS) as url:
        yield url


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Prometheus' program that checks metrics, rules and the tests of rules."""
    return _program(PROMTOOL)


@pytest.fixture(scope="session")
def systemd_analyze() -> Path:
    """What checks units of systemd."""
    return _program(SYSTEMD_ANALYZE)


def _program(tool: Tool) -> Path:
    try:
        return tool.program()
    except ToolMissing as missing:
        _missing(missing)


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[str]:
    """An empty database of the test's own, as `postgresql+asyncpg://...`."""
    with fresh_database(postgres_url) as url:
        yield url


@pytest.fixture(scope="session")
def _migrated(postgres_url: str) -> Iterator[str]:
    with fresh_database(postgres_url) as url:
        upgrade(url)
        yield url


@pytest.fixture
def migrated_database(_migrated: str) -> Iterator[str]:
    """All tables, empty, as `postgresql+asyncpg://...`; one database for all tests, since making one takes seconds."""
    yield _migrated
    emptied(_migrated)


@pytest.fixture
def prefix() -> str:
    """What the test's names on a shared service begin with, such as `t-1f2e3d4c.`."""
    return f"t-{secrets.token_hex(4)}."


@pytest.fixture
async def broker(amqp_url: str) -> AsyncIterator[Broker]:
    """The broker, with the removal of what the test names; see `Broker`."""
    async with Broker(amqp_url) as broker:
        yield broker


def started(server: ServerT) -> Iterator[ServerT]:
    """What a fixture of a private server does: start it, skip without the program, stop it at the end."""
    try:
        server.start()
    except NotInstalled as missing:
        _missing(missing)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def private_rabbit() -> Iterator[PrivateRabbit]:
    """A RabbitMQ of the test's own, to kill and restart; takes some five seconds to start."""
    yield from started(PrivateRabbit())


@pytest.fixture
def private_postgres() -> Iterator[PrivatePostgres]:
    """A PostgreSQL of the test's own, to kill and restart."""
    yield from started(PrivatePostgres())


@pytest.fixture
def private_redis() -> Iterator[PrivateRedis]:
    """A Redis of the test's own, to kill and restart."""
    yield from started(PrivateRedis())
