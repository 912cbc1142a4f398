"""`saga schema` and `saga asyncapi`: what services and sagas say to each other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import exits, options, output
from orchestrator.cli.exits import CommandError
from orchestrator.cli.report import reported

if TYPE_CHECKING:
    from messaging.contracts import Contract, Party

Targets = Annotated[
    list[str], typer.Argument(metavar="TARGET...", help="MODULE:ATTRIBUTE of services and orchestrators.")
]


@reported
def schema(
    targets: Targets,
    *,
    out: Annotated[
        str, typer.Option("--out", metavar="DIR", help="Write a file NAME.json for each message.", show_default=False)
    ] = "",
    app_dir: options.AppDir = ".",
    as_json: options.AsJson = False,
) -> None:
    """List the messages of services and sagas by their names on the wire, or print their JSON Schemas.

    Commands, replies, failures and events, each with its version, who handles it and who sends it. Which events
    a service publishes, it says itself: Service(..., publishes=[...]).
    """
    from messaging.contracts import contracts_of

    if out and as_json:
        raise CommandError("say one of --json and --out", exits.USAGE)
    contracts = contracts_of(_parties(targets, app_dir))
    if out:
        _write(contracts, Path(out))
    elif as_json:
        output.print_json({name: _told(contract) for name, contract in contracts.items()})
    else:
        _print(contracts)


@reported
def asyncapi(
    targets: Targets,
    *,
    title: Annotated[str, typer.Option("--title", help="The system's name; else the targets'.")] = "",
    version: Annotated[str, typer.Option("--of-version", help="The system's version.")] = "1.0.0",
    app_dir: options.AppDir = ".",
) -> None:
    """Print an AsyncAPI 3.0 document, as JSON: queues as channels, what is handled and sent as operations.

    Names of queues and exchanges begin with the configured prefix.
    """
    from messaging.contracts import asyncapi as document
    from orchestrator.cli.config import messaging_settings

    parties = _parties(targets, app_dir)
    name = title or ", ".join(party.name for party in parties)
    written = document(parties, title=name, version=version, prefix=messaging_settings().prefix)
    typer.echo(_pretty(written))


def _parties(targets: list[str], app_dir: str) -> list[Party]:
    from messaging.contracts import party_of
    from orchestrator.app import Orchestrator
    from orchestrator.cli.targets import loaded
    from orchestrator.contracts import party_of_sagas

    found = [loaded(target, app_dir=app_dir) for target in targets]
    return [party_of_sagas(one.registry) if isinstance(one, Orchestrator) else party_of(one) for one in found]


def _write(contracts: Mapping[str, Contract], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, contract in contracts.items():
        told = _told(contract)
        dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
        more = {f"x-{word.replace('_', '-')}": value for word, value in told.items() if word != "schema"}
        (folder / f"{name}.json").write_text(_pretty({**dialect, **contract.schema, **more}) + "\n")
    typer.echo(f"{len(contracts)} schemas written to {folder}.", err=True)


def _told(contract: Contract) -> dict[str, Any]:
    told: dict[str, Any] = output.plain(contract)
    return {word: value for word, value in told.items() if value not in ("", []) or word == "schema"}


def _print(contracts: Mapping[str, Contract]) -> None:
    console = output.console()
    table = output.table(
        "name", "kind", "version", "handled by", "sent by", "answered with", terminal=console.is_terminal
    )
    for contract in contracts.values():
        answers = ", ".join(name for name in (contract.reply, *contract.failures) if name)
        people = (", ".join(contract.handled_by), ", ".join(contract.sent_by), answers)
        table.add_row(contract.name, contract.kind.value, str(contract.version), *people)
    output.print_table(console, table)


def _pretty(value: Any) -> str:
    return json.dumps(output.plain(value), ensure_ascii=False, indent=2)
