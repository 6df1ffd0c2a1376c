"""Keeps every fact in the run folder, one line of JSON each, for whoever wants to know later."""

from io import FileIO
from pathlib import Path

from hub.events import to_line
from hub.feed import Follower
from shared.console import say


async def record(follower: Follower, file: Path) -> None:
    """Append facts to `file` as they come, until the feed ends.

    News is not truth: where it cannot be written it is lost, which is said once, and the run goes on.
    """
    lost = 0
    lines: FileIO | None = None
    try:
        async for stamped in follower:
            try:
                lines = lines or FileIO(file, "a")  # kept open: opening it for each fact took 0.4 ms of a small round
                # After a failure the last line may be half there.
                lines.write(f"{chr(10) if lost else ''}{to_line(stamped)}\n".encode())
                lost = 0
            except OSError as error:
                if not lost:
                    say(f"cannot write {file} ({error.strerror}); the run goes on, its events are not recorded")
                lost += 1
    finally:
        if lines:
            lines.close()
