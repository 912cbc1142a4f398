"""Which changes of files start `saga run --reload` again."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.cli.reload import difference, snapshot


def test_a_changed_a_new_and_a_removed_module_are_each_noticed(tmp_path: Path) -> None:
    module = tmp_path / "sagas.py"
    module.write_text("")
    before = snapshot({tmp_path})

    os.utime(module, ns=(1, 1))
    assert difference(before, snapshot({tmp_path})) == module

    before = snapshot({tmp_path})
    (tmp_path / "a_new_one.py").write_text("")
    assert difference(before, snapshot({tmp_path})) == tmp_path / "a_new_one.py"

    before = snapshot({tmp_path})
    module.unlink()
    assert difference(before, snapshot({tmp_path})) == module


def test_databases_hidden_folders_and_caches_do_not_count(tmp_path: Path) -> None:
    before = snapshot({tmp_path})
    (tmp_path / "saga.db").write_text("")
    for folder in (".venv", "__pycache__"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "module.py").write_text("")

    assert difference(before, snapshot({tmp_path})) is None
