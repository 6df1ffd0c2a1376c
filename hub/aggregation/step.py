"""One step of the hub over a whole model, block by block: what every server optimizer does around its own equation."""

from collections.abc import Callable, Mapping

import numpy as np

from hub.aggregation.algorithm import Aggregate
from shared.tensors import Array, Tensors

BLOCK = 32_768
"""Numbers in a block: what is in between stays in the cache, and takes no memory of the model's size."""

Equation = Callable[..., Array]
"""One round of an optimizer for a block of numbers: `equation(delta, *kept) -> step`, all flat and float64.

It reads `delta`, the aggregate. It changes `kept`, what the optimizer remembers, in place, to what is remembered from
now on. What it gives is added to the model; that may be one of its arguments, as it is only read.
"""

_NOTHING: Mapping[str, float] = {}


def step(
    memory: Tensors, model: Tensors, aggregate: Aggregate, *, equation: Equation, keeps: Mapping[str, float] = _NOTHING
) -> tuple[Tensors, Tensors]:
    """Give the next model, rounded once, to its own dtypes, and the next memory, in float64.

    Each number has its own lane through this, of additions, products, quotients and square roots that IEEE 754 fixes to
    the bit: no number of threads and no block size can change what comes out. Numbers that become infinite are given
    back as such, for the coordinator to see. Integers and booleans are replaced by what the aggregate says.

    Args:
        memory: what was kept after the last step. What is not in `keeps` is dropped: it is another algorithm's.
        model: the model to go on from.
        aggregate: what the edges' updates led to.
        equation: see there.
        keeps: what the optimizer remembers for each float, and what that is at first. A name here begins with that of
            the algorithm, so that a run that is resumed with another one does not take it for its own.
    """
    new: dict[str, Array] = {}
    kept: dict[str, Array] = {}
    with np.errstate(over="ignore", invalid="ignore"):
        for name, array in model.items():
            if array.dtype.kind in "biu":
                new[name] = aggregate.tensors[name].astype(array.dtype)
                continue
            own = {f"{what} {name}": first for what, first in keeps.items()}
            for key, first in own.items():
                kept[key] = memory[key].copy() if key in memory else np.full(array.shape, first)
            new[name] = np.empty(array.shape, array.dtype)
            flat = [kept[key].reshape(-1) for key in own]
            _walk(
                array.reshape(-1),
                aggregate.tensors[name].reshape(-1),
                flat,
                equation=equation,
                to=new[name].reshape(-1),
            )
    return new, kept


def _walk(here: Array, delta: Array, kept: list[Array], *, equation: Equation, to: Array) -> None:
    wide = np.empty(min(BLOCK, to.size), np.float64)
    for start in range(0, to.size, BLOCK):
        block = slice(start, start + BLOCK)
        room = wide[: to[block].size]
        room[...] = here[block]
        room += equation(delta[block], *(one[block] for one in kept))
        to[block] = room
