"""What helps to test sagas of your own: drive one by hand, in virtual time."""

from orchestrator.testing.probe import SagaProbe

__all__ = ["SagaProbe"]
