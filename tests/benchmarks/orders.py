"""Adds the same updates in many orders; one hash comes out: `python -m tests.benchmarks.orders`."""

import argparse
import hashlib

import numpy as np

from hub.aggregation.mean import ExactMean
from shared.tensors import raw

PARAMETERS = 1_663_370  # the CNN of McMahan et al. 2017


def hashes(*, orders: int, updates: int, parameters: int = PARAMETERS) -> tuple[set[str], set[str]]:
    """Give the hashes of the mean over all orders: exact, and for comparison of a running float64 sum."""
    dice = np.random.default_rng(0)
    model = {"w": np.zeros(parameters, np.float32)}
    data = [
        (dice.normal(scale=0.01, size=parameters).astype(np.float32), int(dice.integers(1, 1000)))
        for _ in range(updates)
    ]
    exact, plain = set(), set()
    mean = ExactMean()
    for order in (dice.permutation(updates) for _ in range(orders)):
        state, total = mean.init(model), np.zeros(parameters)
        for index in order:
            update, weight = data[index]
            state = mean.accumulate(state, {"w": update}, weight, largest=1.0)
            total += update.astype(np.float64) * weight
        exact.add(hashlib.sha256(raw(mean.finalize(state, model)["w"])).hexdigest())
        plain.add(hashlib.sha256(raw(total / state.weight)).hexdigest())
    return exact, plain


def main() -> None:
    """Print how many different results there were."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=100)
    parser.add_argument("--updates", type=int, default=40)
    chosen = parser.parse_args()
    exact, plain = hashes(orders=chosen.orders, updates=chosen.updates)
    print(f"{chosen.orders} orders of {chosen.updates} updates of {PARAMETERS:,} parameters")
    print(f"exact mean            {len(exact)} hash: {', '.join(sorted(exact))[:16]}")
    print(f"running float64 sum   {len(plain)} hashes")


if __name__ == "__main__":
    main()
