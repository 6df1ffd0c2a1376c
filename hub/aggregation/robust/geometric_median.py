"""Geometric median (RFA): the point with the least total distance to all updates."""

from dataclasses import dataclass

import numpy as np

from hub.aggregation.algorithm import setting
from hub.aggregation.robust.coordinates import mean_of_middle
from hub.aggregation.robust.rows import Rows, Wide, squared_distances_to, weighted_sum
from hub.aggregation.robust.rule import Rule, at_least


@dataclass(frozen=True)
class GeometricMedian(Rule):
    """argmin_v sum_i a_i ||v - x_i||, by steps v <- sum_i b_i x_i / sum_i b_i with b_i = a_i / max(nu, ||v - x_i||).

    Pillutla, Kakade, Harchaoui 2022, "Robust Aggregation for Federated Learning", Algorithm 2, the smoothed Weiszfeld
    algorithm; nu = 1e-6 and three steps are theirs. As in the paper a_i = n_i / n, so here examples count: hostile
    edges must have less than half of them, which the hub's cap on claims (ten times the median) does not promise.
    With `weighted = False` all edges count alike, and fewer than half of them may be hostile.

    The first v is the coordinate median: near the honest updates even if others are at 1e30, which steps from their
    mean would leave by a constant factor each. A step reads all updates twice, 0.4 s for 50 of 1.66 M parameters.
    """

    steps: int = setting(3, "how often the weights are computed anew (R)")
    nu: float = setting(1e-6, "least distance that counts")
    weighted: bool = setting(default=True, meaning="whether updates weigh as many as the examples they claim")

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps)
        at_least(1e-30, nu=self.nu)

    @property
    def needs(self) -> int:
        """Any number will do: less than half of the weight may be hostile."""
        return 1

    def combine(self, rows: Rows) -> Wide:
        """Take the steps."""
        shares = rows.weights if self.weighted else np.ones(rows.count)
        point = mean_of_middle(rows, (rows.count - 1) // 2)
        for _ in range(self.steps):
            pulls = shares / np.maximum(self.nu, np.sqrt(squared_distances_to(rows, point)))
            point = weighted_sum(rows, pulls / np.add.reduce(pulls))
        return point
