"""All of it in one process, with files and nothing else: `python -m money_transfer.main`."""

from __future__ import annotations

import asyncio

from money_transfer.sagas import TransferMoney
from money_transfer.services import accounts, letters, prepare
from orchestrator import Orchestrator, run

app = Orchestrator(sagas=[TransferMoney])

if __name__ == "__main__":
    asyncio.run(prepare())
    run(app, accounts, letters)
