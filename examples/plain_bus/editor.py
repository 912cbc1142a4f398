"""The editor's script, which blocks: `python -m plain_bus.editor "Spring issue"`."""

from __future__ import annotations

import sys
from datetime import timedelta

from messaging import BlockingBus
from plain_bus.messages import CountReaders, IssuePublished

if __name__ == "__main__":
    with BlockingBus(name="editor") as bus:
        bus.publish(IssuePublished(title=sys.argv[1]), exchange="issues", kind="fanout")
        readers = bus.request(CountReaders(), to="archive", timeout=timedelta(seconds=10))
        print(f"published; {readers.organisations} of the readers are organisations")
