"""What becomes of a trip."""

from __future__ import annotations

from datetime import timedelta

from orchestrator import SagaStatus
from orchestrator.testing import SagaHarness, SagaProbe, Seen, explore
from travel_booking.sagas import (
    Booked,
    BookFlight,
    BookHotel,
    BookingFlight,
    BookingHotel,
    BookTrip,
    CancelFlight,
    CancelHotel,
    Done,
    RentCar,
    RentingCar,
    ReturnCar,
    SoldOut,
    TakePayment,
    TakingPayment,
    Trip,
)

PARIS = Trip(trip_id="1", to="Paris")


def test_all_three_are_booked_together_and_paid_a_day_later() -> None:
    probe = SagaProbe(BookTrip, PARIS)
    assert probe.just_sent == [
        BookFlight(trip_id="1", to="Paris"),
        BookHotel(trip_id="1", city="Paris"),
        RentCar(trip_id="1", city="Paris"),
    ]
    for step in (BookingFlight, BookingHotel, RentingCar):
        probe.reply(step, Booked(reference="x"))
    assert probe.current_step == "ThinkingBetter"

    probe.advance(timedelta(hours=24))
    assert probe.just_sent == [TakePayment(trip_id="1")]

    probe.reply(TakingPayment, Done())
    assert probe.status is SagaStatus.COMPLETED


async def test_when_no_hotel_has_a_room_the_flight_and_the_car_are_cancelled() -> None:
    harness = SagaHarness(BookTrip)
    flights, hotels, cars = (harness.participant(name) for name in ("flights", "hotels", "cars"))
    flights.on(BookFlight).answers(Booked(reference="AF 1"), after=timedelta(seconds=5))
    flights.on(CancelFlight).answers(Done())
    hotels.on(BookHotel).answers(SoldOut(reason="no room in Paris"))
    cars.on(RentCar).answers(Booked(reference="2 CV"))
    cars.on(ReturnCar).answers(Done())

    trip = await harness.start(BookTrip, PARIS)
    assert ReturnCar(trip_id="1") not in cars.received, "nothing is undone before the flight is settled"

    await harness.advance(seconds=5)
    assert (trip.status, trip.state.refusal) == (SagaStatus.COMPENSATED, "no room in Paris")
    assert CancelFlight(trip_id="1") in flights.received and ReturnCar(trip_id="1") in cars.received


async def test_whoever_thinks_better_of_it_pays_nothing() -> None:
    harness = SagaHarness(BookTrip)
    for name, book, cancel in (
        ("flights", BookFlight, CancelFlight),
        ("hotels", BookHotel, CancelHotel),
        ("cars", RentCar, ReturnCar),
    ):
        harness.participant(name).on(book).answers(Booked(reference="x"))
        harness.participant(name).on(cancel).answers(Done())
    trip = await harness.start(BookTrip, PARIS)

    await harness.advance(hours=23)
    await trip.ask("cancel", reason="ill")

    assert trip.status is SagaStatus.COMPENSATED
    assert harness.participant("payments").received == []


def nobody_pays_for_what_is_not_booked(seen: Seen[Trip]) -> bool:
    booked = all(seen.in_effect(step) for step in (BookingFlight, BookingHotel, RentingCar))
    return booked or not seen.in_effect(TakingPayment)


def test_nobody_pays_for_what_is_not_booked_whatever_happens() -> None:
    checks = [nobody_pays_for_what_is_not_booked]
    print(explore(BookTrip, PARIS, invariants=checks, max_refusals=1, max_duplicates=0, max_delays=0))
