"""The mailer, which keeps nothing: no database, so no inbox; a mail may go out twice. Plain functions, in threads.

PLAIN_BUS_MAILS   the file that mails are written to: mails.txt unless set; it must not be a folder, or nothing goes out
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from messaging import Context, Retry, Service
from plain_bus.messages import MailBounced, MailSent, SendMail, SubscriberJoined

MAILS = Path(os.environ.get("PLAIN_BUS_MAILS", "mails.txt"))

# One mail at a time, in the order they come. What fails twice becomes a dead letter: saga dlq list --queue mailer
mailer = Service("mailer", max_in_flight=1, retry=Retry(max_attempts=2, backoff=timedelta(milliseconds=100)))


@mailer.handles(SendMail)
def send_mail(command: SendMail, context: Context[None]) -> MailSent:
    if command.address.startswith("gone@"):
        context.publish(MailBounced(address=command.address), exchange="bounces", kind="direct", key="gone")
    else:
        _write(f"to {command.address}: {command.text}")
    return MailSent()


@mailer.subscribes(SubscriberJoined, exchange="subscribers", key="#")
def subscriber_joined(event: SubscriberJoined) -> None:
    _write(f"to the editor: {event.address} has joined")


def _write(line: str) -> None:
    with MAILS.open("a") as mails:
        mails.write(line + "\n")
