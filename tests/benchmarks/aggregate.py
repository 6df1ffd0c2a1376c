"""The exact mean beside a plain float64 running sum of the same updates: `python -m tests.benchmarks.aggregate`."""

import argparse
import statistics
import time

import numpy as np

from hub.aggregation.mean import ExactMean
from tests.benchmarks.orders import PARAMETERS

_BLOCK = 32_768


def running_sum(total: np.ndarray, update: np.ndarray, weight: int, room: np.ndarray) -> None:
    """Add `weight * update` to `total` in cache-sized blocks: the plain way, done well."""
    for start in range(0, update.size, _BLOCK):
        block = update[start : start + _BLOCK]
        scaled = np.multiply(block, np.float64(weight), out=room[: block.size])
        total[start : start + _BLOCK] += scaled


def main() -> None:
    """Measure both in turn, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=9)
    chosen = parser.parse_args()
    dice = np.random.default_rng(0)
    updates = [dice.normal(scale=0.01, size=PARAMETERS).astype(np.float32) for _ in range(chosen.updates)]
    mean, model, room = ExactMean(), {"w": np.zeros(PARAMETERS, np.float32)}, np.empty(_BLOCK)
    took: dict[str, list[float]] = {"exact": [], "float64": []}
    for _ in range(chosen.repeats):
        state, total = mean.init(model), np.zeros(PARAMETERS)
        state.totals["w"] += 0  # both begin with their memory at hand
        total += 0
        began = time.perf_counter()
        for weight, update in enumerate(updates, start=100):
            state = mean.accumulate(state, {"w": update}, weight, largest=1.0)
        took["exact"].append((time.perf_counter() - began) / chosen.updates)
        began = time.perf_counter()
        for weight, update in enumerate(updates, start=100):
            running_sum(total, update, weight, room)
        took["float64"].append((time.perf_counter() - began) / chosen.updates)
    exact, plain = (statistics.median(seconds) for seconds in took.values())
    print(f"{PARAMETERS:,} float32 an update, median of {chosen.repeats} times {chosen.updates} updates")
    print(f"float64 running sum in blocks  {plain * 1e3:6.2f} ms an update")
    print(f"exact mean                     {exact * 1e3:6.2f} ms an update   {exact / plain:.2f} x")


if __name__ == "__main__":
    main()
