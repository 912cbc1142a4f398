"""How many processes, queues and databases a rate of sagas needs, computed from what one saga was measured to cost.

    python -m benchmarks.scaling                              # prints the tables of docs/scaling.md
    python -m benchmarks.scaling --write docs/scaling.md      # writes them there, after a figure below was changed
    python -m benchmarks.scaling --per-second 5000

A model on paper: nothing runs. A test holds the page to it.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Final

from benchmarks.numbers import markdown

BEGIN: Final = "<!-- computed by python -m benchmarks.scaling -->"
END: Final = "<!-- end of what is computed -->"


@dataclass(frozen=True, slots=True)
class Costs:
    """Of one saga of three steps: `python -m benchmarks.costs`, and `benchmarks.disk` for the bytes that are kept."""

    orchestrator_us: float
    """Processor time, that of starting the saga included."""
    participants_us: float
    """Of three participants that answer at once: a user's own work comes on top."""
    broker_us: float
    """Of a broker of one node: one copy of each message."""
    database_us: float
    wal_bytes: float
    kept_bytes: float
    sagas_per_second: float
    """What went through on the machine that this was measured on ..."""
    cores: int
    """... with so many cores for all of it."""
    joined: float = 1.0
    """Commands and answers in one message of the broker's."""
    commands: int = 3

    @property
    def all_us(self) -> float:
        """Of all parts together."""
        return self.orchestrator_us + self.participants_us + self.broker_us + self.database_us


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What is not measured here, and is to be looked at where it is to run."""

    busy: float = 0.6
    """The share of a core that is planned with; the rest catches up after an outage."""
    copies: int = 3
    """Of each message: the replicas of a quorum queue, each of which costs what the one measured does."""
    queue_per_second: float = 10_000.0
    """Messages that go through one quorum queue: its leader is one process of the broker's, on one core."""
    broker_cores: int = 16
    """Of one node."""
    database_cores: int = 16
    """Of one primary."""
    wal_per_second: float = 100e6
    """Bytes of log that one primary writes, and its replicas take."""
    partition_per_second: float = 5_000.0
    """Sagas that one partition is given at most: what is lost for a minute when its database changes over."""


PLAIN: Final = Costs(
    orchestrator_us=810,
    participants_us=228,
    broker_us=368,
    database_us=323,
    wal_bytes=7060,
    kept_bytes=4_283,
    sagas_per_second=899,
    cores=2,
)
COALESCED: Final = Costs(
    orchestrator_us=634,
    participants_us=150,
    broker_us=63,
    database_us=248,
    wal_bytes=7068,
    kept_bytes=4_283,
    sagas_per_second=1176,
    cores=2,
    joined=10,
)
WAYS: Final = {"one message per command": PLAIN, "coalesced": COALESCED}
DEFAULTS: Final = Assumptions()


@dataclass(frozen=True, slots=True)
class Needed:
    """What a rate needs."""

    partitions: int
    """Each an installation: one database, one queue for replies, orchestrators of its own."""
    bound_by: str
    """What asks for so many."""
    orchestrators: int
    """Processes, of one core each."""
    participant_cores: int
    broker_nodes: int
    queue_leaders: int
    """Queues that messages of sagas go through: one for replies and one for each participant, in each partition."""
    database_cores: int
    wal_per_second: float
    kept_per_day: float


def needed(per_second: float, costs: Costs, assumed: Assumptions = DEFAULTS) -> Needed:
    """Compute it; nothing is rounded down."""
    replies = per_second * costs.commands / costs.joined
    wal = per_second * costs.wal_bytes
    asks = {
        "replies through one queue": replies / assumed.queue_per_second,
        "log of one database": wal / assumed.wal_per_second,
        "processor of one database": _cores(per_second, costs.database_us, assumed) / assumed.database_cores,
        "sagas of one partition": per_second / assumed.partition_per_second,
    }
    bound_by = max(asks, key=lambda what: asks[what])
    partitions = ceil(asks[bound_by])
    each = per_second / partitions
    return Needed(
        partitions=partitions,
        bound_by=bound_by,
        orchestrators=partitions * max(ceil(_cores(each, costs.orchestrator_us, assumed)), 2),
        participant_cores=ceil(_cores(per_second, costs.participants_us, assumed)),
        broker_nodes=_nodes(per_second, costs, assumed),
        queue_leaders=partitions * (1 + costs.commands),
        database_cores=partitions * ceil(_cores(each, costs.database_us, assumed)),
        wal_per_second=wal,
        kept_per_day=per_second * 86_400 * costs.kept_bytes,
    )


def _cores(per_second: float, micros: float, assumed: Assumptions) -> float:
    return per_second * micros / 1e6 / assumed.busy


def _nodes(per_second: float, costs: Costs, assumed: Assumptions) -> int:
    cores = _cores(per_second, costs.broker_us, assumed) * assumed.copies
    return max(ceil(cores / assumed.broker_cores), assumed.copies)


def reached(costs: Costs) -> tuple[float, float]:
    """Sagas a second that the measured costs allow on the machine they are of, and the share that went through."""
    allowed = costs.cores * 1e6 / costs.all_us
    return allowed, costs.sagas_per_second / allowed


def assumed_table() -> str:
    """What is not measured, and why it is to be looked at."""
    rows = [
        ["busy", f"{DEFAULTS.busy}", "the rest of each core is what catches up after an outage"],
        [
            "copies of a message",
            f"{DEFAULTS.copies}",
            "each replica of a quorum queue costs what the one measured does",
        ],
        [
            "messages a second through one queue",
            f"{DEFAULTS.queue_per_second:,.0f}",
            "measure yours, with its followers",
        ],
        [
            "MB of log a second of one primary",
            f"{DEFAULTS.wal_per_second / 1e6:,.0f}",
            "replicas and archive must follow",
        ],
        ["sagas a second of one partition", f"{DEFAULTS.partition_per_second:,.0f}", "these wait while it fails over"],
        ["cores of a node, of a primary", f"{DEFAULTS.broker_cores}, {DEFAULTS.database_cores}", ""],
    ]
    rows.append(["in one message, coalesced", f"{COALESCED.joined:g}", "at most 50: the busier, the more"])
    return markdown(["assumed", "", "to be looked at"], rows)


def measured_table() -> str:
    """What the model begins with, and whether it tells the rate that was measured with it."""
    rows: list[list[object]] = [
        [title, *(f"{getattr(costs, name):,.0f}" for costs in WAYS.values())] for title, name in _MEASURED.items()
    ]
    for title, place in (("sagas a second that these allow", 0), ("... of which were reached", 1)):
        rows.append([title, *(f"{reached(costs)[place]:,.{2 * place}f}" for costs in WAYS.values())])
    return markdown(["of a saga of three steps", *WAYS], rows)


_MEASURED: Final = {
    "orchestrator µs": "orchestrator_us",
    "participants µs": "participants_us",
    "RabbitMQ µs, one copy": "broker_us",
    "PostgreSQL µs": "database_us",
    "bytes of log": "wal_bytes",
    "bytes kept": "kept_bytes",
    "cores of the machine": "cores",
    "sagas a second that went through": "sagas_per_second",
}


def needed_table(per_second: float) -> str:
    """What the rate needs, with what it is computed from."""
    all_needed = [needed(per_second, costs) for costs in WAYS.values()]
    rows: list[list[object]] = [
        ["partitions: a database and a queue for replies each", *(one.partitions for one in all_needed)],
        ["... because of", *(one.bound_by for one in all_needed)],
        ["orchestrators, of a core each", *(one.orchestrators for one in all_needed)],
        ["... in a partition", *(one.orchestrators // one.partitions for one in all_needed)],
        ["cores of participants that do nothing", *(one.participant_cores for one in all_needed)],
        [f"nodes of RabbitMQ, of {DEFAULTS.broker_cores} cores", *(one.broker_nodes for one in all_needed)],
        ["queues that messages go through", *(one.queue_leaders for one in all_needed)],
        ["cores of PostgreSQL's primaries", *(one.database_cores for one in all_needed)],
        ["log, MB a second", *(f"{one.wal_per_second / 1e6:,.0f}" for one in all_needed)],
        ["... of one primary", *(f"{one.wal_per_second / 1e6 / one.partitions:,.0f}" for one in all_needed)],
        ["kept for a day, TB", *(f"{one.kept_per_day / 1e12:,.1f}" for one in all_needed)],
    ]
    return markdown([f"for {per_second:,.0f} sagas a second", *WAYS], rows)


def computed(per_second: float = 100_000.0) -> str:
    """The part of the page that is computed."""
    return f"{BEGIN}\n\n{assumed_table()}\n\n{measured_table()}\n\n{needed_table(per_second)}\n\n{END}"


def written(page: str) -> str:
    """A page with this part computed anew.

    Raises:
        ValueError: it has no such part.
    """
    before, begins, rest = page.partition(BEGIN)
    _, ends, after = rest.partition(END)
    if not (begins and ends):
        raise ValueError(f"the page has no part between {BEGIN!r} and {END!r}")
    return f"{before}{computed()}{after}"


def main() -> None:
    """Parse, print or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-second", type=float, default=100_000.0, help="sagas")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the tables into a page")
    options = parser.parse_args()
    if options.write:
        options.write.write_text(written(options.write.read_text()))
    else:
        print(computed(options.per_second))


if __name__ == "__main__":
    main()
