"""The commands put together, each with examples."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Final

import typer

from orchestrator.cli import (
    acting,
    check,
    completing,
    contracts,
    dashboard,
    demo,
    dlq,
    doctor,
    erase,
    export,
    failures,
    graph,
    history,
    holding,
    listing,
    migrate,
    purge,
    reindex,
    relay,
    run,
    show,
    start,
    stats,
    topology,
    upgrade,
    watch,
    why,
)
from orchestrator.cli.report import Debugging

if TYPE_CHECKING:
    from orchestrator.bulk import ActionWord

_RUN: Final = "Run"
_SAGAS: Final = "Look at sagas, and act"

app = typer.Typer(
    name="saga",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


topology_commands = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(
    topology_commands,
    name="topology",
    help="What targets need on RabbitMQ: print it, declare it beforehand, or compare it with the broker.",
    rich_help_panel=_RUN,
)

dlq_commands = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(
    dlq_commands,
    name="dlq",
    help="Dead letters, messages that nobody could use: list them, read one, put them back, throw them away.",
    rich_help_panel=_SAGAS,
)


def _add(name: str, command: Callable[..., None], panel: str | None, *examples: str, group: typer.Typer = app) -> None:
    """Add a command; its docstring is its help, each paragraph one flow of text."""
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    told = "\n\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs)
    group.command(name, help=told, rich_help_panel=panel, epilog=_examples(*examples))(command)


def _acts(word: ActionWord, told: str, *examples: str) -> None:
    _add(word, acting.command(word, told), _SAGAS, *examples)


def _examples(*lines: str) -> str:
    """A help text's end; blank lines keep each example on its own."""
    return "\n\n".join(["Examples:", *(line.replace("[", r"\[") for line in lines)])


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"sagasmith {version('sagasmith')}")
        raise typer.Exit


@app.callback(epilog=_examples("saga demo", "saga migrate", "saga run shop.main:app", "saga list --status blocked"))
def saga(
    *,
    version: Annotated[
        bool, typer.Option("--version", metavar="", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", metavar="", help="Show errors with their traceback.")] = False,
) -> None:
    """Business transactions across services: completed, or compensated.

    Settings come from flags, the environment (ORCHESTRATOR_*, MESSAGING_*), .env and saga.toml, in this order.
    Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 refused by the saga's state, 5 a service unreachable,
    6 a waited-for saga did not complete, 130 interrupted.
    """
    Debugging.wanted = debug


_add(
    "demo", demo.demo, _RUN, "saga demo", "saga demo --fail ReservingCredit", "saga demo --sagas 50 --database shop.db"
)
_add(
    "migrate",
    migrate.migrate,
    _RUN,
    "saga migrate",
    "saga migrate --check",
    "saga migrate --only messaging --url postgresql://...",
)
_add(
    "run",
    run.run,
    _RUN,
    "saga run shop.main:app",
    "saga run shop.main:app shop.services:orders shop.services:customers",
    "saga run shop.main:app --reload --log-level debug",
    "saga run shop.main:app --dashboard 127.0.0.1:8700",
)
_add(
    "dashboard",
    dashboard.dashboard,
    _RUN,
    "saga dashboard",
    "saga dashboard --app shop.main:app --listen 127.0.0.1:8700",
    "DASHBOARD_TOKEN=... saga dashboard --listen 0.0.0.0:8700",
)
_add(
    "relay",
    relay.relay,
    _RUN,
    "saga relay --database-url postgresql://... --broker-url amqp://...",
    "saga relay --poll 1 --log-format json",
)
_add(
    "check",
    check.check,
    _RUN,
    "saga check shop.main:app",
    "saga check --strict --json",
)
_add(
    "graph",
    graph.graph,
    _RUN,
    "saga graph create-order --app shop.main:app",
    "saga graph create-order --svg > create-order.svg",
    "saga graph --statuses",
)
_add(
    "schema",
    contracts.schema,
    _RUN,
    "saga schema shop.services:payments shop.main:app",
    "saga schema shop.services:payments --json",
    "saga schema shop.services:payments --out schemas",
)
_add(
    "asyncapi",
    contracts.asyncapi,
    _RUN,
    "saga asyncapi shop.main:app shop.services:payments > asyncapi.json",
    "saga asyncapi shop.services:payments --title Shop --of-version 1.4.0",
)
_add(
    "show",
    topology.show,
    None,
    "saga topology show shop.services:orders",
    "saga topology show shop.main:app shop.services:orders --json",
    group=topology_commands,
)
_add(
    "apply",
    topology.apply,
    None,
    "saga topology apply shop.main:app shop.services:orders",
    "MESSAGING_TOPOLOGY=passive saga topology apply shop.services:orders --broker-url amqps://admin:...@mq/",
    group=topology_commands,
)
_add("check", topology.check, None, "saga topology check shop.main:app shop.services:orders", group=topology_commands)
_add("doctor", doctor.doctor, _RUN, "saga doctor", "saga doctor shop.services:mailer --json")
_add(
    "start",
    start.start,
    _SAGAS,
    """saga start create-order --app shop.main:app --data '{"order_id": "1001"}'""",
    "saga start create-order --data @order.json --key 1001 --wait --timeout 30",
)
_add(
    "list",
    listing.list_sagas,
    _SAGAS,
    "saga list",
    "saga list --status blocked",
    "saga list --saga create-order --key 1001 --json",
    "saga list --status blocked --limit 10000 --csv > blocked.csv",
    "saga list --where customer=c-17 --where channel=web",
    "saga list --error sold-out --older-than 2h --after 019f6d3a-...",
)
_add("show", show.show, _SAGAS, "saga show 019f6d3a-...", "saga show 019f6d3a-... --json")
_add("why", why.why, _SAGAS, "saga why 019f6d3a-...", "saga why 019f6d3a-... --json")
_add(
    "export", export.export, _SAGAS, "saga export 019f6d3a-... --as-test --app shop.main:app > tests/test_order_1001.py"
)
_add("history", history.history, _SAGAS, "saga history 019f6d3a-...", "saga history 019f6d3a-... --json")
_add("failures", failures.failures, _SAGAS, "saga failures", "saga failures --saga create-order --all --since 24h")
_add("stats", stats.stats, _SAGAS, "saga stats --since 24h", "saga stats --saga create-order --steps --csv")
_add("watch", watch.watch, _SAGAS, "saga watch 019f6d3a-...", "saga watch --all")
_add(
    "upgrade",
    upgrade.upgrade,
    _SAGAS,
    "saga upgrade create-order --from 1 --dry-run --app shop.main:app",
    """saga upgrade create-order --from 1 --to 2 --reason "v1 goes\"""",
)
_add(
    "hold",
    holding.hold,
    _SAGAS,
    """saga hold create-order --version 7 --reason "its refunds fail\"""",
    """saga hold create-order --reason "the bank is closed" --dry-run""",
)
_add("release", holding.release, _SAGAS, """saga release create-order --version 7 --reason "v8 is deployed\"""")
_add("holds", holding.holds, _SAGAS, "saga holds", "saga holds --json")
_add("reindex", reindex.reindex, _SAGAS, "saga reindex create-order --app shop.main:app")
_acts(
    "cancel",
    "Have sagas undone. Refused once the pivot is out or passed, and after the end (exit code 4).",
    """saga cancel 019f6d3a-... --reason "ordered twice\"""",
    """saga cancel --saga create-order --at AwaitingPayment --older-than 7d --reason "never paid" --dry-run""",
    """saga cancel 019f6d3a-... --reason "ordered twice" --simulate --app shop.main:app""",
)
_acts(
    "retry",
    "Have blocked sagas try again. Refused when they are not blocked, or at another step (exit code 4).",
    """saga retry 019f6d3a-... --reason "stock corrected\"""",
    """saga retry --saga create-order --at ShippingOrder --reason "the carrier is back" --rate 20""",
    """saga retry --where carrier=north --reason "the carrier is back\"""",
)
_acts(
    "pause",
    "Have sagas stand still: nothing is sent, what arrives is kept, time does not count, until they are resumed.",
    """saga pause 019f6d3a-... --reason "the warehouse is closed\"""",
    """saga pause --all --reason "maintenance" --yes""",
)
_acts(
    "skip",
    "Have blocked sagas go on without the step they are blocked at. "
    "A skipped pivot counts as passed. Without an undo a saga ends as compensated_with_exceptions.",
    """saga skip 019f6d3a-... --step Mailing --reason "no address is known\"""",
)
_acts(
    "resolve",
    "Tell blocked sagas that you have done by hand what the step they are blocked at, or its undo, was to do.",
    """saga resolve 019f6d3a-... --reason "refunded by hand\"""",
)
_acts(
    "compensate",
    "Have sagas turn back, blocked or not. Refused once the pivot is out or passed (exit code 4).",
    """saga compensate 019f6d3a-... --reason "no hope for stock\"""",
    """saga compensate --status blocked --error sold-out --reason "no hope for stock\"""",
)
_acts(
    "abandon",
    "Give sagas up as they stand: nothing of them is sent, awaited or undone any more. There is no way back.",
    """saga abandon 019f6d3a-... --reason "settled on the telephone\"""",
)
_add(
    "complete",
    completing.complete,
    _SAGAS,
    "saga complete HQ3v...",
    """saga complete HQ3v... --data '{"approved_by": "ann"}'""",
    """saga complete HQ3v... --failure too-expensive --data '{"reason": "over 10,000"}'""",
)
_acts(
    "resume",
    "Have paused sagas go on, with what arrived meanwhile first. Refused when they are not paused (exit code 4).",
    """saga resume 019f6d3a-... --reason "the warehouse is open\"""",
    """saga resume --all --reason "maintenance is over" --yes""",
)
_add(
    "erase",
    erase.erase,
    _SAGAS,
    """saga erase 019f6d3a-... --reason "demanded, case 118\"""",
    """saga erase --saga create-order --key 1001 --reason "demanded, case 118" --dry-run""",
)
_add(
    "purge",
    purge.purge,
    _RUN,
    "saga purge --older-than 30d --status completed --dry-run",
    "saga purge --older-than 30d --archive /var/archive/sagas --app shop.main:app",
    "saga purge --yes --rate 200",
)
_add(
    "list",
    dlq.list_letters,
    None,
    "saga dlq list",
    "saga dlq list --queue payments --reason handler-raised --older-than 1h",
    "saga dlq list --queue payments --json",
    group=dlq_commands,
)
_add("show", dlq.show_letter, None, "saga dlq show 0198c0de-... --queue payments", group=dlq_commands)
_add(
    "replay",
    dlq.replay_letters,
    None,
    "saga dlq replay --queue payments --type payments.charge --dry-run",
    "saga dlq replay --queue payments --reason OperationalError",
    "saga dlq replay --id 0198c0de-...",
    group=dlq_commands,
)
_add(
    "purge",
    dlq.purge_letters,
    None,
    "saga dlq purge --queue payments --older-than 30d",
    "saga dlq purge --id 0198c0de-... --yes",
    group=dlq_commands,
)
