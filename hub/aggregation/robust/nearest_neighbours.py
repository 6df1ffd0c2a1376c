"""Nearest-neighbour mixing: replace each update by the mean of those closest to it, then use another rule."""

from dataclasses import dataclass

import numpy as np

from hub.aggregation.algorithm import NEEDED, setting
from hub.aggregation.robust.distances import Distances
from hub.aggregation.robust.inner import INNER
from hub.aggregation.robust.means import Means
from hub.aggregation.robust.rows import Rows, Wide
from hub.aggregation.robust.rule import Rule, at_least
from hub.aggregation.robust.trimmed_mean import TrimmedMean


@dataclass(frozen=True)
class NearestNeighbourMixing(Rule):
    """x = rule(y_1, ..., y_n), where y_i is the mean of the n - f updates closest to x_i, itself among them.

    Allouah, Farhadkhani, Guerraoui, Gupta, Pinot, Stephan 2023, "Fixing by Mixing: A Recipe for Optimal Byzantine ML
    under Heterogeneity", Algorithm 2. What differs between honest edges is averaged out, before a rule that would have
    taken it for malice. Without another `rule` it is the trimmed mean with the same f. Needs n >= 2f + 1; from fewer
    updates, the largest f is taken that they allow.
    """

    f: int = setting(NEEDED, "how many hostile updates it withstands")
    rule: Rule | None = setting(None, "what combines the mixtures; none means trimmed_mean with this f", among=INNER)

    def __post_init__(self) -> None:
        at_least(0, f=self.f)

    @property
    def needs(self) -> int:
        """2f + 1, and what the other rule needs."""
        return max(2 * self.f + 1, self._then.needs)

    @property
    def momentum(self) -> float:
        """That of the other rule."""
        return self._then.momentum

    def combine(self, rows: Rows) -> Wide:
        """Mix, then use the rule."""
        near = Distances.between(rows).nearest(rows.count - min(self.f, (rows.count - 1) // 2))
        members = np.zeros((rows.count, rows.count), np.bool_)
        for index, others in enumerate(near):
            members[index, others] = True
        return self._then.combine(Means(rows, members))

    @property
    def _then(self) -> Rule:
        return self.rule or TrimmedMean(self.f)
