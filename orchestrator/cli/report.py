"""From exceptions to a line on stderr and an exit code; tracebacks only when they are asked for."""

from __future__ import annotations

import functools
import select
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import typer

from orchestrator.cli import exits
from orchestrator.cli.exits import CommandError

P = ParamSpec("P")
T = TypeVar("T")


class Debugging:
    """Whether errors are shown as tracebacks: `saga --debug ...`."""

    wanted = False


def reported(command: Callable[P, T]) -> Callable[P, T]:
    """Let a command end with what went wrong on stderr, and the exit code that says so."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            raise typer.Exit(exits.INTERRUPTED) from None
        except typer.Exit:
            raise
        except Exception as error:
            if Debugging.wanted or _is_ours(error) or _nobody_reads(error):
                raise
            from messaging.printable import printable

            text, code = explained(error)
            typer.secho(f"saga: {printable(text)}", err=True, fg=typer.colors.RED)
            raise typer.Exit(code) from None

    return run


def _is_ours(error: Exception) -> bool:
    """Whether typer shows it itself, as it does for wrong usage."""
    return isinstance(error, typer.BadParameter)


def _nobody_reads(error: Exception) -> bool:
    """Whether the reader of our output has gone, as `head` does, and no connection: typer ends quietly then."""
    if not isinstance(error, BrokenPipeError):
        return False
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in output.poll(0))


def explained(error: Exception) -> tuple[str, int]:
    """What to tell about an error, and the exit code."""
    if isinstance(error, CommandError):
        return error.text, error.code
    code = _known_code(error)
    if code is not None:
        return str(error), code
    return (
        f"unexpected {type(error).__name__}: {error}\nThe traceback: run it again with --debug before the command.",
        exits.FAILED,
    )


def _known_code(error: Exception) -> int | None:
    """The exit code of an error whose text is for people already."""
    from messaging import errors as bus
    from orchestrator import errors

    codes: tuple[tuple[type[Exception], int], ...] = (
        (errors.UnknownSaga, exits.NOT_FOUND),
        (errors.UnknownToken, exits.NOT_FOUND),
        (errors.UnknownDefinition, exits.NOT_FOUND),
        (errors.ActionRefused, exits.REFUSED),
        (errors.HoldRefused, exits.REFUSED),
        (errors.StateUnusable, exits.USAGE),
        (errors.SagaDefinitionError, exits.USAGE),
        (bus.SettingsError, exits.USAGE),
        (bus.TopologyMismatch, exits.FAILED),
        (bus.TopologyMissing, exits.FAILED),
        (bus.UnknownQueue, exits.NOT_FOUND),
        (bus.TransportError, exits.UNREACHABLE),
        (errors.SagaError, exits.FAILED),
        (bus.MessagingError, exits.FAILED),
    )
    return next((code for kind, code in codes if isinstance(error, kind)), None)
