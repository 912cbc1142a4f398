"""What the services say to each other."""

from __future__ import annotations

from messaging import Command, Event, Failure, Reply


class Subscribed(Reply):
    number: int


class SubscriptionRefused(Failure):
    pass


class Subscribe(Command[Subscribed], failures=(SubscriptionRefused,)):
    address: str


class MailSent(Reply):
    pass


class SendMail(Command[MailSent]):
    address: str
    text: str


class Readers(Reply):
    organisations: int
    issues: int


class CountReaders(Command[Readers]):
    pass


class SubscriberJoined(Event):
    """Topic exchange `subscribers`, by domain: `org.example`."""

    address: str
    number: int


class MailBounced(Event):
    """Direct exchange `bounces`, by what it means: `gone`."""

    address: str


class IssuePublished(Event):
    """Fanout exchange `issues`: whoever listens is told."""

    title: str
