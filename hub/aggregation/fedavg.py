"""FedAvg: edges train for a while on their own data, and the hub averages how far their models moved."""

import numpy as np

from hub.aggregation.algorithm import Algorithm
from hub.aggregation.mean import ExactMean
from shared.tensors import Array, Tensors

_BLOCK = 32_768  # numbers: what is in between stays in the cache, and takes no memory of the model's size


def move(memory: Tensors, model: Tensors, aggregate: Tensors) -> tuple[Tensors, Tensors]:
    """Go where the edges went on average: w_{t+1} = w_t + sum_k (n_k / n) (w^k_{t+1} - w_t).

    Equal to sum_k (n_k / n) w^k_{t+1} of McMahan et al. 2017, Algorithm 1, as the weights n_k / n sum to 1; differences
    are smaller numbers than weights and lose less in rounding.
    """
    return {name: shifted(array, aggregate[name], 1.0) for name, array in model.items()}, memory


def shifted(array: Array, direction: Array, length: float) -> Array:
    """Add `length * direction` in float64 and round once, to the dtype of `array`; integers are replaced."""
    if array.dtype.kind in "biu":
        return direction.astype(array.dtype)
    new = np.empty(array.shape, array.dtype)
    here, there, to = array.reshape(-1), direction.reshape(-1), new.reshape(-1)
    wide = np.empty(min(_BLOCK, to.size), np.float64)
    for start in range(0, to.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        room = wide[: to[block].size]
        room[...] = here[block]
        room += there[block] if length == 1.0 else length * there[block]
        to[block] = room
    return new


def fedavg() -> Algorithm:
    """Federated averaging (McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks", Algorithm 1)."""
    return Algorithm(name="fedavg", local="sgd", aggregation=ExactMean(), step=move)
