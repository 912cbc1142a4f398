"""`saga migrate`: bring a database up to date."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from orchestrator.cli import exits
from orchestrator.cli.exits import CommandError
from orchestrator.cli.report import reported


class Only(StrEnum):
    """Part of the tables."""

    MESSAGING = "messaging"


@reported
def migrate(
    *,
    check: Annotated[
        bool, typer.Option("--check", metavar="", help="Change nothing; exit with 1 when it is behind.")
    ] = False,
    only: Annotated[
        Only | None, typer.Option(help="Just outbox, inbox and dead letters, for a participant's own database.")
    ] = None,
    database_url: Annotated[
        str | None, typer.Option("--url", "--database-url", metavar="URL", help="Of the database.", show_default=False)
    ] = None,
    sql: Annotated[
        bool, typer.Option("--sql", metavar="", help="Print the SQL for a new database and touch none.")
    ] = False,
    installation: Annotated[
        str, typer.Option(metavar="NAME", help="What to call this installation, at the first time.")
    ] = "main",
) -> None:
    """Create or update the tables. Safe to repeat, and to run while another process does."""
    from orchestrator.cli.config import orchestrator_settings
    from orchestrator.sql.migrate import upgrade

    settings = orchestrator_settings(database_url)
    part, schema = (only.value if only else None), settings.database_schema
    if sql:
        typer.echo(upgrade(settings.url, only=part, schema=schema, sql=True, installation=installation))
        return
    behind = _behind(settings.url, settings.shown_url, part, schema, check)
    if check:
        _tell_check(behind, settings.shown_url, part)
        return
    if behind:
        upgrade(settings.url, only=part, schema=schema, installation=installation)
        typer.echo(f"{settings.shown_url} is up to date now ({', '.join(behind)}).")
    else:
        typer.echo(f"{settings.shown_url} is up to date.")


def _behind(url: str, shown_url: str, only: str | None, schema: str | None, looks_only: bool) -> list[str]:
    from sqlalchemy import make_url
    from sqlalchemy.exc import DBAPIError

    from orchestrator.sql import migrate

    parsed = make_url(url)
    if looks_only and parsed.get_backend_name() == "sqlite":
        from orchestrator.cli.config import orchestrator_settings
        from orchestrator.cli.database import refuse_missing_file

        refuse_missing_file(orchestrator_settings(url))
    try:
        return migrate.check(url, only=only, schema=schema)
    except DBAPIError as error:
        detail = str(error.orig).strip()
        raise CommandError(f"the database {shown_url} cannot be reached: {detail}", exits.UNREACHABLE) from error
    except ModuleNotFoundError as error:
        raise CommandError(
            f"the driver {error.name} is not installed. Run: pip install 'sagasmith[postgres]'"
        ) from error


def _tell_check(behind: list[str], shown_url: str, only: str | None) -> None:
    if not behind:
        typer.echo(f"{shown_url} is up to date.")
        return
    count = "1 revision" if len(behind) == 1 else f"{len(behind)} revisions"
    remedy = "saga migrate" if only is None else f"saga migrate --only {only}"
    raise CommandError(f"Schema is {count} behind ({', '.join(behind)}) in {shown_url}. Run: {remedy}")
