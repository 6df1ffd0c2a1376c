"""Keeps every fact in the run folder, one line of JSON each, for whoever wants to know later."""

from contextlib import suppress
from io import SEEK_END, BufferedWriter
from pathlib import Path

from hub.events import to_line
from hub.feed import Follower
from shared.console import say


async def record(follower: Follower, file: Path) -> None:
    """Append facts to `file` as they come, until the feed ends.

    News is not truth: where it cannot be written it is lost, which is said once, and the run goes on.
    """
    torn, told = _is_torn(file), False
    lines: BufferedWriter | None = None
    try:
        async for stamped in follower:
            try:
                lines = lines or file.open("ab")  # kept open: opening it for each fact took 0.4 ms of a small round
                lines.write(f"{chr(10) if torn else ''}{to_line(stamped)}\n".encode())
                lines.flush()
                torn = told = False
            except OSError as error:
                if not told:
                    say(f"cannot write {file} ({error.strerror}); the run goes on, its events are not recorded")
                torn = told = True  # the last line may be half there
                _give_up(lines)
                lines = None
    finally:
        _give_up(lines)


def _give_up(lines: BufferedWriter | None) -> None:
    """Close a file, whatever it still holds."""
    if lines:
        with suppress(OSError):
            lines.close()


def _is_torn(file: Path) -> bool:
    """Tell whether the last line of `file` is half there, as a crash may leave it."""
    with suppress(OSError), file.open("rb") as lines:
        lines.seek(-1, SEEK_END)
        return lines.read(1) != b"\n"
    return False
