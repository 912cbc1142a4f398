"""What the newsletter and the mailer say to each other."""

from __future__ import annotations

from messaging import Command, Event, Failure, Reply


class Subscribed(Reply):
    number: int


class SubscriptionRefused(Failure):
    pass


class Subscribe(Command[Subscribed], failures=(SubscriptionRefused,)):
    address: str


class SubscriberJoined(Event):
    address: str
    number: int


class MailSent(Reply):
    pass


class SendMail(Command[MailSent]):
    address: str
    text: str
