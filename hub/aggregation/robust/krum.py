"""Krum and Multi-Krum: trust the updates that have the most company."""

from dataclasses import dataclass

import numpy as np

from hub.aggregation.algorithm import NEEDED, setting
from hub.aggregation.robust.distances import Distances
from hub.aggregation.robust.rows import Rows, Wide, weighted_sum
from hub.aggregation.robust.rule import Rule, at_least


@dataclass(frozen=True)
class Krum(Rule):
    """x = x_k with k = argmin_i s(i), where s(i) = sum over j near i of ||x_i - x_j||^2.

    "Near i" are the n - f - 2 updates closest to it. Blanchard, El Mhamdi, Guerraoui, Stainer 2017, "Machine Learning
    with Adversaries: Byzantine Tolerant Gradient Descent", section 4. Needs n >= 2f + 3; from fewer updates, the
    largest f is taken that they allow. Of updates with the same score, the first in the order of their hashes wins.
    """

    f: int = setting(NEEDED, "how many hostile updates it withstands")

    def __post_init__(self) -> None:
        at_least(0, f=self.f)

    @property
    def needs(self) -> int:
        """2f + 3."""
        return 2 * self.f + 3

    def combine(self, rows: Rows) -> Wide:
        """Take the one."""
        return _mean_of_central(rows, self.f, 1)


@dataclass(frozen=True)
class MultiKrum(Rule):
    """x = 1/m sum of the m updates with the least scores s(i) of Krum.

    Blanchard, El Mhamdi, Guerraoui, Stainer 2017, section 5; m = n - f unless it is given. Needs n >= 2f + 3; from
    fewer updates, the largest f is taken that they allow.
    """

    f: int = setting(NEEDED, "how many hostile updates it withstands")
    m: int | None = setting(None, "how many updates are averaged; none means all but f")

    def __post_init__(self) -> None:
        at_least(0, f=self.f)
        at_least(1, m=1 if self.m is None else self.m)

    @property
    def needs(self) -> int:
        """2f + 3, and no fewer than m."""
        return max(2 * self.f + 3, self.m or 0)

    def combine(self, rows: Rows) -> Wide:
        """Average those."""
        most = rows.count - withstood(self.f, rows.count)
        return _mean_of_central(rows, self.f, most if self.m is None else min(self.m, most))


def _mean_of_central(rows: Rows, f: int, count: int) -> Wide:
    everyone = list(range(rows.count))
    chosen = Distances.between(rows).most_central(
        everyone, neighbours=neighbours(rows.count, withstood(f, rows.count)), count=count
    )
    return weighted_sum(rows, np.isin(everyone, chosen).astype(np.float64)) / count


def withstood(f: int, count: int) -> int:
    """Give f, or the most that Krum withstands among `count` updates: 2f + 3 <= count."""
    return min(f, max(0, (count - 3) // 2))


def neighbours(count: int, f: int) -> int:
    """Give n - f - 2, and at least two: with one, the two closest to each other would always score the same."""
    return max(2, count - f - 2)
