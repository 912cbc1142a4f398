"""What becomes of one delivery.

handled, now or before        answered, then acknowledged
handler raises, sender waits  rolled back, answered `retry`, acknowledged: the sender alone retries
handler raises, nobody waits  rolled back, put off by the policy of handler or service, in the end dead-lettered
cannot be read or used        answered `retry` if the sender waits, and dead-lettered
copy of one under way         waits, then comes again
database away                 the same delivery is tried again in place
broker away                   what is to be sent is sent again in place
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

from messaging import envelope as wire
from messaging.errors import DecodeError, NotConfirmed, NotPassedOn, PublishError
from messaging.failpoints import reached
from messaging.handlers import Handler
from messaging.handling import Handled, HandlerRaised, Handling, Order
from messaging.inbox import Answer, StillWorking
from messaging.logged import handled_now
from messaging.messages import Event
from messaging.middleware import Composed, Outcome, Settled
from messaging.outage import Fault, Outage
from messaging.printable import traceback_text
from messaging.retry import Again, Retry, next_attempt, wait_before
from messaging.service import Service
from messaging.settling import PUBLISH_TIMEOUT, Settling, reply_to_command, until_confirmed
from messaging.transport import Delivery, Outgoing, Subscription, Transport

logger = logging.getLogger(__name__)

_CONFLICTS: Final = Retry(max_attempts=5, backoff=timedelta(milliseconds=50), cap=timedelta(seconds=1), jitter=0.5)
_COME_AGAIN: Final = Retry(max_attempts=None, backoff=timedelta(seconds=1), cap=timedelta(seconds=30))
_AWAY_BY_HANDLER: Final = 3
_MAX_REASON_CHARACTERS: Final = 300


class Processing:
    """Sees each delivery of a service to its end."""

    def __init__(
        self,
        service: Service,
        transport: Transport,
        subscription: Subscription,
        settling: Settling,
        handling: Handling,
        outage: Outage,
        nudge: Callable[[], None],
        around: Composed,
    ) -> None:
        self._service, self._transport, self._subscription = service, transport, subscription
        self._settling, self._handling, self._outage, self._nudge = settling, handling, outage, nudge
        self._around = around.delivery

    async def process(self, delivery: Delivery) -> None:
        """Settle a delivery, however long it takes. Cancelled, it is left as it was and comes again."""
        reached("participant.received")
        handled_now.set(delivery.envelope)  # in the task of this delivery alone
        if self._around is None:
            await self._see_through(delivery, delivery)
        else:
            await self._see_through_middleware(delivery)

    async def _see_through_middleware(self, delivery: Delivery) -> None:
        begun = False

        async def once(passed: Delivery) -> Settled:
            nonlocal begun
            if begun:
                raise NotPassedOn(f"message {delivery.envelope.message_id} of queue {delivery.queue!r}")
            begun = True
            return await self._see_through(passed, delivery)

        assert self._around is not None
        try:
            await self._around(delivery, once)
            if not begun:
                raise NotPassedOn(f"message {delivery.envelope.message_id} of queue {delivery.queue!r}")
        except Exception as error:
            if begun:
                logger.exception("Middleware raised after message %s was seen to", delivery.envelope.message_id)
            else:
                await self._failed(delivery, delivery, error, self._service.handler_of(delivery.envelope.type))

    async def _see_through(self, delivery: Delivery, came: Delivery) -> Settled:
        """Read and answer `delivery`; put off and dead-letter what came, which middleware may have changed."""
        try:
            order = self._handling.read(delivery)
        except DecodeError as error:
            await self._refuse(came, error)
            return Settled(Outcome.UNUSABLE, error)
        try:
            handled = await self._handle(order)
            if handled is None:
                return Settled(Outcome.LEFT)
            await self._publish(handled.outgoing)
        except StillWorking as error:
            await self._come_again(came, error)
            return Settled(Outcome.BUSY, error)
        except HandlerRaised as error:
            return await self._failed(delivery, came, error.error, order.handler)
        except Exception as error:  # noqa: BLE001 - of our own statements, or of publishing; nothing is dropped
            return await self._failed(delivery, came, error, order.handler)
        if handled.wrote_outbox:
            self._nudge()
        self._settling.answered(delivery, handled.answer)
        return _outcome_of(handled)

    async def _handle(self, order: Order) -> Handled | None:
        """Handle, through conflicts and outages; None when the service stops before it could."""
        conflicts = away_by_handler = 0
        while True:
            try:
                handled = await self._handling.run(order)
            except Exception as error:
                fault = self._fault_of(error)
                away_by_handler += fault is Fault.AWAY and isinstance(error, HandlerRaised)
                # Our own claim went well each time: what is away is some other database of the handler's.
                if fault is Fault.AWAY and away_by_handler < _AWAY_BY_HANDLER:
                    if not await self._outage.wait(error):
                        return None
                    continue
                self._outage.ended()
                conflicts += 1
                if fault is not Fault.CONFLICT:
                    raise
                await self._pause_after(conflicts, order, error)
            else:
                self._outage.ended()
                return handled

    def _fault_of(self, error: Exception) -> Fault:
        if self._service.sessions is None or isinstance(error, StillWorking):
            return Fault.OTHER
        from messaging.sql.faults import fault_of

        if isinstance(error, HandlerRaised):
            return fault_of(error.error)
        return fault_of(error, ours=True)

    async def _pause_after(self, conflicts: int, order: Order, error: Exception) -> None:
        pause = next_attempt(_CONFLICTS, conflicts, seed=order.envelope.message_id)
        if isinstance(pause, Again):
            await asyncio.sleep(pause.after.total_seconds())
        elif isinstance(error, HandlerRaised):
            raise error
        else:
            raise StillWorking(order.key) from error

    async def _publish(self, outgoing: Sequence[Outgoing]) -> None:
        """Send what a handler without a database published.

        Raises:
            PublishError: the broker gave one of it back; it has not arrived.
        """
        tries = 0
        while outgoing:
            outcomes = await self._transport.publish(outgoing, timeout=PUBLISH_TIMEOUT)
            refused = [error for error in outcomes if error and not isinstance(error, NotConfirmed)]
            if refused:
                raise refused[0]
            outgoing = [message for message, error in zip(outgoing, outcomes, strict=True) if error]
            tries += 1
            if outgoing:
                pause = wait_before(_COME_AGAIN, tries, seed=outgoing[0].envelope.message_id)
                await asyncio.sleep(pause.total_seconds())

    async def _come_again(self, delivery: Delivery, error: StillWorking) -> None:
        message_id = delivery.envelope.message_id
        logger.info("Message %s waits: %s", message_id, error)
        pause = wait_before(_COME_AGAIN, delivery.attempt, seed=message_id)
        await until_confirmed(lambda: self._subscription.retry_later(delivery, pause), seed=message_id)

    async def _failed(self, delivery: Delivery, came: Delivery, error: Exception, handler: Handler | None) -> Settled:
        envelope = delivery.envelope
        text = "Handling %s %s raised %s"
        is_event = handler is not None and issubclass(handler.message, Event)
        if envelope.reply_to and not is_event:
            logger.warning(text, envelope.type, envelope.message_id, type(error).__name__, exc_info=error)
            self._settling.answered(delivery, _told_to_retry(error))
            return Settled(Outcome.RETRY, error)
        policy = (handler.retry if handler is not None else None) or self._service.retry
        verdict = next_attempt(policy, came.attempt, seed=envelope.message_id)
        if isinstance(verdict, Again):
            after = verdict.after
            logger.warning(text, envelope.type, envelope.message_id, type(error).__name__, exc_info=error)
            await until_confirmed(lambda: self._subscription.retry_later(came, after), seed=envelope.message_id)
            return Settled(Outcome.PUT_OFF, error)
        logger.error(text, envelope.type, envelope.message_id, type(error).__name__, exc_info=error)
        detail = traceback_text(error)
        await self._dead_letter(came, f"handler-raised: {_reason(error)}", detail)
        return Settled(Outcome.DEAD_LETTERED, error)

    async def _refuse(self, delivery: Delivery, error: DecodeError) -> None:
        """Tell the sender first: killed in between, the message comes again, and is told and kept again."""
        logger.error("Service %r cannot use a message: %s", self._service.name, error)
        reply = reply_to_command(delivery.envelope, _told_to_retry(error))
        if reply is not None:
            await until_confirmed(lambda: self._tell(reply), seed=delivery.envelope.message_id)
        await self._dead_letter(delivery, error.problem, str(error))

    async def _tell(self, reply: Outgoing) -> None:
        (outcome,) = await self._transport.publish([reply], timeout=PUBLISH_TIMEOUT)
        if isinstance(outcome, NotConfirmed):
            raise outcome
        if isinstance(outcome, PublishError):
            logger.error("The answer cannot be delivered: %s", outcome)

    async def _dead_letter(self, delivery: Delivery, reason: str, detail: str) -> None:
        await until_confirmed(
            lambda: self._subscription.dead_letter(delivery, reason, detail),
            seed=delivery.envelope.message_id,
        )


def _outcome_of(handled: Handled) -> Settled:
    refused = handled.answer is not None and handled.answer.outcome == wire.FAILURE
    return Settled(Outcome.FAILURE if refused else Outcome.SUCCESS, by_inbox=handled.by_inbox)


def _told_to_retry(error: Exception) -> Answer:
    body = json.dumps({"reason": _first_line(error)}, ensure_ascii=False).encode()
    return Answer(wire.RETRY, type(error).__name__, "", body)


def _reason(error: Exception) -> str:
    """The error's class and its first line, as text that every reader and database can hold."""
    text = _first_line(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _first_line(error: Exception) -> str:
    lines = str(error).encode(errors="replace").decode().replace("\0", "").splitlines()
    return lines[0][:_MAX_REASON_CHARACTERS] if lines else ""
