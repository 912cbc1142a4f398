"""Redeeming reply tokens through the database, on SQLite and PostgreSQL: by both clients, late, forged, twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from pydantic import BaseModel
from sqlalchemy import URL, create_engine

from messaging import Accepted, Command, Context, Failure, Reply, Service
from messaging.envelope import SUCCESS
from messaging.inbox import Answer
from messaging.memory import MemoryTransport
from messaging.settings import MessagingSettings
from orchestrator import (
    ActionRefused,
    BlockingSagaClient,
    Orchestrator,
    Retry,
    Saga,
    SagaClient,
    SagaStatus,
    Step,
    running,
)
from orchestrator.errors import UnknownToken
from orchestrator.settings import OrchestratorSettings
from orchestrator.sql.store import SqlStore
from tests.conformance.stores import make_store, opened, sqlite_url

SECONDS = timedelta(seconds=60)


class Purchase(BaseModel):
    cents: int
    approved_by: str = ""
    refusal: str = ""


class Approved(Reply):
    by: str


class TooDear(Failure):
    limit: int


class AskForApproval(Command[Approved], failures=(TooDear,)):
    cents: int


class Approving(Step[Purchase, Approved]):
    participant = "boss"
    nothing_to_undo = True
    retry = Retry(max_attempts=1)

    def command(self, state: Purchase) -> AskForApproval:
        return AskForApproval(cents=state.cents)

    def on_reply(self, state: Purchase, reply: Approved) -> None:
        state.approved_by = reply.by

    def on_failure(self, state: Purchase, failure: Failure) -> None:
        state.refusal = f"{failure.reason}, {failure.limit}" if isinstance(failure, TooDear) else failure.reason


class Buy(Saga[Purchase]):
    steps = (Approving(),)


@dataclass
class Boss:
    """Who says `accepted` and keeps the tokens."""

    tokens: asyncio.Queue[str] = field(default_factory=asyncio.Queue[str])

    def service(self) -> Service:
        service = Service("boss")

        @service.handles(AskForApproval)
        async def ask(command: AskForApproval, context: Context[None]) -> Approved | TooDear | Accepted:
            self.tokens.put_nowait(context.reply_token)
            return Accepted(within=timedelta(hours=2))

        return service


@pytest.fixture(params=["sqlite", "postgresql"])
async def where(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    text = sqlite_url(tmp_path) if request.param == "sqlite" else request.getfixturevalue("migrated_database")
    store = make_store(request.param, text, None)
    assert isinstance(store, SqlStore)
    await store.close()
    return store.engine.url


@dataclass
class Office:
    """A running orchestrator with its boss, and a client beside it."""

    client: SagaClient
    url: URL
    boss: Boss

    async def asked(self, cents: int = 900) -> tuple[UUID, str]:
        """A saga whose command is accepted, and its token."""
        saga = (await self.client.start(Buy, Purchase(cents=cents))).id
        return saga, await self.boss.tokens.get()

    async def end(self, saga: UUID) -> tuple[SagaStatus, Purchase]:
        row = await self.client.wait(saga, timeout=SECONDS)
        return row.status, await self.client.state(Buy, saga)


@pytest.fixture
async def office(where: URL) -> AsyncIterator[Office]:
    url = where.render_as_string(hide_password=False)
    settings = OrchestratorSettings(database_url=url)
    boss = Boss()
    client_store = SqlStore(url, runs_engine=False)
    async with (
        opened(client_store),
        running(
            Orchestrator(sagas=[Buy]),
            boss.service(),
            settings=settings,
            messaging=MessagingSettings(),
            transport=MemoryTransport(),
        ),
    ):
        yield Office(SagaClient(client_store.engine), where, boss)


async def test_a_token_answers_its_command_with_a_reply(office: Office) -> None:
    saga, token = await office.asked()

    assert await office.client.complete(token, Approved(by="ann"), by="ann", reason="looks fine") == saga

    assert await office.end(saga) == (SagaStatus.COMPLETED, Purchase(cents=900, approved_by="ann"))


async def test_a_token_answers_its_command_with_a_failure(office: Office) -> None:
    saga, token = await office.asked()

    await office.client.complete(token, TooDear(reason="no", limit=500))

    assert await office.end(saga) == (SagaStatus.COMPENSATED, Purchase(cents=900, refusal="no, 500"))


async def test_an_answer_that_is_not_of_its_type_is_refused_and_a_right_one_counts_later(office: Office) -> None:
    saga, token = await office.asked()

    with pytest.raises(ActionRefused, match="the body is not a Approved"):
        await office.client.complete(token)
    await office.client.complete(token, Answer(SUCCESS, body=b'{"by": "bob"}'))

    assert await office.end(saga) == (SagaStatus.COMPLETED, Purchase(cents=900, approved_by="bob"))


async def test_a_token_is_refused_with_why_when_its_saga_has_ended(office: Office) -> None:
    saga, token = await office.asked()
    await office.client.complete(token, Approved(by="ann"))
    await office.end(saga)

    with pytest.raises(ActionRefused, match="it is completed"):
        await office.client.complete(token, Approved(by="eve"))
    assert (await office.end(saga))[1].approved_by == "ann"


async def test_of_ten_who_redeem_one_token_at_once_one_is_heard(office: Office) -> None:
    saga, token = await office.asked()

    async def redeem(name: str) -> bool:
        try:
            await office.client.complete(token, Approved(by=name))
        except ActionRefused:
            return False
        return True

    heard = await asyncio.gather(*(redeem(str(n)) for n in range(10)))

    assert heard.count(True) == 1
    assert (await office.end(saga))[1].approved_by == str(heard.index(True))


async def test_a_token_that_is_made_up_is_unknown(office: Office) -> None:
    _, token = await office.asked()
    made_up = token[:-1] + ("A" if token[-1] != "A" else "B")

    with pytest.raises(UnknownToken):
        await office.client.complete(made_up, Approved(by="eve"))


async def test_a_client_without_coroutines_redeems_a_token_too(office: Office) -> None:
    saga, token = await office.asked()
    drivers = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}
    engine = create_engine(office.url.set(drivername=drivers[office.url.get_backend_name()]))

    def redeem() -> UUID:
        return BlockingSagaClient(engine).complete(token, Approved(by="ann"))

    try:
        assert await asyncio.to_thread(redeem) == saga
    finally:
        engine.dispose()
    assert (await office.end(saga))[0] is SagaStatus.COMPLETED
