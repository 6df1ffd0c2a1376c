"""Keeps every fact in the run folder, one line of JSON each, for whoever wants to know later."""

from pathlib import Path

from hub.events import to_line
from hub.feed import Follower


async def record(follower: Follower, file: Path) -> None:
    """Append facts to `file` as they come, until the feed ends."""
    with file.open("a", encoding="utf-8") as lines:
        async for stamped in follower:
            lines.write(to_line(stamped) + "\n")
            lines.flush()
