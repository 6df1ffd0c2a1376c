"""Trimmed mean: of each number, the extremes are left out, and the rest is averaged."""

from dataclasses import dataclass

from hub.aggregation.algorithm import NEEDED, setting
from hub.aggregation.robust.coordinates import mean_of_middle
from hub.aggregation.robust.rows import Rows, Wide
from hub.aggregation.robust.rule import Rule, at_least


@dataclass(frozen=True)
class TrimmedMean(Rule):
    """[x]_j = 1/(n - 2f) sum over i = f+1 ... n-f of [x_(i)]_j, where [x_(1)]_j <= ... <= [x_(n)]_j.

    Yin, Chen, Ramchandran, Bartlett 2018, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates",
    Option II, with f instead of beta n. Each coordinate lies within the range of the honest ones. With as many updates
    as 2f or fewer, the middle is all that is left: the median. Sorted coordinates know no order of arrival.
    """

    f: int = setting(NEEDED, "how many hostile updates it withstands")

    def __post_init__(self) -> None:
        at_least(0, f=self.f)

    @property
    def needs(self) -> int:
        """2f + 1."""
        return 2 * self.f + 1

    def combine(self, rows: Rows) -> Wide:
        """Average what is left."""
        return mean_of_middle(rows, min(self.f, (rows.count - 1) // 2))
