"""How sagas, steps, commands and replies are called in stories."""

from __future__ import annotations

from collections import Counter

from messaging.envelope import SUCCESS
from orchestrator.instance import Direction
from orchestrator.plan import CommandLeaf
from orchestrator.testing.exploring.family import FIRST, Family, is_later, label_at
from orchestrator.testing.exploring.world import Answered, Seated, Sent


class Names:
    """Short names that tell apart what the sagas of an exploration are and send."""

    def __init__(self, family: Family) -> None:
        self._family = family
        plans = [saga.plan.leaves.values() for _, saga in family]
        commands = (leaf for leaves in plans for leaf in leaves if isinstance(leaf, CommandLeaf))
        classes = Counter(cls.__name__ for leaf in commands for cls in {*leaf.commands, *leaf.compensations})
        self._shared = {name for name, leaves in classes.items() if leaves > 1}
        self._steps = Counter(leaf.name for leaves in plans for leaf in leaves)
        self._sagas = Counter(saga.__name__ for _, saga in family)

    def saga(self, seat: str) -> str:
        """`the saga`, if it is the first, or `BringMeal`."""
        if seat == FIRST:
            return "the saga"
        name = self._family.definition(seat).__name__
        return f"{name} ({seat})" if self._sagas[name] > 1 or is_later(seat) else name

    def step(self, place: Seated) -> str:
        """`AwaitingHandOver`, with whose it is if several sagas have it."""
        several = self._steps[place.step.step] > 1 or is_later(place.seat)
        return label_at(place.seat, place.step) if several else place.step.label

    def local(self, place: Seated) -> str:
        """The step, or its undo."""
        undo = "the undo of " if place.step.direction is Direction.COMPENSATION else ""
        return f"{undo}{self.step(place)}"

    def command(self, sent: Sent) -> str:
        """`ReserveStock`, with its step if several send such a command, and the attempt from the second on."""
        leaf = self._family.definition(sent.seat).plan.leaves[sent.step.step]
        assert isinstance(leaf, CommandLeaf)
        name = leaf.command_type(sent.wire_name).__name__
        several = name in self._shared or is_later(sent.seat)
        of = f" of {self.step(Seated(sent.seat, sent.step._replace(branch='')))}" if several else ""
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
