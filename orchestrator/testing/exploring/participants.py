"""Participants as they are modelled: they do, refuse, fail or stay silent, behind the inbox and barrier of our kit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from pydantic import BaseModel

from messaging.codec import encode_body
from messaging.envelope import ACCEPTED, FAILURE, NOTHING_TO_UNDO, RETRY, SUCCESS
from messaging.inbox import Answer, Claim, open_order
from messaging.messages import Accepted, Failure, Reply
from orchestrator.instance import Direction
from orchestrator.plan import CommandLeaf
from orchestrator.steps import ItemStep, Step
from orchestrator.testing.exploring.family import Family, bare
from orchestrator.testing.exploring.world import Answered, Sent, World
from orchestrator.testing.samples import sample

Answers: TypeAlias = Mapping[type[Step[Any, Any] | ItemStep[Any, Any, Any]], Sequence[Reply | Failure | Accepted]]
TRY_AGAIN = Failure(reason="not now")


@dataclass(frozen=True, slots=True)
class Doing:
    """One thing that a participant may make of a command."""

    text: str
    outcome: str
    error_code: str
    body: str
    cost: str = ""
    fresh: bool = True
    """Whether it is done now; otherwise the inbox or the barrier answers."""
    within: float = 0
    """Seconds until which the definitive answer comes."""


class Participants:
    """All of them: what each command may be answered, given what was answered before.

    Args:
        family: whose steps.
        states: what the made-up answers are taken from, by seats.
        answers: instead of made-up ones: all that a step's command may be answered. With `Accepted` among them it is
            accepted, and one of the others comes by its reply token.

    Raises:
        NoSample: an answer cannot be made up.
    """

    def __init__(self, family: Family, states: Mapping[str, BaseModel], answers: Answers) -> None:
        given = {step.name: list(some) for step, some in answers.items()}
        self._leaves = {
            (seat, name): leaf
            for seat, saga in family
            for name, leaf in saga.plan.leaves.items()
            if isinstance(leaf, CommandLeaf)
        }
        self._answers: dict[tuple[str, str], list[Reply | Failure | Accepted]] = {
            (seat, name): given.get(name) or [sample(leaf.reply, states[seat]), _refusal_of(leaf, states[seat])]
            for (seat, name), leaf in self._leaves.items()
        }
        self._undo_replies: dict[str, Reply] = {
            cls.wire_name: sample(cls.reply_type, states[seat])
            for (seat, _), leaf in self._leaves.items()
            for cls in leaf.compensations
        }

    def doings(self, sent: Sent, world: World) -> Iterator[Doing]:
        """What may become of a command that has arrived."""
        earlier = self._known(sent, dict(world.ledger))
        if earlier is not None:
            yield earlier
            return
        undo = sent.step.direction is Direction.COMPENSATION
        refusing = "refused_undos" if undo else "refusals"
        undone: list[Reply | Failure | Accepted] = [self._undo_replies[sent.wire_name], TRY_AGAIN] if undo else []
        answers = undone or self._answers[bare(sent.seat), sent.step.step]
        accepted = [answer for answer in answers if isinstance(answer, Accepted)]
        for answer in accepted or answers:
            yield _doing(answer, refusing, several=_several(answers))
        yield Doing("cannot handle {} right now", RETRY, "Busy", encode_body(TRY_AGAIN).decode(), "retries")

    def by_token(self, sent: Sent) -> Iterator[tuple[str, str, Reply | Failure]]:
        """What a command that was accepted may be answered later: in words, what it costs, and the answer."""
        answers = self._answers[bare(sent.seat), sent.step.step]
        for answer in answers:
            if isinstance(answer, Failure):
                yield answer.error_code, "refusals", answer
            elif isinstance(answer, Reply):
                yield f"done: {answer}" if _several(answers) else "done", "", answer

    def after(self, sent: Sent, doing: Doing, world: World) -> World:
        """The world once that has happened, the command being taken: claim, effect and answer are one transaction."""
        ledger, in_effect = dict(world.ledger), set(world.in_effect)
        if self._dedupes(sent) and doing.outcome != RETRY:
            answer = Answer(doing.outcome, doing.error_code, "", doing.body.encode())
            rows = _Rows(ledger)
            if open_order(rows, sent.idempotency_key, sent.compensates) is None:
                rows.store(sent.idempotency_key, answer)
        if doing.fresh and doing.outcome == SUCCESS:
            undo = sent.step.direction is Direction.COMPENSATION
            (in_effect.discard if undo else in_effect.add)(sent.label)
        reply = Answered(sent, doing.outcome, doing.error_code, doing.body, doing.within)
        in_hand = doing.fresh and doing.outcome == ACCEPTED
        return replace(
            world,
            replies=tuple(sorted((*world.replies, reply))),
            tokens=tuple(sorted((*world.tokens, sent))) if in_hand else world.tokens,
            ledger=tuple(sorted(ledger.items(), key=lambda item: item[0])),
            in_effect=frozenset(in_effect),
        )

    def _known(self, sent: Sent, ledger: dict[str, Claim]) -> Doing | None:
        """The answer that the inbox or the barrier gives, if the handler is not to run."""
        if not self._dedupes(sent):
            return None
        answer = open_order(_Rows(ledger), sent.idempotency_key, sent.compensates)
        if answer is None:
            return None
        text, within = "answers {} again", answer.deadline_seconds or 0
        if answer.error_code == NOTHING_TO_UNDO:
            text = "has nothing to undo for {}"
        elif sent.step.direction is Direction.ACTION and answer.error_code:
            text = "refuses {}, which was undone or refused before"
        return Doing(text, answer.outcome, answer.error_code, answer.body.decode(), fresh=False, within=within)

    def _dedupes(self, sent: Sent) -> bool:
        return self._leaves[bare(sent.seat), sent.step.step].step.participant_dedupes


def _several(answers: Sequence[Reply | Failure | Accepted]) -> bool:
    return sum(isinstance(answer, Reply) for answer in answers) > 1


def _doing(answer: Reply | Failure | Accepted, cost_of_refusing: str, *, several: bool) -> Doing:
    if isinstance(answer, Accepted):
        given = Answer.accepted(answer.within)
        text = "accepts {}, to be answered by its reply token"
        return Doing(text, ACCEPTED, "", given.body.decode(), within=answer.within.total_seconds())
    body = encode_body(answer).decode()
    if isinstance(answer, Failure):
        return Doing("refuses {}: " + answer.error_code, FAILURE, answer.error_code, body, cost_of_refusing)
    return Doing("carries out {}" + (f": {answer}" if several else ""), SUCCESS, "", body)


def _refusal_of(leaf: CommandLeaf, state: BaseModel) -> Failure:
    declared = [failure for command in leaf.commands for failure in command.failure_types]
    return sample(declared[0], state) if declared else Failure(reason="refused")


class _Rows:
    """Claims in a dictionary."""

    def __init__(self, claims: dict[str, Claim]) -> None:
        self._claims = claims

    def claim(self, key: str, *, undone: bool = False) -> Claim | None:
        known = self._claims.get(key)
        if known is None:
            self._claims[key] = Claim(undone, None)
        return known

    def store(self, key: str, answer: Answer) -> None:
        self._claims[key] = replace(self._claims[key], answer=answer)
