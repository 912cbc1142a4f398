"""Sagas stuck on purpose, in every way we know: `saga why` names the cause, and what it advises helps.

A real engine on a real database; the broker is memory, and one of its queues takes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from messaging import Bus
from messaging.envelope import OUTCOME, SUCCESS, Envelope, to_queue
from messaging.errors import NotConfirmed, PublishError
from messaging.memory import MemoryTransport
from messaging.settings import MessagingSettings
from messaging.transport import Outgoing, QueueSpec
from orchestrator import Saga, SagaClient
from orchestrator.app import running
from orchestrator.evidence import Evidence, read_evidence
from orchestrator.settings import OrchestratorSettings
from orchestrator.sql import SqlStore
from orchestrator.why import Explanation, explain
from tests.acceptance import stuck_sagas as stuck
from tests.acceptance.stuck_sagas import Job, world
from tests.support.databases import new_sqlite

PATIENCE = 90
SOON = timedelta(seconds=60)


class StallingBroker(MemoryTransport):
    """Confirms nothing that carries a certain name, until it is mended."""

    stalls = True

    async def publish(self, messages: Sequence[Outgoing], *, timeout: timedelta) -> list[PublishError | None]:
        outcomes: list[PublishError | None] = []
        for one in messages:
            if self.stalls and b'"stalled"' in one.envelope.body:
                outcomes.append(
                    NotConfirmed(one.envelope.message_id, str(one.destination), "the broker's disk is full")
                )
            else:
                outcomes += await super().publish([one], timeout=timeout)
        return outcomes


@dataclass
class Site:
    """A running orchestrator, and who looks at what is stuck there."""

    engine: AsyncEngine
    client: SagaClient
    broker: StallingBroker
    ids: dict[str, UUID] = field(default_factory=dict[str, UUID])

    async def start(self, situation: str, saga: type[Saga[Job]], name: str = "", **state: Any) -> UUID:
        started = await self.client.start(saga, Job(name=name or situation, **state))
        self.ids[situation] = started.id
        return started.id

    async def evidence(self, situation: str) -> Evidence:
        async with self.engine.connect() as connection:
            found = await connection.run_sync(read_evidence, self.ids[situation])
        assert found is not None
        return found

    async def told(self, situation: str, *phrases: str, later: timedelta = timedelta(0)) -> Explanation:
        """What is said of a saga, once it says all of this."""
        explanation = Explanation((), ())
        for _ in range(PATIENCE * 20):
            explanation = explain(await self.evidence(situation), now=datetime.now(UTC) + later)
            if all(phrase in explanation.paragraph for phrase in phrases):
                return explanation
            await asyncio.sleep(0.05)
        raise AssertionError(f"{situation}: {phrases} not all in: {explanation.paragraph}")

    async def ends(self, situation: str) -> str:
        return (await self.client.wait(self.ids[situation], timeout=SOON)).status.value


@pytest.fixture(params=["sqlite", "postgresql"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path / 'sagas.db'}"
        new_sqlite(url)
    else:
        url = request.getfixturevalue("migrated_database")
    store = SqlStore(url, runs_engine=False)
    await store.open()
    world.mended = False
    broker = StallingBroker()
    await broker.declare([QueueSpec("sleepers")])
    yield Site(store.engine, SagaClient(store.engine), broker)
    await store.close()


def engine_of(site: Site, *more: Any) -> Any:
    url = site.engine.url.render_as_string(hide_password=False)
    settings = OrchestratorSettings.model_validate(
        {"database_url": url, "poll_seconds": 0.02, "sweep_seconds": 0.1, "needs_version_seconds": 0.1}
    )
    return running(stuck.app, *more, settings=settings, messaging=MessagingSettings(), transport=site.broker)


async def test_why_names_the_cause_of_whatever_is_stuck_and_its_advice_helps(site: Site) -> None:
    async with engine_of(site, stuck.workers()):
        await everything_gets_stuck(site)
        await each_cause_is_named(site)
        await what_is_advised_helps(site)


async def everything_gets_stuck(site: Site) -> None:
    await site.start("participant down", stuck.ToSleepers)
    await site.start("wrong queue", stuck.ToNobody)
    await site.start("outbox stalled", stuck.Stalled, "stalled")
    await site.start("lock holder", stuck.NeedsPress)
    await site.told("lock holder", "unanswered")
    await site.start("lock held", stuck.NeedsPress)
    await site.start("undo failing", stuck.GoesBack)
    await site.start("cancelled, not settled", stuck.GoesBackLate)
    await site.start("event never came", stuck.AwaitsDelivery, "parcel-1")
    await site.start("attempts used up", stuck.Exhausted, "broken")
    await site.start("held back", stuck.TriesOften, "broken")
    await site.start("pivot unknown", stuck.AtThePivot, "broken")
    await site.start("code raises", stuck.RaisesItself)
    await site.start("answered later", stuck.Exhausted, "later")
    await site.start("resting", stuck.Rests)
    await site.start("local step raises", stuck.Notes)
    await site.start("an item blocks", stuck.InPieces, pieces=["one", "broken-two"])
    await site.start("child blocked", stuck.HasParts)
    await site.start("child abandoned", stuck.HasParts)
    await site.start("version missing", stuck.Old)
    await site.start("paused", stuck.ToSleepers)
    await site.start("useless reply", stuck.ToSleepers)


async def each_cause_is_named(site: Site) -> None:
    by_hand = (
        ("participant down", "sends do to 'sleepers' (attempt 1, message ", "and unanswered, awaited until"),
        ("wrong queue", "sends do to 'wrokers'", "it could not be sent", "no queue"),
        ("outbox stalled", "it could not be sent", "the broker's disk is full"),
        ("lock held", "waits since", f"press:1 is held by Locking of saga {site.ids['lock holder']}"),
        ("undo failing", "The undo of Doing failed, and its attempts are used up.", "the press is jammed"),
        ("event never came", "waits for the event delivered with key 'parcel-1'", "None has come."),
        ("attempts used up", "Doing got no answer it could use, and its attempts are used up.", "the press is jammed"),
        ("held back", "it is held back, to be sent in ", "the press is jammed"),
        ("pivot unknown", "Whether its pivot Delivering happened is unknown, and is never guessed."),
        ("code raises", "The saga's own code raised at Raising.", "RuntimeError: the press is jammed"),
        ("answered later", "sends do to 'workers'", "awaited until"),
        ("resting", "Resting lets time pass until"),
        ("local step raises", "The function of Noting failed, and its attempts are used up.", "the press is jammed"),
        ("an item blocks", "DoingPiece/broken-two got no answer it could use", "the press is jammed"),
        ("child blocked", "Subcontracting waits for its child saga", "blocked at Doing (retries_", "Ask: saga why "),
        ("version missing", "No engine that runs knows this version of the saga."),
    )
    for situation, *phrases in by_hand:
        await site.told(situation, *phrases)

    await site.client.pause(site.ids["paused"], reason="the hall is closed", by="ann")
    await site.told("paused", "It was paused", "by ann: the hall is closed.", "deadlines stand still")
    await site.told("cancelled, not settled", "sends do to 'sleepers'")
    await site.client.cancel(site.ids["cancelled, not settled"], reason="sold")
    await site.told("cancelled, not settled", "is undoing what it did", "sends do to 'sleepers'", "unanswered")
    site.ids["child"] = await child(site, "child abandoned")
    await site.told("child", "its attempts are used up")
    await site.client.abandon(site.ids["child"], reason="lost")
    await site.told("child abandoned", "The saga that Subcontracting had started was abandoned.")
    await useless_reply(site)
    await site.told("useless reply", "1 message came for it that could not be used, the last because")
    async with Bus(site.broker) as bus:
        await bus.publish(stuck.Delivered(name="parcel-7"))
    await site.told("event never came", "Kept with other keys: 1 event of this type.")


async def child(site: Site, parent: str) -> UUID:
    (awaited,) = (await site.evidence(parent)).awaited
    return UUID(awaited.awaited_key)


async def useless_reply(site: Site) -> None:
    (awaited,) = (await site.evidence("useless reply")).awaited
    headers = {OUTCOME: SUCCESS}
    envelope = Envelope("r-1", b'["no", "object"]', "done", correlation_id=str(awaited.message_id), headers=headers)
    queue = to_queue("orchestrator.main.replies")
    assert await site.broker.publish([Outgoing(envelope, queue)], timeout=SOON) == [None]


async def what_is_advised_helps(site: Site) -> None:
    for situation, advice in (
        ("participant down", "See whether 'sleepers' runs, and what its log says of message "),
        ("wrong queue", "Start the participant 'wrokers', or correct `participant` of AskingNobody"),
        ("outbox stalled", "See to the broker, which does not take the command"),
        ("lock holder", "See whether 'sleepers' runs"),
        ("lock held", f"Look at who holds what Locking needs: saga why {site.ids['lock holder']}"),
        ("cancelled, not settled", "See whether 'sleepers' runs"),
        ("event never came", "Compare event_key and awaited_key of AwaitingDelivery"),
        ("held back", "Mend what 'workers' says is wrong: RuntimeError: the press is jammed"),
        ("answered later", "See whether 'workers' runs"),
        ("child blocked", f"Look at the child: saga why {await child(site, 'child blocked')}"),
        ("version missing", "Start an engine that knows versioned v1: saga run ..."),
        ("useless reply", "Correct what answers; what came is kept: SELECT reason, body FROM saga_unmatched"),
    ):
        told = await site.told(situation)
        assert told.advice[0].do.startswith(advice), (situation, told.advice[0])
    world.mended, site.broker.stalls = True, False
    for situation, advice, then in (
        ("attempts used up", "Bring the participant of Doing, 'workers', back", site.client.retry),
        ("pivot unknown", "Bring the participant of Delivering, 'workers', back", site.client.retry),
        ("undo failing", "See to it that the participant of Doing, 'workers', can undo it", site.client.retry),
        ("code raises", "Deploy code that works", site.client.retry),
        ("local step raises", "Mend what Noting raises", site.client.retry),
        ("an item blocks", "Bring the participant of DoingPiece/broken-two, 'workers', back", site.client.retry),
        ("child abandoned", "Settle by hand what the abandoned saga left", site.client.retry),
        ("paused", "saga resume", site.client.resume),
        ("held back", "Mend what 'workers' says is wrong", site.client.cancel),
        ("resting", "saga cancel", site.client.cancel),
    ):
        explanation = await site.told(situation)
        assert explanation.advice[0].do.startswith(advice), (situation, explanation.advice[0])
        await then(site.ids[situation], reason="mended")
    await site.client.complete(world.token, stuck.Done())
    await site.client.retry(await child(site, "child blocked"), reason="mended")
    async with Bus(site.broker) as bus:
        await bus.publish(stuck.Delivered(name="parcel-1"))

    async with running(stuck.workers("sleepers"), stuck.workers("wrokers"), transport=site.broker):
        ended = {situation: await site.ends(situation) for situation in site.ids if situation != "version missing"}
    went_back = ("undo failing", "cancelled, not settled", "held back", "resting")
    assert {one: ended.pop(one) for one in went_back} == dict.fromkeys(went_back, "compensated")
    assert ended.pop("child") == "abandoned"
    assert ended == dict.fromkeys(ended, "completed")


async def test_why_tells_that_no_engine_is_there(site: Site) -> None:
    await site.start("nobody looks", stuck.ToSleepers)
    with pytest.raises(TimeoutError):
        await site.client.cancel(site.ids["nobody looks"], reason="sold", within=timedelta(0))

    told = await site.told(
        "nobody looks",
        "no engine has looked at it",
        "An operator asked to cancel it",
        "No engine that was heard of in the last minute has to-sleepers v1",
        later=timedelta(minutes=1),
    )

    assert told.advice[0].do == "Start an engine that knows to-sleepers v1: saga run ..."
