"""`saga demo`: a shop in one process, told as it happens."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.report import reported


class FailingStep(StrEnum):
    """A step of the demo's saga."""

    CREATING_ORDER = "CreatingOrder"
    RESERVING_CREDIT = "ReservingCredit"
    RESERVING_STOCK = "ReservingStock"
    AWAITING_PAYMENT = "AwaitingPayment"
    SHIPPING_ORDER = "ShippingOrder"


@reported
def demo(
    *,
    fail: Annotated[
        FailingStep | None, typer.Option(help="Have this step go wrong in every order.", show_default=False)
    ] = None,
    sagas: Annotated[int, typer.Option(min=1, max=2000, metavar="N", help="How many orders.")] = 5,
    database: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="Keep sagas in this SQLite file; else a new temporary one."),
    ] = None,
) -> None:
    """Run a small shop in this process and tell what becomes of each order.

    Needs no broker and no database server. The sagas stay in a SQLite file that you can ask afterwards.
    """
    from orchestrator.cli.telling import Demo

    file = database or _new_file()
    asyncio.run(Demo(file, fail.value if fail else "", sagas).run())


def _new_file() -> Path:
    from tempfile import mkdtemp

    return Path(mkdtemp(prefix="saga-demo-")) / "saga.db"
