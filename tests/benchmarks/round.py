"""Whole rounds beside raw TCP, and beside Flower: `python -m tests.benchmarks.round [--vs flower]`."""

import argparse
import signal
import sys
from dataclasses import dataclass

import numpy as np

from tests.benchmarks.flower import FlowerFailed, deployment, grpc
from tests.benchmarks.raw import Floor, raw
from tests.benchmarks.stage import PARAMETERS, Seen, federation


@dataclass(frozen=True)
class Case:
    """So many edges that add a constant to so many float32 numbers."""

    edges: int
    parameters: int
    rounds: int
    durability: str = "round"
    current: bool = False
    """Whether Flower's current deployment is measured too: it takes minutes."""

    def __str__(self) -> str:
        kept = ", every update kept" if self.durability == "update" else ""
        return f"{self.edges} x {self.parameters:,}{kept}"

    @property
    def gigabytes(self) -> float:
        """What moves in a round, both ways."""
        return 8 * self.edges * self.parameters / 1e9


CASES = (
    Case(10, PARAMETERS, 20, current=True),
    Case(10, PARAMETERS, 20, durability="update"),
    Case(50, PARAMETERS, 6),
    Case(10, 25_000_000, 3),
    Case(10, 10_000, 60, current=True),
    Case(100, 10_000, 20),
)
GROWTH = tuple(Case(edges, 250_000, max(3, 600 // edges)) for edges in (10, 30, 100, 300, 1000))


def measure(case: Case, repeats: int) -> tuple[Floor, Seen]:
    """Measure a case and its floor in turn; give the median of each."""
    nbytes = 4 * case.parameters
    floors, seen = list[Floor](), list[Seen]()
    for _ in range(repeats):
        floors.append(raw(edges=case.edges, down=nbytes, up=nbytes))
        one = federation(edges=case.edges, parameters=case.parameters, rounds=case.rounds, durability=case.durability)
        if not one.exact:
            raise SystemExit(f"{case}: the average is wrong")
        seen.append(one)
    floors.sort(key=lambda one: one.seconds)
    seen.sort(key=lambda one: one.median)
    return floors[repeats // 2], seen[repeats // 2]


def table(cases: tuple[Case, ...], *, repeats: int, flower: bool) -> None:
    """Print a line for each case."""
    print(f"{'edges x float32':36}{'raw TCP':>10}{'Fedhub':>10}{'x raw':>7}{'hub CPU/GB':>12}{'x raw':>7}{'above':>9}")
    for case in cases:
        floor, seen = measure(case, repeats)
        work, least = seen.cpu / case.gigabytes, floor.cpu / case.gigabytes
        line = (
            f"{case!s:36}{floor.seconds * 1e3:8.1f}ms{seen.median * 1e3:8.1f}ms{seen.median / floor.seconds:7.2f}"
            f"{work:10.2f} s{work / least:7.1f}{seen.above:6.1f} MB"
        )
        if flower and case.durability == "round":
            line += beside("gRPC", case, seen)
            if case.current:
                line += beside("current", case, seen)
        print(line, flush=True)


def beside(path: str, case: Case, seen: Seen) -> str:
    """Measure Flower at the same, and say how much slower it is."""
    try:
        if path == "gRPC":
            theirs = grpc(edges=case.edges, parameters=case.parameters, rounds=min(5, max(3, case.rounds)))
        else:
            theirs = deployment(edges=case.edges, parameters=case.parameters, rounds=4)
    except FlowerFailed as error:
        return f"   {path}: {error}"
    return f"   {path} {theirs.seconds * 1e3:.0f} ms: {theirs.seconds / seen.median:.1f} x"


def growth(repeats: int) -> None:
    """Print how a round grows with the number of edges."""
    found = [(case, measure(case, repeats)[1]) for case in GROWTH]
    counts = [case.edges for case, _ in found]
    seconds = [seen.median for _, seen in found]
    # The line that is least off in proportion: of a + b n = y, divided by y.
    rows = np.array([[1 / second, count / second] for count, second in zip(counts, seconds, strict=True)])
    (fixed, slope), *_ = np.linalg.lstsq(rows, np.ones(len(rows)), rcond=None)
    print(f"{GROWTH[0].parameters:,} float32 an edge; the line: {fixed * 1e3:.1f} ms + {slope * 1e3:.3f} ms an edge")
    print(f"{'edges':>6}{'round':>11}{'an edge':>11}{'off the line':>14}{'above':>10}")
    for (case, seen), second in zip(found, seconds, strict=True):
        off = second / (fixed + slope * case.edges) - 1
        print(
            f"{case.edges:6}{second * 1e3:9.1f}ms{second / case.edges * 1e3:9.2f}ms{off * 100:+13.1f}%"
            f"{seen.above:7.1f} MB"
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vs", choices=["flower"], help="measure this system beside ours")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--growth", action="store_true", help="how a round grows with the number of edges, instead")
    parser.add_argument("--edges", type=int, help="one case of your own, with --parameters")
    parser.add_argument("--parameters", type=int, default=PARAMETERS)
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that Flower's processes end with this one
    if chosen.growth:
        growth(chosen.repeats)
    else:
        cases = (Case(chosen.edges, chosen.parameters, 10, current=True),) if chosen.edges else CASES
        table(cases, repeats=chosen.repeats, flower=chosen.vs == "flower")


if __name__ == "__main__":
    main()
