"""What Flower's server measures of itself, and how the processes of one measurement are found (Linux's /proc)."""

import json
import os
import statistics
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

MARK = "FEDHUB_FLOWER"  # the environment variable that all processes of one measurement carry


def marked(mark: str) -> set[int]:
    """Give the processes that carry `mark`: Flower puts some into sessions of their own, so no group has them all."""
    wanted, found = f"{MARK}={mark}".encode(), set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
        except OSError:
            continue  # it ended meanwhile, or is somebody else's
    return found


def cpu(mark: str) -> float:
    """Give the CPU seconds that the processes with `mark` have used so far, those included that have ended."""
    members, ticks = marked(mark), 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        # An ended child has no environment any more, but stays until its parent asks for it, then counts as its own.
        if int(folder.name) in members or int(fields[1]) in members:
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def memory(field: str, process: int | str = "self") -> int:
    """Give `VmRSS` (now) or `VmHWM` (the peak) of a process, in bytes."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {process} has no {field}")


class Rounds:
    """The rounds of one measurement, from the end of one aggregation to the end of the next."""

    def __init__(self, rounds: int, report: Path) -> None:
        self.rounds = rounds
        self.report = report
        self.took: list[float] = []
        self.cpu: list[float] = []
        self.start = memory("VmRSS")
        self.peak = 0
        self.resumed = time.perf_counter()

    def ended(self) -> None:
        """Note that a round has ended; what the looking itself takes belongs to no round."""
        self.took.append(time.perf_counter() - self.resumed)
        if len(self.took) in (1, self.rounds):
            self.cpu.append(cpu(os.environ[MARK]))
            self.peak = memory("VmHWM") - self.start
        self.resumed = time.perf_counter()

    def finish(self, arrays: Iterable[np.ndarray]) -> None:
        """Check the average, which is the number of rounds, and leave the report."""
        off = max(float(np.abs(array - self.rounds).max()) for array in arrays)
        # Flower scales each client by a rounded 1/edges before it adds, so its float32 average may miss the last bits.
        if len(self.took) != self.rounds or not off <= 1e-4 * self.rounds:
            raise RuntimeError(f"after {len(self.took)} rounds of {self.rounds} the average is off by {off}")
        seconds, spent = statistics.median(self.took[1:]), (self.cpu[-1] - self.cpu[0]) / (self.rounds - 1)
        self.report.write_text(json.dumps({"seconds": seconds, "cpu": spent, "peak": self.peak}))
