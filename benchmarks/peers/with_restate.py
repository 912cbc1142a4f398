"""Restate: a workflow of three steps, `ctx.run`, each recorded by its server; prints one JSON line.

    python -m benchmarks.peers.with_restate --server path/to/restate-server --sagas 300 --in-flight 100

The server (one node, its usual durability), the workflow's endpoint and the client that calls it run beside each
other on loopback, each in a process of its own. Its steps are functions that are called: nothing is sent to a
participant. Processor time is of the endpoint and of the client; the server's, which is engine, log and database in
one, is not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import hypercorn.asyncio
import restate
from hypercorn.config import Config
from restate import Context, Service, TerminalError

from benchmarks.numbers import Cpu, percentile

ORDER = {"order": 12345, "customer": "customer-42", "lines": [{"sku": "abc", "quantity": 1}]}
_STARTS_WITHIN = 60.0

orders = Service("orders")


@orders.handler()
async def three_steps(ctx: Context, order: dict[str, object]) -> list[str]:
    async def refuse() -> str:
        raise TerminalError("not abroad")

    references = [
        await ctx.run_typed("reserve-stock", lambda: f"s-{order['order']}"),
        await ctx.run_typed("charge-card", lambda: f"c-{order['order']}"),
    ]
    try:
        if order["refused"]:
            await ctx.run_typed("ship-order", refuse)
        return [*references, await ctx.run_typed("ship-order", lambda: f"p-{order['order']}")]
    except TerminalError:
        await ctx.run_typed("refund-card", lambda: "refunded")
        await ctx.run_typed("release-stock", lambda: "released")
        return []


async def serve(port: int) -> None:
    """Answer the server until killed."""
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.h2_max_concurrent_streams = 5000
    config.accesslog = config.errorlog = None
    await hypercorn.asyncio.serve(restate.app([orders]), config)


def free_ports(number: int) -> list[int]:
    """Ports of loopback that nobody uses now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def started(*command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process beside this one, gone with the block."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=quiet, stderr=quiet)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def server(program: str, ingress: int, admin: int, node: int) -> Iterator[None]:
    """Restate's server, with a folder of its own for what it keeps."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
            "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
            "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{node}",
            "RESTATE_BASE_DIR": folder,
            "RESTATE_LISTEN_MODE": "tcp",
            "RESTATE_DISABLE_TELEMETRY": "true",
            "RUST_LOG": "error",
        }
        with started(program, "--no-logo", **environment):
            yield


async def registered(client: aiohttp.ClientSession, admin: int, port: int) -> None:
    """Tell the server where the workflow is, once both answer."""
    end = time.perf_counter() + _STARTS_WITHIN
    while time.perf_counter() < end:
        try:
            there = {"uri": f"http://127.0.0.1:{port}"}
            async with client.post(f"http://127.0.0.1:{admin}/deployments", json=there) as answer:
                if answer.ok:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.2)
    raise SystemExit(f"Restate's server did not take the deployment within {_STARTS_WITHIN:.0f} s")


class Calls:
    """Calls the workflow, so many times and so many at a time."""

    def __init__(self, client: aiohttp.ClientSession, url: str, options: argparse.Namespace) -> None:
        self._client, self._url, self._options = client, url, options

    async def one(self) -> float:
        """Run one saga, and return its milliseconds."""
        begun = time.perf_counter()
        order = {**ORDER, "refused": self._options.refused}
        key = {"idempotency-key": os.urandom(16).hex()}
        async with self._client.post(self._url, json=order, headers=key, raise_for_status=True) as answer:
            assert len(await answer.json()) == (0 if self._options.refused else 3)
        return (time.perf_counter() - begun) * 1000

    async def many(self, sagas: int) -> list[float]:
        """Run so many; returns the milliseconds of each, in order."""
        numbers, took = iter(range(sagas)), list[float]()

        async def worker() -> None:
            for _ in numbers:
                took.append(await self.one())

        await asyncio.gather(*(worker() for _ in range(self._options.in_flight)))
        return sorted(took)


async def measure(options: argparse.Namespace) -> dict[str, float]:
    """Run it."""
    ingress, admin, node, port = free_ports(4)
    endpoint = (sys.executable, "-m", "benchmarks.peers.with_restate", "--serve", str(port))
    with server(options.server, ingress, admin, node), started(*endpoint) as serving:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=options.in_flight)) as client:
            await registered(client, admin, port)
            calls = Calls(client, f"http://127.0.0.1:{ingress}/orders/three_steps", options)
            await calls.many(min(options.sagas, 50))  # what is made the first time is no saga's cost
            begun, cpu = time.perf_counter(), Cpu(serving.pid)
            took = await calls.many(options.sagas)
            seconds, micros = time.perf_counter() - begun, cpu.micros()
    return {
        "sagas_per_second": round(options.sagas / seconds, 1),
        "p50_ms": round(percentile(took, 50), 1),
        "p99_ms": round(percentile(took, 99), 1),
        "cpu_us_per_saga": round(micros / options.sagas),
        "cpu_us_per_command": round(micros / options.sagas / (5 if options.refused else 3)),
    }


def main() -> None:
    """Parse; be the endpoint, or run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", type=Path, help="the program `restate-server`")
    parser.add_argument("--sagas", type=int, default=300)
    parser.add_argument("--in-flight", type=int, default=100)
    parser.add_argument("--refused", action="store_true")
    parser.add_argument("--serve", type=int, default=0, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve))
    else:
        print(json.dumps(asyncio.run(measure(options))))


if __name__ == "__main__":
    main()
