"""Fills the disk under a running hub: rounds pause, edges stay, and it goes on by itself when there is space (D7).

`python -m tests.full_disk`, as root: it mounts 20 MB of memory as the disk, in a namespace of its own.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from hub.events import DiskTrouble, EdgeLeft, RoundAbandoned, RoundClosed, RoundCommitted, RunEnded
from shared.tensors import Tensors
from tests.support.federation import Adder, agent, edges, running_hub

MODEL: Tensors = {"weight": np.zeros((400, 500), np.float32), "steps": np.array(0)}
ROUNDS = 12
TIMES = 3
"""How often the disk is filled."""


def fill(folder: Path) -> Path:
    """Leave no space for as much as a byte."""
    file = folder / "filler"
    with file.open("wb", buffering=0) as filler:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    filler.write(bytes(size))
            except OSError:
                pass
    return file


async def play(disk: Path) -> None:
    """Run a federation of three edges on a disk that is full now and then."""
    async with running_hub(disk, model=MODEL, rounds=ROUNDS, deadline=60.0, wait_for=3, keep_updates=1) as running:
        async with edges(*(agent(running.url, name, Adder()) for name in "abc")):
            for time_ in range(TIMES):
                await running.until(RoundCommitted, round=2 + 3 * time_)
                filler = fill(disk)
                trouble = await running.until(DiskTrouble)
                began = time.monotonic()
                await running.until(DiskTrouble)  # it tried again
                filler.unlink()
                committed = await running.until(RoundCommitted)
                print(f"{trouble}: {committed} {time.monotonic() - began:.1f} s later")
            await running.until(RunEnded)
            left = len(running.all(EdgeLeft))
            await running.ended()
    closed, abandoned = len(running.all(RoundClosed)), len(running.all(RoundAbandoned))
    print(f"{closed} rounds, {abandoned} abandoned, {len(running.all(DiskTrouble))} times no space, {left} edges left")
    sys.exit((closed, abandoned, left) != (ROUNDS, 0, 0))


def main() -> None:
    """Mount a small disk, and play on it."""
    if sys.argv[1:]:
        asyncio.run(play(Path(sys.argv[1])))
        return
    with tempfile.TemporaryDirectory() as folder:
        command = f"mount -t tmpfs -o size=20m none {folder} && exec {sys.executable} -m tests.full_disk {folder}"
        sys.exit(subprocess.run(["unshare", "--mount", "sh", "-c", command], env=os.environ, check=False).returncode)


if __name__ == "__main__":
    main()
