"""Coordinate median: each number of the model follows the middle of what the edges say about it."""

from dataclasses import dataclass

from hub.aggregation.robust.coordinates import mean_of_middle
from hub.aggregation.robust.rows import Rows, Wide
from hub.aggregation.robust.rule import Rule


@dataclass(frozen=True)
class CoordinateMedian(Rule):
    """[x]_j = median([x_1]_j, ..., [x_n]_j), of an even number the mean of the two in the middle.

    Yin, Chen, Ramchandran, Bartlett 2018, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates",
    Option I. Each coordinate lies within the range of the honest ones as long as they are more than half. Sorted
    coordinates know no order of arrival.
    """

    @property
    def needs(self) -> int:
        """Any number will do: fewer than half of them may be hostile."""
        return 1

    def combine(self, rows: Rows) -> Wide:
        """Take the middle."""
        return mean_of_middle(rows, (rows.count - 1) // 2)
