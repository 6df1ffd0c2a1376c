"""q-FedAvg: edges on which the model is bad get more say, so that it becomes more equally good everywhere."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from hub.aggregation.algorithm import NONE_TOLD, NOTHING_KEPT, Algorithm, Metrics, NotNegative, Rate, Terms, setting
from hub.aggregation.fedavg import move
from hub.aggregation.mean import ExactMean, Sum
from hub.aggregation.step import BLOCK
from shared.tensors import Array, Tensors

_LEAST = 1e-10
"""What a loss counts as at least: for q < 1, h_k divides by it."""
_MOST = 1e100
"""What F_k^q may be at most: with a q of a thousand it is easily more than can be summed."""


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
            step=move,
            metrics=frozenset({"loss", "start_loss"}),
        )


@dataclass
class Fairly:
    """What has been accumulated: the sum of F_k^q (w_k - w_t), and each edge's h_k / L."""

    moves: Sum
    curvatures: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Fair:
    """sum_k F_k^q Delta_k / sum_k (h_k / L): the one sum on the exact mean's grid, the other rounded once (`fsum`).

    So the order of arrival makes no difference to either.
    """

    q: float
    lipschitz: float
    mean: ExactMean = ExactMean()

    def fits(self, examples: int, magnitude: float, *, updates: int, metrics: Metrics = NONE_TOLD) -> bool:
        """Tell whether the mean could take it in once and as often as it counts, and its curvature be summed."""
        factor = self._factor(metrics)
        return factor <= _MOST and self.mean.fits(1, magnitude * max(1.0, factor), updates=updates)

    def init(self, model: Tensors) -> Fairly:
        """Start from zero."""
        return Fairly(self.mean.init(model))

    def accumulate(
        self, state: Fairly, update: Tensors, weight: int, *, largest: float, metrics: Metrics = NONE_TOLD
    ) -> Fairly:
        """Add the update, as often as its edge's loss says."""
        loss, factor = max(metrics["start_loss"], _LEAST), self._factor(metrics)
        squared = squared_norm(array.reshape(-1) for array in update.values() if array.dtype.kind not in "biu")
        state.curvatures.append(self.q * loss ** (self.q - 1.0) * self.lipschitz * squared + factor)
        state.moves = self.mean.accumulate(state.moves, update, 1, largest=largest * max(1.0, factor), share=factor)
        return state

    def finalize(self, state: Fairly, model: Tensors, memory: Tensors = NOTHING_KEPT) -> Tensors:
        """Divide by the sum of the curvatures, instead of the number of updates."""
        curvature = math.fsum(state.curvatures) or 1.0
        return self.mean.finalize(state.moves, model, times=state.moves.updates / curvature)

    def _factor(self, metrics: Metrics) -> float:
        try:
            return float(max(metrics["start_loss"], _LEAST) ** self.q)
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
