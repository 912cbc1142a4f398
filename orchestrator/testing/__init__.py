"""What helps to test sagas of your own: by hand, through the whole engine, or trying out all that may happen."""

from orchestrator.testing.explore import NotExplorable, Report, RuleBroken, Seen, explore, replay
from orchestrator.testing.golden import assert_sagas
from orchestrator.testing.harness import SagaHarness, StartedInHarness
from orchestrator.testing.participants import FakeParticipant
from orchestrator.testing.probe import SagaProbe

__all__ = [
    "FakeParticipant",
    "NotExplorable",
    "Report",
    "RuleBroken",
    "SagaHarness",
    "SagaProbe",
    "Seen",
    "StartedInHarness",
    "assert_sagas",
    "explore",
    "replay",
]
