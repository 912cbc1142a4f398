"""What can go wrong with sagas, by who can act.

Each error names, in its text, what happened and what to do:

    SagaError
    ├── SagaDefinitionError     the author, when the class is created
    ├── HookRaised              the author: a hook raised while a saga was decided; the saga blocks
    ├── UnknownSaga             the caller: no saga has this id
    │   └── SagaPurged          the caller: the saga has ended and was deleted
    ├── SagaErased              the caller: the saga's data was erased
    ├── UnknownToken            the caller: no command can be answered with this token
    ├── UnknownDefinition       whoever deploys: this process does not have the saga's code
    ├── ActionRefused           the operator: the saga's state does not allow this action
    ├── HoldRefused             the operator: a hold or a release does not fit what is held
    ├── StateUnusable           the caller: a start's state cannot be stored, or is of another type
    ├── SearchRefused           the caller: a list is asked for what no state can have
    ├── SchemaMismatch          whoever deploys: `saga migrate`
    ├── EngineAlreadyRunning    whoever deploys: a SQLite file has one engine
    ├── InstallationMismatch    whoever deploys: the reply queue belongs to another database
    └── ConcurrentUpdate        nobody: the work is done again
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID


class SagaError(Exception):
    """Base of all errors of this package."""


class SagaDefinitionError(SagaError, TypeError):
    """A saga or a step cannot work as written."""

    def __init__(self, where: str, problem: str) -> None:
        self.where, self.problem = where, problem
        super().__init__(f"{where} {problem}.")


class HookRaised(SagaError):
    """A hook of a definition raised, or returned what cannot be sent or stored. The cause is chained."""

    def __init__(self, saga_id: UUID, step: str, hook: str, cause: BaseException) -> None:
        from messaging.printable import error_text  # which brings pydantic along

        self.saga_id, self.step, self.hook = saga_id, step, hook
        super().__init__(
            f"{hook}() of {step or 'the saga'} raised {error_text(cause)} (saga {saga_id}). "
            "Mend the code, deploy it, then retry the saga"
        )


class UnknownSaga(SagaError, LookupError):
    """No saga has this id."""

    def __init__(self, saga_id: UUID | str, why: str = "") -> None:
        self.saga_id = saga_id
        super().__init__(f"no saga has the id {saga_id}{f': {why}' if why else ''}. List them with: saga list")


class SagaPurged(UnknownSaga):
    """A saga has ended and was deleted; of what it was there is its key alone, which stays taken."""

    def __init__(self, saga_id: UUID, name: str, key: str, ended_as: str, purged_at: datetime) -> None:
        super().__init__(saga_id)
        self.name, self.key, self.ended_as, self.purged_at = name, key, ended_as, purged_at
        self.args = (
            f"saga {saga_id} ({name!r}, key {key!r}) ended as {ended_as} and was deleted at {purged_at:%Y-%m-%d %H:%M} "
            "UTC, since it is kept no longer. Its key stays taken; what it did is in the archive, if there is one",
        )


class SagaErased(SagaError):
    """A saga's data was erased on somebody's demand."""

    def __init__(self, saga_id: UUID) -> None:
        self.saga_id = saga_id
        super().__init__(f"what saga {saga_id} knew was erased. Who asked for that, and why: saga show {saga_id}")


class UnknownToken(SagaError, LookupError):
    """A reply token is none of this installation's, or its command is not known any more. Nothing was answered."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"the reply token cannot be used: {problem}")


class UnknownDefinition(SagaError, LookupError):
    """A saga's definition is not registered in this process."""

    def __init__(self, name: str, version: int | None = None, fingerprint: str = "") -> None:
        self.name, self.version, self.fingerprint = name, version, fingerprint
        which = f"{name!r}" if version is None else f"{name!r} version {version} ({fingerprint})"
        super().__init__(f"saga definition {which} is not registered here. Add it to Orchestrator(sagas=[...])")


class ActionRefused(SagaError):
    """An operator's action does not fit the saga's state. Nothing was changed."""

    def __init__(self, saga_id: UUID, action: str, problem: str) -> None:
        self.saga_id, self.action, self.problem = saga_id, action, problem
        super().__init__(f"{action} of saga {saga_id} refused: {problem}")


class HoldRefused(SagaError):
    """What is to be held is held already, or what is to be released is not held. Nothing was changed."""


class StateUnusable(SagaError, ValueError):
    """A state cannot be stored, or is not of the saga's state type. Nothing was started."""

    def __init__(self, saga_name: str, problem: str) -> None:
        self.saga_name, self.problem = saga_name, problem
        super().__init__(f"state for saga {saga_name!r} cannot be used: {problem}")


class SearchRefused(SagaError, ValueError):
    """A list was asked for what no state can have: a path that is none, or a value without a text."""


class SchemaMismatch(SagaError):
    """The database's schema is not the one this code needs."""


class EngineAlreadyRunning(SagaError):
    """Another process runs the engine on this SQLite file."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(
            f"another process already runs the engine on {path}. A SQLite file has one engine: "
            "stop the other one, or use PostgreSQL for several"
        )


class InstallationMismatch(SagaError):
    """The orchestrator's queues belong to another installation's database, or are declared otherwise."""


class ConcurrentUpdate(SagaError):
    """A saga changed since it was loaded. Nothing was written; the work is done again."""

    def __init__(self, saga_id: UUID, expected_revision: int, found: int | None = None) -> None:
        self.saga_id, self.expected_revision, self.found = saga_id, expected_revision, found
        but = "" if found is None else f", found {found}"
        super().__init__(
            f"saga {saga_id} changed since it was loaded (expected revision {expected_revision}{but}). "
            "Nothing was written; it will be decided again"
        )
