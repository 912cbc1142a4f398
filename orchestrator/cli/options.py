"""Options that several commands share, and how their values are read."""

from __future__ import annotations

from typing import Annotated, TypeAlias
from uuid import UUID

import typer


def parsed_id(text: str) -> UUID:
    """Read a saga's id.

    Raises:
        BadParameter: it is none.
    """
    try:
        return UUID(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no saga id. Find it with: saga list") from None


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
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Reason: TypeAlias = Annotated[
    str, typer.Option("--reason", "-r", metavar="TEXT", help="Why; it is kept with the saga.", show_default=False)
]
