"""What does not fit is told by its fields; the values, which may be secret, are told nowhere."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import BaseModel, Field, ValidationError

from messaging.messages import Command, Reply
from messaging.printable import LineFormatter
from messaging.retry import Retry
from messaging.service import Service
from messaging.tracing import Tracing
from messaging.transport import DEAD_LETTER_DETAIL, DEAD_LETTER_REASON
from orchestrator.cli.logs import JsonFormatter, TextFormatter
from orchestrator.instance import SagaStatus
from orchestrator.start import new_instance
from tests.support.spans import Spans
from tests.unit.engine.bench import BookTrip, Trip, Workbench
from tests.unit.messaging.support import running

SECRET = "PIN-4711"


class Account(BaseModel):
    number: int
    pin: str = Field(repr=False)


class Charge(Command[Reply]):
    pin: str = Field(repr=False)
    cents: int


@pytest.fixture(params=[TextFormatter, JsonFormatter, lambda: LineFormatter("%(message)s")])
def log(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """All that is logged, as a process writes it."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(request.param())
    handler.addFilter(lambda record: record.__dict__.setdefault("ids", "") == "")
    root = logging.getLogger()
    root.addHandler(handler)
    yield written
    root.removeHandler(handler)


async def test_a_state_that_does_not_fit_any_more_is_not_repeated(log: io.StringIO) -> None:
    bench = await Workbench().open()
    old = replace(new_instance(BookTrip, Trip(number=1), "1", "", bench.clock.now()), state=f'{{"number": "{SECRET}"}}')
    async with bench.store.transaction() as tx:
        saga_id, _ = await tx.start(old)

    await bench.wake()

    async with bench.store.transaction() as tx:
        assert (await tx.lock([saga_id])).sagas[saga_id].status is SagaStatus.BLOCKED
    assert "is blocked until its code is mended" in log.getvalue() and "number" in log.getvalue()
    notes = [note.text for _, note in bench.store.tables.history.values()]
    assert any("raised ValidationError" in note for note in notes)
    assert SECRET not in log.getvalue() + repr(notes)


async def test_what_a_handler_cannot_read_is_not_repeated(log: io.StringIO) -> None:
    spans, bank = Spans(), Service("bank", retry=Retry(max_attempts=1, backoff=timedelta(0)))
    bank.use(Tracing(spans.provider))

    @bank.handles(Charge)
    async def charge(command: Charge) -> Reply:
        Account.model_validate({"pin": command.pin})
        return Reply()

    async with running(bank) as asking:
        answer = await asking.ask(Charge(pin=SECRET, cents=1))
        await asking.send(Charge(pin=SECRET, cents=1), reply_to="")
        letter = await asking.dead_letter()

    notes = letter.text_header(DEAD_LETTER_REASON) + letter.text_header(DEAD_LETTER_DETAIL)
    assert "Field required" in notes and "ValidationError" in log.getvalue()
    told = [
        str(answer),
        notes,
        log.getvalue(),
        *(str(event.attributes) for span in spans.all() for event in span.events),
    ]
    told += [span.status.description or "" for span in spans.all()]
    assert len(told) > 5 and not [one for one in told if SECRET in one]


def test_a_message_that_does_not_fit_its_class_says_so_without_its_values() -> None:
    with pytest.raises(ValidationError) as caught:
        Charge.model_validate({"pin": [SECRET], "cents": 1})

    assert "pin" in str(caught.value) and SECRET not in str(caught.value)
