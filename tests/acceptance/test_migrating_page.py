"""The page on moving from PyMessagingFramework 2.x: its programs, with the real package, on a broker of their own.

Of its own because the package's exchanges have fixed names: they would be there already for whoever starts first.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.support.broker import Broker
from tests.support.cached import python_with
from tests.support.private import PrivateRabbit
from tests.support.programs import ROOT, Program, Programs, eventually

PAGE = (ROOT / "docs" / "migrating.md").read_text()
TOLD = ["shows: grüße 1", "heard: DirectShown one", "heard: FanoutShown all", "heard: TopicShown some"]


@pytest.fixture
def old_python() -> str:
    """The interpreter of an environment that has the old package, and nothing of ours."""
    return str(python_with("PyMessagingFramework==2.0.1"))


@pytest.fixture
def programs(private_rabbit: PrivateRabbit) -> Iterator[Programs]:
    """The programs of the page."""
    settings = {"MESSAGING_BROKER_URL": private_rabbit.url, "MESSAGING_PYMESSAGINGFRAMEWORK": "true"}
    with Programs({**settings, "BROKER_PORT": str(urlsplit(private_rabbit.url).port)}) as programs:
        for name, program in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL):
            (programs.folder / name).write_text(program)
        yield programs


@pytest.mark.timeout(400)  # the first time, the package is installed
async def test_old_and_new_services_talk_in_both_directions_whoever_starts_first(
    programs: Programs, old_python: str, private_rabbit: PrivateRabbit
) -> None:
    async with Broker(private_rabbit.url) as broker:
        await asyncio.to_thread(a_service_that_has_moved_reads_old_senders, programs, old_python)
        for exchange in ("direct_exchange", "fanout_exchange", "topic_exchange"):
            await broker.delete_exchange(exchange)
        await broker.delete_queue("screen")
        await asyncio.to_thread(an_old_service_reads_senders_that_have_moved, programs, old_python)


def a_service_that_has_moved_reads_old_senders(programs: Programs, old_python: str) -> None:
    screen = programs.start(sys.executable, "screen.py")
    screen.wait_until_it_says("Running service 'screen'")

    programs.done(programs.start(old_python, "old_sender.py"))

    eventually(lambda: has_told(screen), because=programs.tails)
    screen.kill()


def an_old_service_reads_senders_that_have_moved(programs: Programs, old_python: str) -> None:
    """It starts after a sender of ours has declared the exchanges, and hears the next one."""
    without_the_command = re.sub(r"\n    bus\.send.*", "", (programs.folder / "sender.py").read_text())
    (programs.folder / "events.py").write_text(without_the_command)
    programs.done(programs.start(sys.executable, "events.py"))
    screen = programs.start(old_python, "old_screen.py")
    screen.wait_until_it_says("old screen is ready")

    programs.done(programs.start(sys.executable, "sender.py", MESSAGING_PYMESSAGINGFRAMEWORK_QUEUES="screen"))

    eventually(lambda: has_told(screen), because=programs.tails)


def has_told(screen: Program) -> bool:
    # By words, not lines: its handlers run in threads, and what they print may get into each other's lines.
    return set(re.findall(r"\w+", " ".join(TOLD))) <= set(re.findall(r"\w+", screen.said))
