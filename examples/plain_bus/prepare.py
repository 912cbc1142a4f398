"""Create both databases: `python -m plain_bus.prepare`. Servers are migrated: `saga migrate --only messaging`."""

from __future__ import annotations

import asyncio

from plain_bus import archive, newsletter

if __name__ == "__main__":
    asyncio.run(newsletter.prepare())
    archive.prepare()
