"""Messages that others have written, put into our words before they are read."""

from __future__ import annotations

from messaging.codec import DEFAULT_LIMITS, Limits
from messaging.dialects import cloudevents, pymessagingframework
from messaging.envelope import Envelope


def in_our_words(envelope: Envelope, limits: Limits = DEFAULT_LIMITS) -> Envelope:
    """A message as our wire format has it; one that has it already, or that nobody here knows, as it is.

    Raises:
        DecodeError: it says that it is a CloudEvent, and is none that can be read.
    """
    if cloudevents.is_structured(envelope):
        return cloudevents.from_structured(envelope, limits)
    if envelope.type:
        return envelope
    return cloudevents.from_binary(envelope) or pymessagingframework.from_theirs(envelope, limits) or envelope
