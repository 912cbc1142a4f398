"""What operators may ask for, `saga cancel` and the like: of one saga or of many; ask, and wait for the answer."""

from __future__ import annotations

import asyncio
import getpass
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias
from uuid import UUID

import typer

from orchestrator.cli import exits, many, options, output
from orchestrator.cli import simulate as would
from orchestrator.cli.exits import CommandError
from orchestrator.cli.report import reported

if TYPE_CHECKING:
    from orchestrator.bulk import ActionWord
    from orchestrator.status import SagaRow

ON_A_STEP: Final = ("retry", "skip", "resolve")
"""Actions on the step that a saga is blocked at; the others are on the saga as a whole."""

Ids: TypeAlias = Annotated[
    list[UUID] | None, typer.Argument(metavar="ID", parser=options.parsed_id, help="Of these sagas.")
]
Step: TypeAlias = Annotated[
    str, typer.Option("--step", "-s", metavar="STEP", help="Which step, if you want to be sure.", show_default=False)
]
All: TypeAlias = Annotated[bool, typer.Option("--all", metavar="", help="All that can be asked for this.")]
Simulate: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--simulate", metavar="", help="Tell what it would do to each; nothing is written or sent. Needs --app."
    ),
]
Rate: TypeAlias = Annotated[float, typer.Option(min=0.1, metavar="N", help="Ask at most so many a second.")]


def command(word: ActionWord, told: str) -> Callable[..., None]:
    """Make the command for one action; `told` is its help."""

    @reported
    def act(
        ids: Ids = None,
        *,
        reason: options.Reason,
        step: Step = "",
        saga: options.SagaName = None,
        status: options.Status = None,
        key: options.Key = None,
        at: options.At = None,
        error: options.Error = None,
        where: options.Where = None,
        older_than: options.OlderThan = None,
        limit: options.Limit = None,
        everything: All = False,
        rate: Rate = 100,
        dry_run: options.DryRun = False,
        simulate: Simulate = False,
        yes: options.Yes = False,
        app: options.AppTarget = None,
        app_dir: options.AppDir = ".",
        database_url: options.DatabaseUrl = None,
        as_json: options.AsJson = False,
    ) -> None:
        order = many.Order(word, reason, step, who())
        in_state = tuple(options.parsed_where(where).items())
        chosen = many.Choice(saga, status, key, at, error, in_state, older_than, limit, everything)
        many.refuse_unclear(word, ids or [], chosen)
        if simulate:
            would.simulate(order, ids or [], chosen, would.Where(database_url, app, app_dir), as_json=as_json)
        elif ids and len(ids) == 1 and not dry_run:
            _act_on_one(ids[0], order, database_url, as_json=as_json)
        else:
            many.act(order, ids or [], chosen, many.Manner(rate, dry_run, yes, as_json), database_url)

    act.__doc__ = f"{told}\n\n{_OF_MANY.format(word=word)}"
    _hide_step(act, hidden=word not in ON_A_STEP)
    return act


_OF_MANY: Final = """Give one id, or several; or choose with --saga, --status, --key, --at, --error, --where and
--older-than among those that {word} can be asked of, or take all of these with --all. How many they are is told and
asked about before, unless --yes is said. What came of several is told line by line, and the worst of it is the exit
code."""


def _hide_step(command: Callable[..., None], *, hidden: bool) -> None:
    """Typer takes a command's options from its signature."""
    signature = inspect.signature(command, eval_str=True)
    shown = [one for name, one in signature.parameters.items() if name != "step" or not hidden]
    setattr(command, "__signature__", signature.replace(parameters=shown))  # noqa: B010 - unknown to the type checkers


def _act_on_one(saga_id: UUID, order: many.Order, database_url: str | None, *, as_json: bool) -> None:
    from orchestrator.cli.describe import how_it_stands

    row = asyncio.run(_asked(saga_id, order, database_url))
    if as_json:
        output.print_json(row)
    else:
        output.say(f"Accepted: {how_it_stands(row)}")


async def _asked(saga_id: UUID, order: many.Order, database_url: str | None) -> SagaRow:
    async with many.client(database_url) as sagas:
        [result] = [one async for one in order.given_to(sagas, [saga_id])]
        if isinstance(result.error, TimeoutError):
            raise CommandError(str(result.error), exits.UNREACHABLE)
        if result.error is not None:
            raise result.error
        return await sagas.get(saga_id)


def who() -> str:
    """The name of whoever runs this command, if it has one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        return ""
