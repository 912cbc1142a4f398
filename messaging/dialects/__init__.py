"""Other ways than ours to put a message on the wire: CloudEvents, and PyMessagingFramework 2.x.

What others write is understood wherever messages are read (`in_our_words`). What is written for them is
a setting: `Speaking` stands before a transport and puts it into their words.
"""

from __future__ import annotations

from messaging.dialects.reading import in_our_words
from messaging.dialects.speaking import Dialect, Speaking

__all__ = ["Dialect", "Speaking", "in_our_words"]
