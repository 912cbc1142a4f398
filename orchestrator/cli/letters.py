"""Dead letters as people and programs read them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from messaging.printable import printable
from orchestrator.cli import output
from orchestrator.words import duration

if TYPE_CHECKING:
    from rich.console import Console

    from messaging.dead_letters import DeadLetter

_HEX_BYTES: Final = 256


def print_table(console: Console, letters: Iterable[DeadLetter]) -> None:
    """Print a line for each, below headings."""
    from rich.text import Text

    table = output.table("queue", "id", "type", "age", "attempts", "reason", terminal=console.is_terminal)
    for letter in letters:
        words = (letter.queue, letter.id, letter.envelope.type, _age(letter), _attempts(letter), letter.reason)
        table.add_row(*(Text(word) for word in words))
    output.print_table(console, table)


def line_as_json(letter: DeadLetter) -> dict[str, Any]:
    """What a list tells of a letter."""
    return {
        "queue": letter.queue,
        "id": letter.id,
        "type": letter.envelope.type,
        "reason": letter.reason,
        "died_at": letter.died_at,
        "attempts": letter.attempts,
    }


def as_json(letter: DeadLetter) -> dict[str, Any]:
    """All of a letter; a body that is no UTF-8 is hexadecimal."""
    envelope, text = letter.envelope, _text(letter.envelope.body)
    return {
        **line_as_json(letter),
        "exchange": letter.exchange,
        "routing_key": letter.routing_key,
        "problem": letter.problem,
        "lost_headers": letter.lost_headers,
        "message_id": envelope.message_id,
        "correlation_id": envelope.correlation_id,
        "reply_to": envelope.reply_to,
        "content_type": envelope.content_type,
        "timestamp": envelope.timestamp,
        "app_id": envelope.app_id,
        "headers": {_encodable(name): _encodable(value) for name, value in envelope.headers.items()},
        "body": text,
        "body_hex": envelope.body.hex() if text is None else None,
        "detail": letter.detail,
    }


def print_letter(console: Console, letter: DeadLetter) -> None:
    """Print all of a letter."""
    _print_facts(console, f"dead letter {letter.id}", _facts(letter))
    _print_facts(console, "headers", [(name, str(value)) for name, value in letter.envelope.headers.items()])
    body = letter.envelope.body
    text = _text(body)
    kind = "text" if text is not None else "no UTF-8"
    _print_block(console, f"body, {len(body)} bytes, {kind}", hex_excerpt(body) if text is None else text)
    if letter.detail:
        _print_block(console, "detail", letter.detail.rstrip())
    console.print(f"→ saga dlq replay --queue {letter.queue} --id {letter.id}", markup=False, soft_wrap=True)


def _facts(letter: DeadLetter) -> list[tuple[str, str]]:
    envelope = letter.envelope
    died = "unknown" if letter.died_at is None else f"{output.instant(letter.died_at)}, {_age(letter)} ago"
    lost = f"{letter.lost_headers} of its headers, which were too many" if letter.lost_headers else ""
    routed = f"exchange {letter.exchange!r}, key {letter.routing_key!r}" if letter.exchange else letter.routing_key
    facts = [
        ("queue", letter.queue),
        ("reason", letter.reason),
        ("died", died),
        ("attempts", _attempts(letter)),
        ("published to", routed),
        ("unreadable", letter.problem),
        ("lost", lost),
        ("message id", envelope.message_id),
        ("type", envelope.type),
        ("correlation id", envelope.correlation_id),
        ("reply to", envelope.reply_to),
        ("content type", envelope.content_type),
        ("sent", "" if envelope.timestamp is None else output.instant(envelope.timestamp)),
        ("sent by", envelope.app_id),
    ]
    return [(name, value) for name, value in facts if value]


def _print_facts(console: Console, title: str, facts: list[tuple[str, str]]) -> None:
    if not facts:
        return
    width = max(len(name) for name, _ in facts)
    _print_block(console, title, "\n".join(f"{name:<{width}}  {value}" for name, value in facts))


def _print_block(console: Console, title: str, text: str) -> None:
    from rich.text import Text

    console.print(Text(title, "bold"), soft_wrap=True)
    for line in printable(text).splitlines():
        console.print(Text(f"  {line}"), soft_wrap=True)


def hex_excerpt(raw: bytes) -> str:
    """The beginning of some bytes, sixteen in a line, beside what is ASCII among them."""
    lines = [
        f"{at:04x}  {raw[at : at + 16].hex(' '):<47}  {_ascii(raw[at : at + 16])}"
        for at in range(0, min(len(raw), _HEX_BYTES), 16)
    ]
    more = len(raw) - _HEX_BYTES
    return "\n".join([*lines, f"... {more} bytes more; --json has them all"] if more > 0 else lines)


def _ascii(raw: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in raw)


def _encodable(value: Any) -> Any:
    """A header that UTF-8 can hold."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def _text(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _age(letter: DeadLetter) -> str:
    return "" if letter.died_at is None else duration(datetime.now(UTC) - letter.died_at)


def _attempts(letter: DeadLetter) -> str:
    return "" if letter.attempts is None else str(letter.attempts)
