"""Whether a service answers at an address, told by its protocol and not by its port."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

# RabbitMQ takes three seconds to refuse a login.
_TIMEOUT_SECONDS = 5.0


class NotAnswering(Exception):
    """Nothing usable answers at a URL; the text says why, without the password."""


def probe_amqp(url: str) -> None:
    """Log in to a RabbitMQ broker, as far as the tuning that follows a login it accepts.

    Raises:
        NotAnswering: nothing listens, it is not AMQP 0-9-1, or it refuses the login.
    """
    address = urlsplit(url)
    user, password = unquote(address.username or "guest"), unquote(address.password or "guest")
    with _connected(address.hostname, address.port or 5672) as connection:
        connection.sendall(b"AMQP\x00\x00\x09\x01")
        if _amqp_method(connection) != (10, 10):  # connection.start
            raise NotAnswering("it does not speak AMQP 0-9-1")
        response = f"\0{user}\0{password}".encode()
        body = struct.pack(">HHI", 10, 11, 0)  # connection.start-ok without client properties
        body += b"\x05PLAIN" + struct.pack(">I", len(response)) + response + b"\x05en_US"
        connection.sendall(struct.pack(">BHI", 1, 0, len(body)) + body + b"\xce")
        if _amqp_method(connection) != (10, 30):  # connection.tune
            raise NotAnswering(f"it refuses the login of user {user!r}")


def probe_postgres(url: str) -> None:
    """Log in to PostgreSQL as a user who may create databases.

    Raises:
        NotAnswering: nothing listens, it is not PostgreSQL, or the user cannot log in or create databases.
    """
    import psycopg  # here, because the rest of the module needs the standard library only

    try:
        with psycopg.connect(url, connect_timeout=int(_TIMEOUT_SECONDS), autocommit=True) as connection:
            row = connection.execute(
                "SELECT rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = current_user"
            ).fetchone()
    except psycopg.Error as error:
        raise NotAnswering(str(error).strip().splitlines()[0]) from error
    if row is None or not row[0]:
        raise NotAnswering("its user may not create databases")


def probe_redis(url: str) -> None:
    """Send a PING to Redis, after logging in when the URL has a password.

    Raises:
        NotAnswering: nothing listens, it is not Redis, or it refuses the login.
    """
    address = urlsplit(url)
    with _connected(address.hostname, address.port or 6379) as connection:
        if address.password:
            words = [unquote(address.username or "default"), unquote(address.password)]
            _redis_call(connection, ["AUTH", *words], expected=b"+OK")
        _redis_call(connection, ["PING"], expected=b"+PONG")


def _redis_call(connection: socket.socket, words: list[str], *, expected: bytes) -> None:
    parts = [word.encode() for word in words]
    connection.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts))
    answer = _received(connection, 1)
    while not answer.endswith(b"\r\n") and len(answer) < 512:
        answer += _received(connection, 1)
    if not answer.startswith(expected):
        raise NotAnswering(f"it answers {words[0]} with {answer[:80]!r}")


def _amqp_method(connection: socket.socket) -> tuple[int, int]:
    """Read one method frame; returns the class and method ids, (0, 0) for what is no method frame."""
    header = _received(connection, 7)
    kind, _channel, size = struct.unpack(">BHI", header)
    if kind != 1 or not 4 <= size <= 128 * 1024:
        return 0, 0
    class_id, method_id = struct.unpack(">HH", _received(connection, size + 1)[:4])
    return class_id, method_id


@contextmanager
def _connected(host: str | None, port: int) -> Iterator[socket.socket]:
    try:
        with socket.create_connection((host or "127.0.0.1", port), timeout=_TIMEOUT_SECONDS) as connection:
            yield connection
    except OSError as error:
        raise NotAnswering(str(error)) from error


def _received(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        piece = connection.recv(size - len(received))
        if not piece:
            raise NotAnswering("it closed the connection")
        received += piece
    return received
