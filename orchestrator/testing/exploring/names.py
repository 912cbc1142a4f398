"""How commands and replies are called in stories."""

from __future__ import annotations

from collections import Counter
from typing import Any

from messaging.envelope import SUCCESS
from orchestrator.definition import Saga
from orchestrator.plan import CommandLeaf
from orchestrator.testing.exploring.world import Answered, Sent


class Names:
    """Short names that tell apart what one saga sends."""

    def __init__(self, saga: type[Saga[Any]]) -> None:
        self._leaves = {name: leaf for name, leaf in saga.plan.leaves.items() if isinstance(leaf, CommandLeaf)}
        classes = Counter(
            cls.__name__ for leaf in self._leaves.values() for cls in {*leaf.commands, *leaf.compensations}
        )
        self._shared = {name for name, leaves in classes.items() if leaves > 1}

    def command(self, sent: Sent) -> str:
        """`ReserveStock`, with its step if several send such a command, and the attempt from the second on."""
        name = self._leaves[sent.step.step].command_type(sent.wire_name).__name__
        of = f" of {sent.step.step}" if name in self._shared else ""
        branch = f" [{sent.step.branch}]" if sent.step.branch else ""
        attempt = f" (attempt {sent.attempt})" if sent.attempt > 1 else ""
        return f"{name}{of}{branch}{attempt}"

    def reply(self, reply: Answered) -> str:
        """What was answered to what."""
        sent = reply.to
        code = f" {reply.error_code}" if reply.error_code not in ("", reply.outcome) else ""
        what = f"{reply.outcome}{code}"
        body = "" if reply.outcome != SUCCESS or reply.body in ("", "{}") else f" {reply.body}"
        return f"the answer of {sent.participant} to {self.command(sent)}: {what}{body}"
