"""Durations and instants as people say them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def duration(value: timedelta) -> str:
    """A duration as people say it: `240 ms`, `3.1 s`, `4 min 10 s`, `2 d 3 h`; never below zero."""
    seconds = max(0.0, value.total_seconds())
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour} h"
    return f"{hours} h {minute} min" if hours else f"{minutes} min {second} s"


def instant(value: datetime) -> str:
    """An instant to the second: `2027-03-01 12:00:00 UTC`."""
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
