"""Diagrams from a shell."""

from __future__ import annotations

from orchestrator.cli import exits
from tests.unit.cli.conftest import Shell


def test_a_sagas_steps_are_printed_in_the_form_that_is_asked_for(bare_shell: Shell) -> None:
    assert bare_shell("graph", "paint-wall").out.startswith("flowchart TB\n")
    assert bare_shell("graph", "paint-wall", "--mermaid").out == bare_shell("graph", "paint-wall").out
    assert bare_shell("graph", "paint-wall", "--dot").out.startswith('digraph "paint-wall v1" {\n')
    assert bare_shell("graph", "paint-wall", "--svg").out.startswith("<svg ")


def test_the_only_saga_needs_no_name(bare_shell: Shell) -> None:
    assert "Painting" in bare_shell("graph").out


def test_the_statuses_need_no_sagas_at_all(bare_shell: Shell) -> None:
    assert bare_shell("graph", "--statuses", "--app", "nowhere:app").out.startswith("stateDiagram-v2\n")


def test_two_forms_at_once_and_unknown_sagas_are_refused(bare_shell: Shell) -> None:
    assert bare_shell("graph", "paint-wall", "--dot", "--svg").code == exits.USAGE
    assert bare_shell("graph", "paint-roof").code == exits.NOT_FOUND


def test_graph_explains_itself_with_examples(bare_shell: Shell) -> None:
    assert "saga graph --statuses" in bare_shell("graph", "--help").out.partition("Examples:")[2]
