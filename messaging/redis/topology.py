"""Queues, exchanges and bindings as they stand in the server, and which streams a message goes to."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from messaging.envelope import Destination
from messaging.errors import TopologyMismatch, TransportError
from messaging.redis import scripts
from messaging.redis.keys import Keys
from messaging.redis.lua import run
from messaging.redis.server import SERVER_ERRORS, Client
from messaging.routing import matches
from messaging.transport import Binding, QueueSpec

log = logging.getLogger(__name__)

_ROUTES_KEPT: Final = 4096
_VERSION: Final = "version"
_KIND: Final = "kind"


@dataclass(frozen=True, slots=True)
class Route:
    """Where a message goes."""

    streams: tuple[str, ...]
    bindings: str = ""
    """The key of the bindings it was chosen by; empty when it goes straight to a queue."""
    version: str = ""
    """Theirs; with another one the route is void."""


@dataclass(slots=True)
class _Exchange:
    """The bindings of an exchange as last seen."""

    version: str
    kind: str
    bound: list[tuple[Binding, str]]
    routes: dict[str, Route] = field(default_factory=dict[str, Route])
    outdated: bool = False


class Topology:
    """What was declared is remembered, and declared again when the server has lost it.

    A publisher routes by the bindings as it last saw them, and names their version: where they have changed
    since, the server takes nothing and they are read again. So nothing is ever sent by bindings of the past.
    """

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self.keys = keys
        self._specs: dict[str, QueueSpec] = {}
        self._exchanges: dict[str, _Exchange] = {}

    async def declare(self, specs: Iterable[QueueSpec]) -> None:
        """Create what is missing and remember it.

        Raises:
            TopologyMismatch: a queue has another owner, or an exchange is of another kind.
            TransportError: the server is away, or does not let us.
        """
        for spec in specs:
            await self._declare(spec)
            self._specs[spec.name] = spec

    async def restore(self) -> None:
        """Declare everything again; what cannot be is told in the log.

        Raises:
            RedisError, NotSent: the server is away.
        """
        for spec in list(self._specs.values()):
            try:
                await self._run_declaration(spec)
            except TopologyMismatch as problem:
                log.warning("not declared again: %s", problem)

    def declared_here(self, destination: Destination) -> bool:
        """Whether it was this process that declared the queue which a destination names."""
        return not destination.exchange and any(
            self.keys.full(name) == self.keys.stream_of(destination) for name in self._specs
        )

    async def route(self, destination: Destination) -> Route:
        """The streams for a destination, to the best of our knowledge.

        Raises:
            RedisError, NotSent: the bindings had to be read and the server is away.
        """
        if not destination.exchange:
            return Route((self.keys.stream_of(destination),))
        key = self.keys.bindings_of(destination)
        exchange = self._exchanges.get(key)
        if exchange is None or exchange.outdated:
            exchange = self._exchanges[key] = await self._reread(key, exchange)
        route = exchange.routes.get(destination.routing_key)
        if route is None:
            if len(exchange.routes) >= _ROUTES_KEPT:
                exchange.routes.clear()
            route = exchange.routes[destination.routing_key] = _route(key, exchange, destination.routing_key)
        return route

    def outdated(self, key: str) -> None:
        """An exchange's bindings have changed, so they are to be read again."""
        if (exchange := self._exchanges.get(key)) is not None:
            exchange.outdated = True

    async def _reread(self, key: str, before: _Exchange | None) -> _Exchange:
        """Read an exchange's bindings.

        A server that has lost everything gets back those we know: else nothing would be kept for a
        consumer that has not come back yet.
        """
        now = await self._read(key)
        if before is not None and before.bound and not now.version:
            log.warning("the bindings at %r are gone; they are put back as they were", key)
            await self._remember(key, before)
            now = await self._read(key)
        return now

    async def _declare(self, spec: QueueSpec) -> None:
        try:
            async with asyncio.timeout(self._client.server.answer_timeout.total_seconds()):
                await self._run_declaration(spec)
        except SERVER_ERRORS as problem:
            raise TransportError(
                f"queue {self.keys.full(spec.name)!r} could not be declared on {self._client.server}: "
                f"{self._client.server.told(problem)}."
            ) from problem

    async def _run_declaration(self, spec: QueueSpec) -> None:
        queue = self.keys.queue(spec.name)
        arguments = [spec.owner, str(spec.delivery_limit), _milliseconds(spec.expires_after), uuid.uuid4().hex]
        for binding in spec.bindings:
            arguments += binding.kind, _field(binding, queue.stream)
        keys = [queue.stream, queue.about, queue.dead, *(self.keys.bindings_for(b) for b in spec.bindings)]
        otherwise: list[bytes] = await run(self._client, scripts.DECLARE, keys, *arguments)
        if otherwise:
            raise _mismatch(spec, queue.about, *(word.decode(errors="replace") for word in otherwise))

    async def _read(self, key: str) -> _Exchange:
        answer: list[bytes] = await self._client.command("HGETALL", key)
        texts = [word.decode(errors="replace") for word in answer]
        found = dict(zip(texts[::2], texts[1::2], strict=True))
        exchange = _Exchange(found.pop(_VERSION, ""), found.pop(_KIND, ""), [])
        exchange.bound = [bound for name in found if (bound := _bound(name)) is not None]
        return exchange

    async def _remember(self, key: str, exchange: _Exchange) -> None:
        streams = dict.fromkeys(stream for _, stream in exchange.bound)
        fields = [_field(binding, stream) for binding, stream in exchange.bound]
        version = uuid.uuid4().hex
        await run(self._client, scripts.REMEMBER, [key, *streams], exchange.kind, version, *fields)


def _route(key: str, exchange: _Exchange, routing_key: str) -> Route:
    matching = (stream for binding, stream in exchange.bound if matches(binding, routing_key))
    return Route(tuple(dict.fromkeys(matching)), key, exchange.version)


def _field(binding: Binding, stream: str) -> str:
    return json.dumps([binding.kind, binding.routing_key, stream], ensure_ascii=False, separators=(",", ":"))


def _bound(field_name: str) -> tuple[Binding, str] | None:
    """A binding as it was declared, by whomever; None for what is none."""
    try:
        words: Any = json.loads(field_name)
        kind, routing_key, stream = words
    except (ValueError, TypeError):
        return None
    return Binding(str(routing_key), kind=kind), str(stream)


def _milliseconds(duration: timedelta | None) -> str:
    return "" if duration is None else str(max(1, round(duration / timedelta(milliseconds=1))))


def _mismatch(spec: QueueSpec, about: str, what: str, key: str, found: str) -> TopologyMismatch:
    match what:
        case "owner":
            text = (
                f"queue {key!r} belongs to {found}, not to {spec.owner}. Two systems, or a restored copy of one, "
                "must not take each other's messages: give this one a prefix of its own. "
                f"If the other owner is gone for good: HDEL {about} owner."
            )
        case "kind":
            text = (
                f"exchange {key!r} exists as {found!r}, and queue {spec.name!r} binds to it otherwise. "
                "Change the binding, or use another exchange."
            )
        case _:
            text = (
                f"the key {key!r} of queue {spec.name!r} holds a {found}, not a stream. "
                "Another program uses the name: choose a prefix, or another database."
            )
    return TopologyMismatch(text)
