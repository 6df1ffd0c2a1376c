"""Edge processes that the hub starts beside itself, because it never runs a user's code and never imports torch."""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from shared.errors import ConfigError, ExitCode, FedhubError

_GRACE = 5.0


async def edge_command(*arguments: str) -> Any:
    """Run a `fededge` command to its end and give its answer, read from JSON.

    The answer comes in a file and not on stdout, where an app may print what it likes.

    Raises:
        ConfigError, FedhubError: it failed; the message is what it said.
    """
    with tempfile.TemporaryDirectory(prefix="fedhub-") as folder:
        answer = Path(folder) / "answer.json"
        process = await _start(*arguments, "--answer", str(answer))
        try:
            _, err = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        if process.returncode:
            raise _failure(process.returncode, err)
        return json.loads(answer.read_text("utf-8"))


@asynccontextmanager
async def companion(*arguments: str, key: str, failed: Callable[[FedhubError], None]) -> AsyncIterator[None]:
    """Run a `fededge` command for as long as the context lasts.

    Args:
        arguments: of the command.
        key: the hub's, told where other users of this machine cannot read it, as they can a command.
        failed: called with what it said if it fails before the context ends.
    """
    process = await _start(*arguments, key=key)

    async def watch() -> None:
        _, err = await process.communicate()
        if process.returncode:
            failed(_failure(process.returncode, err))

    watching = asyncio.create_task(watch())
    try:
        yield
        # It was told goodbye by the hub and ends by itself.
        await asyncio.wait([watching], timeout=_GRACE)
    finally:
        watching.cancel()
        await asyncio.wait([watching])
        if process.returncode is None:
            process.kill()
            await process.wait()


def as_flags(options: dict[str, str]) -> list[str]:
    """Write an app's options for a `fededge` command line."""
    return [part for name, value in options.items() for part in ("--data", f"{name}={value}")]


async def _start(*arguments: str, key: str = "") -> asyncio.subprocess.Process:
    # A group of its own keeps it from the terminal's Ctrl-C: the hub decides when it ends.
    alone: dict[str, Any] = {"start_new_session": True} if os.name == "posix" else {"creationflags": 0x200}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "edge",
        *arguments,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "FEDEDGE_KEY": key},
        **alone,
    )


def _failure(code: int, err: bytes) -> FedhubError:
    message = (
        err.decode(errors="replace").strip().removeprefix("fededge: ") or f"an edge process ended with code {code}"
    )
    return (ConfigError if code == ExitCode.USAGE else FedhubError)(message)
