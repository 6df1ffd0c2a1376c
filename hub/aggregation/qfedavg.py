"""q-FedAvg: edges on which the model is bad get more say, so that it becomes more equally good everywhere."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from hub.aggregation.algorithm import NONE_TOLD, NOTHING_KEPT, Algorithm, Metrics, NotNegative, Rate, Terms, setting
from hub.aggregation.fedavg import move
from hub.aggregation.mean import ExactMean, Sum
from hub.aggregation.step import BLOCK
from shared.errors import NothingAccumulated
from shared.tensors import Array, Tensors

_LEAST = 1e-10
"""What a loss counts as at least: for q < 1, h_k divides by it."""
_RANGE = 1e-280, 1e280
"""What F_k^q may be: beyond that, float64 cannot tell them apart. A q of a thousand gets there easily."""
_PARAMETERS = 1e12
"""More than any model has, so that a sum over all of them stays in range as well."""
_SCALE = 16
"""Bits between two sums: updates whose F_k^q are of one size are added in one."""


@dataclass(frozen=True)
class QFedAvg:
    """w_{t+1} = w_t + sum_k F_k^q L (w_k - w_t) / sum_k h_k,   h_k = q F_k^(q-1) ||L (w_k - w_t)||^2 + L F_k^q.

    Li et al. 2020, "Fair Resource Allocation in Federated Learning", Algorithm 2, where L = 1 / lr and F_k is the loss
    of w_t on edge k's data, which it measures before its first step. Edges weigh alike, whatever their examples. With
    q = 0 it is their plain mean. After many local steps ||w_k - w_t|| is long, and 1 / lr makes the hub's step short:
    then a smaller L helps.
    """

    q: NotNegative = setting(1.0, "how much the worse off are preferred; 0 not at all")
    lipschitz: Rate | None = setting(None, "steepness of the slopes that is reckoned with (L); none means 1 / lr")

    def make(self, name: str, terms: Terms) -> Algorithm:
        """Have edges measure the loss they begin with, and take local steps."""
        return Algorithm(
            name=name,
            local="qfedavg",
            aggregation=Fair(self.q, self.lipschitz or 1.0 / terms.lr),
            averaging=ExactMean(),
            step=move,
            asks=frozenset({"loss", "start_loss"}),
        )


@dataclass
class Fairly:
    """What has been accumulated: sums of F_k^q (w_k - w_t), and each edge's h_k / L."""

    nothing: Callable[[], Sum]
    moves: dict[int, Sum] = field(default_factory=dict)
    """For each size of F_k^q, in powers of 2^16, what was added divided by it: on a grid of 2^-32, a small F_k^q times
    a small difference would be nothing. Losses are mostly alike, so there are one or two."""
    curvatures: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Fair:
    """sum_k F_k^q Delta_k / sum_k (h_k / L): the one on the exact mean's grid, the other rounded once (`fsum`).

    So the order of arrival makes no difference to either.
    """

    q: float
    lipschitz: float
    mean: ExactMean = ExactMean()

    def fits(self, examples: int, magnitude: float, *, updates: int, metrics: Metrics = NONE_TOLD) -> bool:
        """Tell whether the mean could take it in as often as it counts in its sum, and its curvature be summed."""
        factor = self._power(metrics, self.q)
        steepest = self.q * self._power(metrics, self.q - 1.0) * self.lipschitz * magnitude * magnitude
        summable = _RANGE[0] <= factor <= _RANGE[1] and steepest <= _RANGE[1] / _PARAMETERS
        return summable and self.mean.fits(2**_SCALE, magnitude, updates=updates)

    def init(self, model: Tensors) -> Fairly:
        """Start from zero."""
        return Fairly(partial(self.mean.init, model))

    def accumulate(
        self, state: Fairly, update: Tensors, weight: int, *, largest: float, metrics: Metrics = NONE_TOLD
    ) -> Fairly:
        """Add the update, as often as its edge's loss says."""
        factor, slope = self._power(metrics, self.q), self.q * self._power(metrics, self.q - 1.0) * self.lipschitz
        squared = squared_norm(array.reshape(-1) for array in update.values() if array.dtype.kind not in "biu")
        state.curvatures.append((slope * squared if squared else 0.0) + factor)
        size = (math.frexp(factor)[1] - 1) // _SCALE
        share = math.ldexp(factor, -_SCALE * size)  # at least 1, less than 2^16
        moves = state.moves[size] if size in state.moves else state.nothing()
        state.moves[size] = self.mean.accumulate(moves, update, 1, largest=largest * 2**_SCALE, share=share)
        return state

    def finalize(self, state: Fairly, model: Tensors, memory: Tensors = NOTHING_KEPT) -> Tensors:
        """Divide by the sum of the curvatures, instead of the number of updates."""
        if not state.moves:
            raise NothingAccumulated("q-FedAvg was asked to combine no updates")
        curvature = math.fsum(state.curvatures)
        whole: dict[str, Array] = {}
        for size, moves in sorted(state.moves.items()):
            part = self.mean.finalize(moves, model, times=math.ldexp(moves.updates / curvature, _SCALE * size))
            for name, array in part.items():
                combine = np.maximum if array.dtype.kind in "biu" else np.add
                whole[name] = combine(whole[name], array, out=whole[name]) if name in whole else array
        return whole

    def _power(self, metrics: Metrics, exponent: float) -> float:
        """Give F_k to some power."""
        try:
            return float(max(metrics["start_loss"], _LEAST) ** exponent)
        except OverflowError:
            return math.inf


def squared_norm(arrays: Iterable[Array]) -> float:
    """Give the sum of the squares, in float64 and block by block, rounded once."""
    squares = []
    for array in arrays:
        for start in range(0, array.size, BLOCK):
            block = array[start : start + BLOCK].astype(np.float64)
            squares.append(float(np.add.reduce(np.square(block, out=block))))
    return math.fsum(squares)
