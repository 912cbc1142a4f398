"""The demo: a shop's services and its orchestrator in this process, and what becomes of each order."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

from pydantic import SecretStr
from rich.text import Text

from messaging.settings import MessagingSettings
from orchestrator.app import running
from orchestrator.cli import output
from orchestrator.cli.describe import how_it_stands
from orchestrator.cli.exits import CommandError
from orchestrator.cli.happenings import line
from orchestrator.cli.listing import print_table
from orchestrator.cli.watch import followed
from orchestrator.client import SagaClient
from orchestrator.demo import CreateOrderSaga, app, customers, ledgers, orders, payments, stories, warehouse
from orchestrator.instance import SagaStatus
from orchestrator.settings import OrchestratorSettings
from orchestrator.sql.connecting import ConnectionSettings, connect
from orchestrator.status import SagaRow, StatusReader
from orchestrator.words import duration

_TOLD: Final = len(stories.STORIES)
"""So many orders are told one by one; further ones run beside each other."""
_AT_ONCE: Final = 20
_LISTED: Final = 20
_LINE_PAUSE_SECONDS: Final = 0.06
_FIRST_ORDER: Final = 1001
_PATIENCE: Final = timedelta(seconds=60)


class Demo:
    """One run of the demo.

    Args:
        file: of the sagas; the services keep theirs beside it.
        failing: the step that goes wrong in every order, or empty.
        number: how many orders.
    """

    def __init__(self, file: Path, failing: str, number: int) -> None:
        self._file, self._failing, self._number = file.resolve(), failing, number
        self._console = output.console()
        self._started: list[UUID] = []

    async def run(self) -> None:
        """Tell it all; ends by itself."""
        logging.getLogger("messaging").setLevel(logging.CRITICAL)  # the shelf that jams is part of the story
        self._file.parent.mkdir(parents=True, exist_ok=True)
        settings = OrchestratorSettings.model_validate({"database_url": f"sqlite+aiosqlite:///{self._file}"})
        memory = MessagingSettings(broker_url=SecretStr("memory://"))
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(ledgers.opened(self._file.with_name(f"{self._file.stem}-shop.db")))
            parts = (orders, customers, warehouse, payments, app)
            await stack.enter_async_context(running(*parts, settings=settings, messaging=memory))
            engine = connect(settings.url, ConnectionSettings())
            stack.push_async_callback(engine.dispose)
            await self._tell(SagaClient(engine), StatusReader(engine))

    async def _tell(self, client: SagaClient, sagas: StatusReader) -> None:
        self._introduce()
        known = await ledgers.stock_up(
            stories.customers(self._failing, self._number), stories.products(self._failing, self._number)
        )
        told = list(enumerate(stories.stories(self._number), start=known + _FIRST_ORDER))
        for order, story in told[:_TOLD]:
            await self._tell_one(client, sagas, str(order), story)
        if told[_TOLD:]:
            await self._run_the_rest(client, told[_TOLD:])
        await self._conclude(sagas)

    def _introduce(self) -> None:
        self._console.print(
            Text.assemble(
                ("A shop takes orders. ", "bold"),
                "Each is a saga: create the order, reserve credit and stock at once, wait for the\n"
                "payment, ship. The services answer over a bus in this process; every step is in a database.",
            )
        )
        if self._failing:
            self._console.print(f"As you asked, {self._failing} goes wrong each time.")

    async def _tell_one(self, client: SagaClient, sagas: StatusReader, order: str, story: stories.Story) -> None:
        started = await client.start(CreateOrderSaga, story.state(order), key=order)
        self._started.append(started.id)
        expectation = "" if self._failing else f": {story.expectation}"
        self._console.print()
        self._console.print(
            Text(f"Order {order}, {story.customer} buys a {story.product}{expectation}", "bold underline")
        )
        async for happening in followed(sagas, started.id, look_every=0.03, until_blocked=True):
            self._console.print(line(happening, "  "), soft_wrap=True)
            if self._console.is_terminal:
                await asyncio.sleep(_LINE_PAUSE_SECONDS)

    async def _run_the_rest(self, client: SagaClient, rest: list[tuple[int, stories.Story]]) -> None:
        self._console.print()
        self._console.print(f"{len(rest)} more orders, {_AT_ONCE} at a time ...")
        clock = asyncio.get_running_loop().time
        began, room = clock(), asyncio.Semaphore(_AT_ONCE)

        async def order(number: int, story: stories.Story) -> UUID:
            async with room:
                started = await client.start(CreateOrderSaga, story.state(str(number)), key=str(number))
                await client.wait(started.id, timeout=_PATIENCE)
                return started.id

        self._started += await asyncio.gather(*(order(number, story) for number, story in rest))
        self._console.print(f"... have ended, after {duration(timedelta(seconds=clock() - began))}.")

    async def _conclude(self, sagas: StatusReader) -> None:
        rows = [row for saga_id in self._started[:_LISTED] if (row := await sagas.get(saga_id)) is not None]
        self._console.print()
        print_table(self._console, rows)
        if len(self._started) > _LISTED:
            self._console.print(f"and {len(self._started) - _LISTED} more")
        blocked = next((row for row in rows if row.status is SagaStatus.BLOCKED), None)
        if blocked is not None:
            raise CommandError(f"{how_it_stands(blocked)}. That should not happen here; its file is {self._file}")
        for text in self._next_steps(rows):
            self._console.print(text, soft_wrap=True)

    def _next_steps(self, rows: list[SagaRow]) -> list[Text]:
        """What to do next, ready to copy."""
        file = _shown(self._file)
        url = f"--database-url sqlite+aiosqlite:///{file}"
        undone = next((row for row in rows if row.failed_step), rows[-1])
        ask = "select business_key, status, failed_step, error_text from saga_status"
        timeline = f"select * from saga_timeline where saga_id = '{undone.saga_id}'"  # noqa: S608 - to be read
        saga = program_as_typed()
        sqlite = "" if shutil.which("sqlite3") else " (with the program sqlite3, which is not installed here)"
        return [
            Text(f"\nEvery saga is a row you can ask for{sqlite}:", "bold"),
            Text(f'  sqlite3 {file} "{ask}"'),
            Text(f'  sqlite3 {file} "{timeline}"'),
            Text(f"  {saga} show {undone.saga_id} {url}"),
            Text("\nAnd now:", "bold"),
            Text(f"  {saga} demo --fail ShippingOrder      have a step go wrong in every order"),
            Text(f"  {saga} demo --sagas 50                many at once"),
            Text(f"  {saga} --help                         the other commands"),
        ]


def program_as_typed() -> str:
    """How this program is called from here: it may stand in a virtual environment that is not active."""
    here = Path(sys.argv[0])
    if here.name != "saga":
        return "python -m orchestrator"
    return "saga" if shutil.which("saga") else _shown(here.absolute())


def _shown(file: Path) -> str:
    """A file as one types it here."""
    folder = Path.cwd()
    return f"./{file.relative_to(folder)}" if file.is_relative_to(folder) else str(file)
