"""`saga graph`: a saga's steps, or the statuses of all sagas, as a diagram."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import exits, options
from orchestrator.cli.exits import CommandError
from orchestrator.cli.report import reported

if TYPE_CHECKING:
    from orchestrator.definition import Saga


@reported
def graph(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The saga's name; not needed where there is only one.")
    ] = "",
    *,
    mermaid: Annotated[bool, typer.Option("--mermaid", metavar="", help="A Mermaid flowchart; the default.")] = False,
    dot: Annotated[bool, typer.Option("--dot", metavar="", help="A DOT digraph, for Graphviz.")] = False,
    svg: Annotated[bool, typer.Option("--svg", metavar="", help="A picture; no other program is needed.")] = False,
    statuses: Annotated[
        bool, typer.Option("--statuses", metavar="", help="The statuses that any saga may have.")
    ] = False,
    app: options.AppTarget = None,
    app_dir: options.AppDir = ".",
) -> None:
    """Print a saga's steps as a diagram: commands, participants, compensations, waits, and the pivot.

    With --statuses: which status may follow which, of any saga, as a Mermaid state diagram.
    """
    from orchestrator import graph as graphs

    if mermaid + dot + svg + statuses > 1:
        raise CommandError("say one of --mermaid, --dot, --svg and --statuses", exits.USAGE)
    if statuses:
        typer.echo(graphs.statuses(), nl=False)
        return
    saga = _saga_of(name, app, app_dir)
    if svg:
        from orchestrator.graph_svg import svg as picture

        typer.echo(picture(saga), nl=False)
        return
    typer.echo(graphs.dot(saga) if dot else graphs.mermaid(saga), nl=False)


def _saga_of(name: str, app: str | None, app_dir: str) -> type[Saga[Any]]:
    from orchestrator.cli.config import orchestrator_settings
    from orchestrator.cli.start import named
    from orchestrator.cli.targets import loaded_app

    registry = loaded_app(orchestrator_settings(None, app).app, app_dir=app_dir).registry
    names = sorted({pin.name for pin in registry.pins})
    if not name and len(names) != 1:
        raise CommandError(f"which saga? Known: {', '.join(names)}", exits.USAGE)
    return named(registry, name or names[0])
