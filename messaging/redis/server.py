"""The server: where it is, how it is greeted, and connections that carry commands to it and raw answers back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, TypeAlias
from urllib.parse import unquote, urlsplit, urlunsplit

from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError

# What redis-py raises for a server that is away, slow or of another opinion.
SERVER_ERRORS: Final = (RedisError, OSError, TimeoutError, EOFError)

Word: TypeAlias = str | bytes | int | float
Command: TypeAlias = Sequence[Word]


class NotSent(ConnectionError):
    """There is no connection, so nothing has left: it may be tried again without thinking."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where the server is and how to greet it.

    Args:
        url: `redis://`, `rediss://` or `unix://`, with what redis-py understands in its query.
        app_id: the client's name as the server shows it.
        answer_timeout: a command without an answer for so long ends its connection.
        connect_timeout: how long one attempt to connect may take.
    """

    url: str
    app_id: str = ""
    answer_timeout: timedelta = timedelta(seconds=10)
    connect_timeout: timedelta = timedelta(seconds=10)

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        account, at, host = parts.netloc.rpartition("@")
        user, colon, _ = account.partition(":")
        return urlunsplit(parts._replace(netloc=f"{user}{colon and ':***'}{at}{host}", query=""))

    def __repr__(self) -> str:
        return f"Server({self})"

    def masked(self, text: str) -> str:
        """The text without the password, in case a library wrote it there."""
        parts = urlsplit(self.url)
        named = (pair.partition("=") for pair in parts.query.split("&"))
        written = [parts.password or "", *(value for name, _, value in named if name.endswith("password"))]
        for secret in {*written, *map(unquote, written)}:
            if len(secret) > 2:
                text = text.replace(secret, "***")
        return text

    def told(self, problem: BaseException) -> str:
        """What an exception says, without the password, or its name when it says nothing."""
        text = f"{type(problem).__name__}: {problem}" if str(problem) else type(problem).__name__
        return self.masked(text)

    def connections(self) -> Any:
        """A maker of connections that neither decode answers nor send anything a second time by themselves.

        Raises:
            ValueError: the URL cannot be used.
        """
        pool: Any = ConnectionPool
        return pool.from_url(
            self.url,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            client_name="-".join(self.app_id.split()) or None,
            socket_timeout=self.answer_timeout.total_seconds(),
            socket_connect_timeout=self.connect_timeout.total_seconds(),
        )


def refused(problem: BaseException) -> bool:
    """Whether the server is there and does not want us, so that waiting does not help."""
    return isinstance(problem, AuthenticationError | ResponseError)


@dataclass(eq=False)
class Client:
    """Some connections to the server, made when they are needed and kept for the next."""

    server: Server
    at_most: int = 8
    """How many connections may be open at a time; more commands wait for one."""
    _idle: list[Any] = field(default_factory=list[Any])
    _closed: bool = False

    def __post_init__(self) -> None:
        self._make = self.server.connections()
        self._free = asyncio.Semaphore(self.at_most)

    async def command(self, *words: Word) -> Any:
        """Send one command and return its raw answer.

        Raises:
            NotSent: there is no connection.
            RedisError: the server refuses, or the connection was lost after sending.
        """
        (answer,) = await self.commands([words])
        if isinstance(answer, ResponseError):
            raise answer
        return answer

    async def commands(self, commands: Sequence[Command]) -> list[Any]:
        """Send all at once over one connection and return their raw answers, a refusal as the error it is.

        Raises:
            NotSent: there is no connection.
            RedisError: the connection was lost after sending: each may have been carried out.
        """
        async with _heeding_cancellation(), self._free:
            connection = await self._connection()
            kept = False
            try:
                await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
                answers = [await _answer(connection) for _ in commands]
                kept = not self._closed
            finally:
                if kept:
                    self._idle.append(connection)
                else:
                    await _dropped(connection)
            return answers

    async def close(self) -> None:
        """Disconnect; what is under way ends with an error."""
        self._closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            await _dropped(connection)

    async def _connection(self) -> Any:
        while self._idle:
            connection = self._idle.pop()
            if await _usable(connection):
                return connection
            await _dropped(connection)
        if self._closed:
            raise NotSent("the transport is closed")
        connection = self._make.make_connection()
        try:
            # The library's own limit is for the socket alone, not for the greeting that follows.
            async with asyncio.timeout(self.server.connect_timeout.total_seconds()):
                await connection.connect()
        except BaseException as problem:
            await _dropped(connection)
            if isinstance(problem, ResponseError | AuthenticationError):
                raise
            if isinstance(problem, SERVER_ERRORS):
                raise NotSent(self.server.told(problem)) from problem
            raise
        return connection


@asynccontextmanager
async def _heeding_cancellation() -> AsyncGenerator[None]:
    """Be cancelled when cancelled, whatever happened meanwhile.

    redis-py writes commands and its greeting under `asyncio.wait_for`, which in Python 3.11 returns or raises
    what it waited for when that ends in the very moment of a cancellation, and forgets the cancellation.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        yield
    finally:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError


async def _answer(connection: Any) -> Any:
    try:
        return await connection.read_response(disable_decoding=True)
    except ResponseError as refusal:
        return refusal


async def _usable(connection: Any) -> bool:
    """Whether an idle connection still stands: nothing may be there to be read, the end least of all."""
    try:
        can_read = getattr(connection, "can_read", None) or connection.can_read_destructive  # its name before 8.0
        return connection.is_connected and not await can_read()
    except SERVER_ERRORS:
        return False


async def _dropped(connection: Any) -> None:
    with suppress(*SERVER_ERRORS):
        await connection.disconnect(nowait=True)
