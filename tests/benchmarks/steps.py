"""What each algorithm's server step costs, beside FedAvg's: `python -m tests.benchmarks.steps`."""

import argparse
import statistics
import time
import tracemalloc

import numpy as np

from hub.aggregation.algorithm import Aggregate
from hub.aggregation.catalogue import algorithm
from hub.config import Settings
from shared.budget import return_large_memory
from shared.tensors import Tensors
from tests.benchmarks.orders import PARAMETERS
from tests.support.algorithms import STEPS


def main() -> None:
    """Measure all in turn, several times, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    chosen = parser.parse_args()
    return_large_memory()  # as the hub does
    dice = np.random.default_rng(0)
    model: Tensors = {"w": dice.normal(size=PARAMETERS).astype(np.float32)}
    aggregate: Tensors = {"w": dice.normal(scale=0.01, size=PARAMETERS)}
    took: dict[str, list[float]] = {name: [] for name in STEPS}
    memory: dict[str, Tensors] = {name: {} for name in STEPS}
    for _ in range(chosen.repeats):
        for name, seconds in took.items():
            step = algorithm(name, Settings()).step
            began = time.perf_counter()
            _, memory[name] = step(memory[name], model, Aggregate(aggregate))
            seconds.append(time.perf_counter() - began)
    print(f"{PARAMETERS:,} float32 parameters, median of {chosen.repeats}; peak: what a step has at most, MB")
    for name, seconds in took.items():
        tracemalloc.start()
        algorithm(name, Settings()).step(memory[name], model, Aggregate(aggregate))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        kept = sum(array.nbytes for array in memory[name].values())
        print(
            f"{name:<12} {statistics.median(seconds) * 1e3:6.1f} ms   peak {peak / 1e6:5.1f}   kept {kept / 1e6:5.1f}"
        )


if __name__ == "__main__":
    main()
