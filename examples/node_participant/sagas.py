"""A saga with a participant in Node: a label is printed, a courier is booked, or the label is voided.

To Python the participant is a queue name and a few message classes, like any other.

    ANSWER_SECONDS   how long one attempt of a command waits for its answer (30)
"""

from __future__ import annotations

import os
from datetime import timedelta

from pydantic import BaseModel

from messaging import Command, Failure, Reply, Service
from orchestrator import Orchestrator, Retry, Saga, Step

ANSWER_WITHIN = timedelta(seconds=float(os.environ.get("ANSWER_SECONDS", "30")))


class LabelPrinted(Reply):
    label: str


class LabelRefused(Failure):
    pass


class PrintLabel(Command[LabelPrinted], failures=(LabelRefused,)):
    parcel_id: str
    address: str


class LabelVoided(Reply):
    label: str = ""


class VoidLabel(Command[LabelVoided]):
    parcel_id: str


class CourierBooked(Reply):
    pass


class CourierRefused(Failure):
    pass


class BookCourier(Command[CourierBooked], failures=(CourierRefused,)):
    label: str
    kilograms: float


class ParcelState(BaseModel):
    parcel_id: str
    address: str
    kilograms: float = 1.0
    label: str = ""
    refusal: str = ""


class PrintingLabel(Step[ParcelState, LabelPrinted]):
    participant = "labels"
    timeout = ANSWER_WITHIN
    retry = Retry(max_attempts=2, backoff=ANSWER_WITHIN / 10)
    compensation_timeout = ANSWER_WITHIN

    def command(self, state: ParcelState) -> PrintLabel:
        return PrintLabel(parcel_id=state.parcel_id, address=state.address)

    def on_reply(self, state: ParcelState, reply: LabelPrinted) -> None:
        state.label = reply.label

    def on_failure(self, state: ParcelState, failure: Failure) -> None:
        state.refusal = failure.reason

    def compensation(self, state: ParcelState) -> VoidLabel:
        return VoidLabel(parcel_id=state.parcel_id)


class BookingCourier(Step[ParcelState, CourierBooked]):
    participant = "couriers"
    timeout = ANSWER_WITHIN
    pivot = True

    def command(self, state: ParcelState) -> BookCourier:
        return BookCourier(label=state.label, kilograms=state.kilograms)

    def on_failure(self, state: ParcelState, failure: Failure) -> None:
        state.refusal = failure.reason


class SendParcelSaga(Saga[ParcelState]):
    steps = (PrintingLabel(), BookingCourier())


app = Orchestrator(sagas=[SendParcelSaga])

couriers = Service("couriers")


@couriers.handles(BookCourier)
def book_courier(command: BookCourier) -> CourierBooked | CourierRefused:
    if command.kilograms > 30:
        return CourierRefused(reason="too heavy for a courier")
    return CourierBooked()
