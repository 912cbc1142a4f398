"""The program as a process of its own: it ends by itself, drains when told to, and is quick to explain itself."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAGA = (sys.executable, "-m", "orchestrator")
WALLS = "tests.unit.cli.walls"


def environment(folder: Path, **more: str) -> Mapping[str, str]:
    """What a process sees: this tree, a database in the test's folder, no settings of whoever runs the tests."""
    strangers = ("ORCHESTRATOR_", "MESSAGING_", "FORCE_COLOR")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(strangers)}
    database = f"sqlite+aiosqlite:///{folder / 'saga.db'}"
    return {**inherited, "PYTHONPATH": str(ROOT), "ORCHESTRATOR_DATABASE_URL": database, **more}


def saga(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*SAGA, *arguments],
        cwd=folder,
        env=environment(folder, **more),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@contextmanager
def begun(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command beside the test; killed at the end if it still runs."""
    process = subprocess.Popen(
        [*SAGA, *arguments],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """Read lines of a process's stderr up to one with these words; the test's timeout bounds it."""
    assert process.stderr is not None
    read = ""
    for text in process.stderr:
        read += text
        if words in text:
            return read
    raise AssertionError(f"it ended without saying {words!r}:\n{read}")


def test_help_needs_neither_the_database_nor_the_models(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['saga', '--help']\n"
        "from orchestrator.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'pydantic', 'sqlalchemy', 'aio_pika'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, text=True, timeout=90, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("saga re", {"relay", "release", "reindex", "retry", "resolve", "resume"}),
        ("saga dlq ", {"list", "show", "replay", "purge"}),
        ("saga list --status comp", {"compensating", "completed", "compensated", "compensated_with_exceptions"}),
        ("saga retry --o", {"--older-than"}),
    ],
)
def test_a_shell_completes_commands_options_and_statuses(
    shell: str, typed: str, offered: set[str], tmp_path: Path
) -> None:
    of_bash = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    of_others = {"_TYPER_COMPLETE_ARGS": typed, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    asked = {"_SAGA_COMPLETE": f"complete_{shell}", **(of_bash if shell == "bash" else of_others)}
    done = subprocess.run(
        [Path(sys.executable).with_name("saga")],
        env=environment(tmp_path, **asked),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )

    beginning = r"^(?:_arguments '\*: :\(\()?\"([\w-]+)\"" if shell == "zsh" else r"^([\w-]+)"
    assert set(re.findall(beginning, done.stdout, re.MULTILINE)) == offered, done.stdout


def test_the_demo_tells_each_ending_keeps_its_sagas_and_ends_by_itself(tmp_path: Path) -> None:
    done = saga(tmp_path, "demo", "--database", "shop/demo.db")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("■ completed") == 2
    assert done.stdout.count("■ compensated") == 3
    assert "refused: Bob has 100.00 left, not 899.00" in done.stdout
    assert "no payment-captured in time" in done.stdout
    assert "\x1b" not in done.stdout

    file = re.findall(r'sqlite3 (\S+) "select business_key', done.stdout)
    rows = sqlite3.connect(tmp_path / file[0]).execute("SELECT status FROM saga_status ORDER BY saga_id").fetchall()
    assert [status for (status,) in rows] == ["completed", "compensated", "completed", "compensated", "compensated"]


@pytest.mark.parametrize(
    "step",
    [
        "CreatingOrder",
        pytest.param("ReservingCredit", marks=pytest.mark.torture),
        pytest.param("ReservingStock", marks=pytest.mark.torture),
        "ShippingOrder",
    ],
)
def test_the_demo_lets_a_step_go_wrong_and_undoes_what_came_before(step: str, tmp_path: Path) -> None:
    done = saga(tmp_path, "demo", "--sagas", "1", "--fail", step, "--database", "demo.db")

    assert done.returncode == 0, done.stderr
    assert f"turning back because of {step}" in done.stdout
    assert "■ compensated" in done.stdout
    shop = sqlite3.connect(tmp_path / "demo-shop.db")
    held = shop.execute("SELECT (SELECT count(*) FROM credit_hold) + (SELECT count(*) FROM stock_hold)").fetchone()
    assert held == (0,)


def test_the_demo_goes_on_in_the_file_of_an_earlier_run(tmp_path: Path) -> None:
    for _ in range(2):
        assert (
            saga(tmp_path, "demo", "--sagas", "8", "--fail", "ShippingOrder", "--database", "demo.db").returncode == 0
        )

    rows = sqlite3.connect(tmp_path / "demo.db").execute("SELECT count(*), count(DISTINCT business_key) FROM saga_key")
    assert rows.fetchone() == (16, 16)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_running_engine_says_what_it_runs_and_drains_when_told_to_stop(
    number: signal.Signals, tmp_path: Path
) -> None:
    with begun(tmp_path, "run", f"{WALLS}:app", f"{WALLS}:painter") as process:
        said = read_until(process, "Stop with Ctrl-C")
        assert f"{WALLS}:app: sagas paint-wall on memory://, kept in sqlite+aiosqlite:///{tmp_path}/saga.db" in said

        data = '{"name": "north"}'
        done = saga(tmp_path, "start", "paint-wall", "-d", data, "--app", f"{WALLS}:app", "-w", "--timeout", "90")
        assert done.returncode == 0, done.stderr

        process.send_signal(number)
        assert process.wait(90) == 0


def test_logs_can_be_json_lines_and_data_is_not_mixed_with_them(tmp_path: Path) -> None:
    with begun(tmp_path, "run", f"{WALLS}:app", "--log-format", "json") as process:
        said = read_until(process, "Stop with Ctrl-C")
        process.terminate()
        out, _ = process.communicate(timeout=90)

    assert out == ""
    assert all(line.startswith('{"time": "') for line in said.splitlines())


def test_an_interrupted_watch_exits_with_130_and_no_traceback(tmp_path: Path) -> None:
    assert saga(tmp_path, "migrate").returncode == 0
    with begun(tmp_path, "start", "paint-wall", "-d", '{"name": "n"}', "--app", f"{WALLS}:app", "--wait") as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip()
        process.send_signal(signal.SIGINT)
        assert process.wait(90) == 130
        assert process.stderr is not None and "Traceback" not in process.stderr.read()


def test_a_changed_file_starts_the_engine_again(tmp_path: Path) -> None:
    module = tmp_path / "my_sagas.py"
    module.write_text(f"from {WALLS} import app\n")
    with begun(tmp_path, "run", "my_sagas:app", "--reload") as process:
        read_until(process, "Stop with Ctrl-C")
        module.write_text(f"from {WALLS} import app\n# changed\n")
        read_until(process, "my_sagas.py has changed; starting again")
        read_until(process, "Stop with Ctrl-C")
        process.terminate()
        assert process.wait(30) == 0
