"""The exact mean and the robust rules beside a float64 running sum of the same updates.

    python -m tests.benchmarks.aggregate            # the mean
    python -m tests.benchmarks.aggregate --robust   # every robust rule, with its memory

Both clocks are shown: where others use the machine as well, only the processor's own time can be compared.
"""

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable

import numpy as np

from hub.aggregation.mean import ExactMean
from hub.aggregation.robust.bucketing import Bucketing
from hub.aggregation.robust.bulyan import Bulyan
from hub.aggregation.robust.centred_clipping import CentredClipping
from hub.aggregation.robust.geometric_median import GeometricMedian
from hub.aggregation.robust.krum import Krum, MultiKrum
from hub.aggregation.robust.median import CoordinateMedian
from hub.aggregation.robust.nearest_neighbours import NearestNeighbourMixing
from hub.aggregation.robust.norm_clipping import NormClipping
from hub.aggregation.robust.rule import Rule
from hub.aggregation.robust.trimmed_mean import TrimmedMean
from tests.benchmarks.orders import PARAMETERS

_BLOCK = 32_768
TARGETS = {"CoordinateMedian": 0.3, "TrimmedMean": 0.4, "MultiKrum": 0.5, "NearestNeighbourMixing": 0.9}
"""Seconds for 50 updates on two cores, as issue 6 asks."""


def running_sum(total: np.ndarray, update: np.ndarray, weight: int, room: np.ndarray) -> None:
    """Add `weight * update` to `total` in cache-sized blocks: the plain way, done well."""
    for start in range(0, update.size, _BLOCK):
        block = update[start : start + _BLOCK]
        scaled = np.multiply(block, np.float64(weight), out=room[: block.size])
        total[start : start + _BLOCK] += scaled


def mean(*, count: int, repeats: int) -> None:
    """Measure the mean and the running sum in turn, and print a table."""
    dice = np.random.default_rng(0)
    updates = [dice.normal(scale=0.01, size=PARAMETERS).astype(np.float32) for _ in range(count)]
    mean, model, room = ExactMean(), {"w": np.zeros(PARAMETERS, np.float32)}, np.empty(_BLOCK)
    took: dict[str, list[float]] = {"exact": [], "float64": []}
    for _ in range(repeats):
        state, total = mean.init(model), np.zeros(PARAMETERS)
        state.totals["w"] += 0  # both begin with their memory at hand
        total += 0
        began = time.perf_counter()
        for weight, update in enumerate(updates, start=100):
            state = mean.accumulate(state, {"w": update}, weight, largest=1.0)
        took["exact"].append((time.perf_counter() - began) / count)
        began = time.perf_counter()
        for weight, update in enumerate(updates, start=100):
            running_sum(total, update, weight, room)
        took["float64"].append((time.perf_counter() - began) / count)
    exact, plain = (statistics.median(seconds) for seconds in took.values())
    print(f"{PARAMETERS:,} float32 an update, median of {repeats} times {count} updates")
    print(f"float64 running sum in blocks  {plain * 1e3:6.2f} ms an update")
    print(f"exact mean                     {exact * 1e3:6.2f} ms an update   {exact / plain:.2f} x")


def robust(*, count: int, repeats: int) -> None:
    """Measure what `finalize` takes when all updates are kept, and the running sum before each, and print a table."""
    dice = np.random.default_rng(0)
    model = {"w": np.zeros(PARAMETERS, np.float32)}
    kept = CoordinateMedian().init(model)
    updates = [dice.normal(scale=0.01, size=PARAMETERS).astype(np.float32) for _ in range(count)]
    keeping, _ = measured(lambda: [kept.add({"w": update}, 100) for update in updates])
    total, room = np.zeros(PARAMETERS), np.empty(_BLOCK)

    def plain() -> None:
        for row in kept.rows:
            running_sum(total, row, 100, room)

    f = count // 5
    rules: list[Rule] = [
        CoordinateMedian(), TrimmedMean(f), Krum(f), MultiKrum(f), Bulyan(f), GeometricMedian(), CentredClipping(),
        Bucketing(CentredClipping()), NormClipping(), NearestNeighbourMixing(f),
    ]  # fmt: skip
    print(f"{count} updates of {PARAMETERS:,} float32, {sum(row.nbytes for row in kept.rows) / 1e6:.0f} MB, f = {f}")
    print(f"keeping one takes {keeping / count * 1e3:.1f} ms by the clock; seconds below are the least of {repeats}")
    print(f"{'':54} {'clock':>7} {'cpu':>7} {'x sum':>6} {'peak':>8}  target")
    for rule in rules:
        sums = [measured(plain) for _ in range(repeats)]
        took = [measured(lambda rule=rule: rule.finalize(kept, model)) for _ in range(repeats)]
        tracemalloc.start()
        rule.finalize(kept, model)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        clock, cpu = (min(times) for times in zip(*took, strict=True))
        ratio = cpu / min(cpu for _, cpu in sums)
        target = TARGETS.get(type(rule).__name__)
        print(
            f"{rule!s:54} {clock:6.2f}s {cpu:6.2f}s {ratio:6.1f} {peak / 1e6:5.0f} MB"
            + (f"  {target} s" if target else "")
        )


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of the processors."""
    began, spent = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - spent


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robust", action="store_true")
    parser.add_argument("--updates", type=int)
    parser.add_argument("--repeats", type=int)
    chosen = parser.parse_args()
    if chosen.robust:
        robust(count=chosen.updates or 50, repeats=chosen.repeats or 3)
    else:
        mean(count=chosen.updates or 20, repeats=chosen.repeats or 9)


if __name__ == "__main__":
    main()
