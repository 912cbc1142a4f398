"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Final, TypeAlias
from uuid import UUID

import typer

from orchestrator.errors import SearchRefused
from orchestrator.instance import SagaStatus

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION: Final = re.compile(r"(\d+)([smhd])")


def parsed_id(text: str) -> UUID:
    """Read a saga's id.

    Raises:
        BadParameter: it is none.
    """
    try:
        return UUID(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no saga id. Find it with: saga list") from None


def parsed_duration(text: str) -> timedelta:
    """Read a duration.

    Raises:
        BadParameter: it is none.
    """
    found = _DURATION.fullmatch(text)
    if found is None or len(found[1]) > 6:
        raise typer.BadParameter(f"{text!r} is no duration. Write it as 90s, 15m, 2h or 7d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def parsed_where(conditions: Sequence[str] | None) -> dict[str, str]:
    """Read what is looked for in states.

    Raises:
        BadParameter: it cannot be looked for.
    """
    from orchestrator.searchable import asked_in_words

    try:
        return asked_in_words(conditions or ())
    except SearchRefused as error:
        raise typer.BadParameter(str(error), param_hint="--where") from None


SagaId: TypeAlias = Annotated[UUID, typer.Argument(metavar="ID", parser=parsed_id, help="The saga's id.")]
DatabaseUrl: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        metavar="URL",
        help="Where sagas are kept; else ORCHESTRATOR_DATABASE_URL, .env, saga.toml.",
        show_default=False,
    ),
]
BrokerUrl: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--broker-url",
        metavar="URL",
        help="Where messages go; else MESSAGING_BROKER_URL, .env, saga.toml.",
        show_default=False,
    ),
]
AppTarget: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE:ATTRIBUTE",
        help="Where the sagas are defined; else ORCHESTRATOR_APP, or `app =` in saga.toml.",
        show_default=False,
    ),
]
AppDir: TypeAlias = Annotated[
    str, typer.Option("--app-dir", metavar="DIR", help="Where modules are looked for first.", show_default=True)
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", metavar="", help="Print JSON, for programs.")]
AsCsv: TypeAlias = Annotated[bool, typer.Option("--csv", metavar="", help="Print CSV, with a line of names first.")]
Since: TypeAlias = Annotated[
    timedelta | None,
    typer.Option(
        metavar="AGE",
        parser=parsed_duration,
        help="Only sagas that were started so long ago at most: 90s, 15m, 2h, 7d.",
        show_default=False,
    ),
]
Reason: TypeAlias = Annotated[
    str, typer.Option("--reason", "-r", metavar="TEXT", help="Why; it is kept with the saga.", show_default=False)
]
SagaName: TypeAlias = Annotated[
    str | None, typer.Option("--saga", metavar="NAME", help="Only of this name.", show_default=False)
]
Status: TypeAlias = Annotated[
    SagaStatus | None,
    typer.Option(
        "--status",
        metavar="STATUS",
        help=f"Only in this status: {', '.join(status.value for status in SagaStatus)}.",
        show_default=False,
    ),
]
Key: TypeAlias = Annotated[
    str | None, typer.Option("--key", metavar="KEY", help="Only with this business key.", show_default=False)
]
At: TypeAlias = Annotated[
    str | None, typer.Option("--at", metavar="STEP", help="Only those that wait or are blocked here.")
]
Error: TypeAlias = Annotated[
    str | None, typer.Option("--error", metavar="CODE", help="Only those turned back or blocked by this error.")
]
OlderThan: TypeAlias = Annotated[
    timedelta | None,
    typer.Option(metavar="TIME", parser=parsed_duration, help="Only those started so long ago: 15m, 2h, 7d."),
]
Where: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="FIELD=VALUE",
        help="Only with this value in the state: customer=c-17. Several must all be so.",
        show_default=False,
    ),
]
Limit: TypeAlias = Annotated[int | None, typer.Option(min=1, metavar="N", help="At most so many.", show_default=False)]
DryRun: TypeAlias = Annotated[bool, typer.Option("--dry-run", metavar="", help="Tell which ones, and do nothing.")]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", metavar="", help="Do not ask.")]
