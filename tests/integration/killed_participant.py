"""A participant as a process, to be killed at a failpoint: charges once, answers, and tells others.

Its surroundings come in the environment: DATABASE_URL, and the settings of the bus. Ends on SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import timedelta

from sqlalchemy import Column, MetaData, String, Table, insert
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from messaging import Command, Context, Event, Reply, Service, ServiceRunner
from messaging.outbox import RelaySettings
from messaging.settings import MessagingSettings
from messaging.wiring import transport_from

own = MetaData()
charges = Table("charges", own, Column("number", String))  # nothing unique: a second charge would be seen


class Charged(Reply):
    number: str


class Charge(Command[Charged]):
    number: str


class Paid(Event):
    number: str


def payments(database_url: str) -> Service:
    service = Service("payments", sessions=async_sessionmaker(create_async_engine(database_url)))

    @service.handles(Charge)
    async def charge(command: Charge, context: Context) -> Charged:
        await context.session.execute(insert(charges).values(number=command.number))
        await context.publish(Paid(number=command.number))
        return Charged(number=command.number)

    return service


async def main() -> None:
    transport = transport_from(MessagingSettings())
    await transport.open()
    # A short lease: what a killed relay had claimed is to be sent again within the test's patience.
    relay = RelaySettings(poll=timedelta(milliseconds=50), lease=timedelta(seconds=1))
    runner = ServiceRunner(payments(os.environ["DATABASE_URL"]), transport, relay=relay)
    await runner.start()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    print("ready", flush=True)
    await stopped.wait()
    await runner.stop()
    await transport.close()


if __name__ == "__main__":
    asyncio.run(main())
