"""`saga purge` and `saga erase`: what has ended is deleted, archived before if wanted, or loses what it knew."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import exits
from tests.unit.cli.conftest import Shell

NOW = ("--older-than", "0s")


def archived(folder: Path) -> list[dict[str, Any]]:
    files = sorted(folder.glob("*.jsonl.gz"))
    return [json.loads(line) for file in files for line in gzip.decompress(file.read_bytes()).splitlines()]


@pytest.fixture
def ended(working_shell: Shell) -> dict[str, str]:
    """One saga of each end, and one that goes on."""
    well = working_shell.start("well", "--key", "w-1", "--wait")
    refused = working_shell(
        "start", "paint-wall", "--data", '{"name": "north", "ends": "refused"}', "--wait", "--json"
    ).json["saga_id"]
    waiting = working_shell.start("waiting")
    return {"well": well, "refused": refused, "waiting": waiting}


def test_what_has_ended_is_counted_asked_about_archived_and_deleted(
    working_shell: Shell, ended: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "archive"
    told = working_shell("purge", *NOW, "--dry-run")
    assert (told.code, told.out) == (0, "would delete 2 sagas (completed: 1, compensated: 1)\n")
    assert working_shell("purge", *NOW, "--dry-run", "--json").json["would_delete"] == {
        "completed": 1,
        "compensated": 1,
    }
    no = working_shell("purge", *NOW, typed="n\n")
    assert (no.code, "Delete 2 sagas" in no.err, "nothing was deleted" in no.err) == (exits.FAILED, True, True)
    assert "Without a terminal, say --yes" in working_shell("purge", *NOW, typed="").err

    done = working_shell("purge", *NOW, "--archive", str(folder), "--json", "--yes")

    assert (done.code, done.json["deleted"]) == (0, {"completed": 1, "compensated": 1}), done.err
    assert {one["id"]: one["status"] for one in archived(folder)} == {
        ended["well"]: "completed",
        ended["refused"]: "compensated",
    }
    [well] = [one for one in archived(folder) if one["id"] == ended["well"]]
    assert (well["format"], well["name"], well["business_key"]) == (1, "paint-wall", "w-1")
    assert well["state"] == {"name": "north", "ends": "well", "coats": 1, "remark": "north is painted"}
    painting = well["steps"][0]
    assert (painting["step"], painting["status"], painting["sent"]["name"]) == ("Painting", "succeeded", "north")
    assert (folder.stat().st_mode & 0o777, next(folder.iterdir()).stat().st_mode & 0o777) == (0o700, 0o600)

    gone = working_shell("show", ended["well"])
    assert gone.code == exits.NOT_FOUND and "('paint-wall', key 'w-1') ended as completed and was deleted" in gone.err
    assert working_shell("show", ended["refused"]).code == exits.NOT_FOUND
    assert working_shell("show", ended["waiting"]).code == 0
    assert working_shell.start("well", "--key", "w-1") == ended["well"], "its key stays taken"
    assert working_shell("purge", *NOW, "--yes").out == "deleted 0 sagas\n"


def test_what_may_go_must_be_said_and_have_ended(shell: Shell) -> None:
    nothing = shell("purge")
    assert nothing.code == exits.USAGE and "Say --older-than 30d" in nothing.err
    alive = shell("purge", *NOW, "--status", "running")
    assert alive.code == exits.USAGE and "running sagas have not ended" in alive.err


def test_the_settings_say_what_goes_and_what_cannot_be_archived_stays(
    working_shell: Shell, ended: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = ("--archive", str(tmp_path / "archive"), "--app", "orchestrator.demo:app")
    unknown = working_shell("purge", *NOW, "--yes", *other)
    assert unknown.code == exits.NOT_FOUND and "not archived, and so not deleted: 2" in unknown.err
    assert not (tmp_path / "archive").exists()

    monkeypatch.setenv("ORCHESTRATOR_KEEP_COMPLETED_DAYS", "0.0000001")
    assert working_shell("purge", "--yes", "--json").json["deleted"] == {"completed": 1}
    assert working_shell("show", ended["refused"]).code == 0


def test_what_ended_sagas_knew_is_erased_and_who_asked_is_kept(working_shell: Shell, ended: dict[str, str]) -> None:
    reason = ("--reason", "case 118")
    choice = ("erase", "--saga", "paint-wall", *reason)
    assert "would erase" in working_shell(*choice, "--dry-run").out
    assert "nothing was asked" in working_shell(*choice, typed="n\n").err
    assert "north" in working_shell("export", ended["well"], "--as-test").out

    erased = working_shell(*choice, "--yes", "--json")

    results = {line["saga_id"]: line["result"] for line in map(json.loads, erased.out.splitlines())}
    assert (erased.code, results) == (0, {ended["well"]: "done", ended["refused"]: "done"})
    assert "participants" in erased.err and "backups" in erased.err
    shown = working_shell("show", ended["well"], "--json").json
    assert (shown["audit"][0]["action"], shown["audit"][0]["reason"]) == ("erase", "case 118")
    assert "north" not in working_shell("show", ended["well"]).out

    alive = working_shell("erase", ended["waiting"], *reason)
    assert alive.code == exits.REFUSED and "only what has ended can be erased" in alive.err
