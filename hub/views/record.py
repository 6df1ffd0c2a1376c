"""Keeps every fact in the run folder, one line of JSON each, for whoever wants to know later."""

from contextlib import suppress
from io import BufferedWriter
from pathlib import Path

from hub.events import to_line
from hub.feed import Follower
from shared.console import say


async def record(follower: Follower, file: Path) -> None:
    """Append facts to `file` as they come, until the feed ends.

    News is not truth: where it cannot be written it is lost, which is said once, and the run goes on.
    """
    lost = 0
    lines: BufferedWriter | None = None
    try:
        async for stamped in follower:
            try:
                lines = lines or file.open("ab")  # kept open: opening it for each fact took 0.4 ms of a small round
                # After a failure the last line may be half there.
                lines.write(f"{chr(10) if lost else ''}{to_line(stamped)}\n".encode())
                lines.flush()
                lost = 0
            except OSError as error:
                if not lost:
                    say(f"cannot write {file} ({error.strerror}); the run goes on, its events are not recorded")
                lost += 1
                _give_up(lines)
                lines = None
    finally:
        _give_up(lines)


def _give_up(lines: BufferedWriter | None) -> None:
    """Close a file, whatever it still holds."""
    if lines:
        with suppress(OSError):
            lines.close()
