"""Answers and acknowledgements, many at a time: what ended close together is published together."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from messaging.compose import compose_reply
from messaging.envelope import Envelope, to_reply
from messaging.errors import NotConfirmed, PublishError
from messaging.failpoints import reached
from messaging.inbox import Answer
from messaging.retry import Retry, wait_before
from messaging.transport import Delivery, Outgoing, Subscription, Transport

logger = logging.getLogger(__name__)

PUBLISH_TIMEOUT: Final = timedelta(seconds=15)
_AT_ONCE: Final = 256
_BROKER_AWAY: Final = Retry(max_attempts=None, backoff=timedelta(milliseconds=100), cap=timedelta(seconds=5))


@dataclass(frozen=True, slots=True)
class _Ended:
    delivery: Delivery | None
    """What to acknowledge; None for an interim answer."""
    reply: Outgoing | None

    @property
    def alone(self) -> _Ended:
        """The same, whose reply may not share a message with others any more."""
        return self if self.reply is None else replace(self, reply=replace(self.reply, may_join=False))


class Settling:
    """Publishes replies and, once they are confirmed, acknowledges what they answer."""

    def __init__(self, transport: Transport, subscription: Subscription) -> None:
        self._transport, self._subscription = transport, subscription
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._ended: deque[_Ended] = deque()
        self._something = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def answered(self, delivery: Delivery, answer: Answer | None) -> None:
        """Take a delivery that is handled: answer it, if its sender waits, and acknowledge it."""
        self._take(_Ended(delivery, reply_to_command(delivery.envelope, answer)))

    def told(self, command: Envelope, answer: Answer) -> None:
        """Take an interim answer to a command that is being handled, from whichever thread does so."""
        reply = reply_to_command(command, answer)
        if reply is None:
            return
        if threading.get_ident() == self._thread:
            self._take(_Ended(None, reply))  # at once, so that it comes before the answer
        else:
            self._loop.call_soon_threadsafe(self._take, _Ended(None, reply))

    def _take(self, ended: _Ended) -> None:
        self._ended.append(ended)
        self._empty.clear()
        self._something.set()

    async def flushed(self) -> None:
        """Wait until everything taken so far is settled."""
        await self._empty.wait()

    async def run(self) -> None:
        """Settle for ever. A broker that is away delays it and does not end it."""
        tries = 0
        while True:
            await self._something.wait()
            batch = [self._ended.popleft() for _ in range(min(len(self._ended), _AT_ONCE))]
            try:
                left = await self._settle(batch)
            except Exception:
                left = [ended.alone for ended in batch]
                logger.exception("%d deliveries could not be settled; trying again", len(batch))
            self._ended.extendleft(reversed(left))
            tries = tries + 1 if left else 0
            if left:
                await asyncio.sleep(wait_before(_BROKER_AWAY, tries, seed="settling").total_seconds())
            if not self._ended:
                self._something.clear()
                self._empty.set()

    async def _settle(self, batch: list[_Ended]) -> list[_Ended]:
        """Publish and acknowledge; return what must be tried again."""
        replies = [ended.reply for ended in batch if ended.reply is not None]
        outcomes = await self._transport.publish(replies, timeout=PUBLISH_TIMEOUT) if replies else []
        reached("participant.replied")
        result = iter(outcomes)
        handled: list[_Ended] = []
        again: list[_Ended] = []
        for ended in batch:
            error = next(result) if ended.reply is not None else None
            if error is None:
                handled.append(ended)
            elif isinstance(error, NotConfirmed) or not await self._bury(ended, error):
                again.append(ended.alone)
        done_with = [ended.delivery for ended in handled if ended.delivery is not None]
        if done_with:
            await self._subscription.ack(done_with)
            reached("participant.acked")
        return again

    async def _bury(self, ended: _Ended, error: PublishError) -> bool:
        """Keep a command whose answer nobody takes; the work itself is done."""
        if ended.delivery is None:
            logger.error("The interim answer cannot be delivered: %s", error)
            return True
        logger.error("The answer cannot be delivered: %s. The command is in the dead letters.", error)
        try:
            await self._subscription.dead_letter(ended.delivery, "reply-undeliverable", str(error))
        except PublishError:
            return False
        return True


async def until_confirmed(attempt: Callable[[], Awaitable[None]], *, seed: str) -> None:
    """Do something with the broker again and again until it raises no PublishError."""
    tries = 0
    while True:
        try:
            await attempt()
            return
        except PublishError as error:
            tries += 1
            if tries == 1:
                logger.warning("%s. Trying again until the broker takes it.", error)
        await asyncio.sleep(wait_before(_BROKER_AWAY, tries, seed=seed).total_seconds())


def reply_to_command(command: Envelope, answer: Answer | None) -> Outgoing | None:
    """Address an answer to whoever sent the command; None if nobody waits for one."""
    if answer is None or not command.reply_to:
        return None
    envelope = compose_reply(
        command,
        outcome=answer.outcome,
        body=answer.body,
        wire_type=answer.type,
        error_code=answer.error_code,
        deadline_seconds=answer.deadline_seconds,
    )
    return Outgoing(envelope, to_reply(command.reply_to), may_join=True)
