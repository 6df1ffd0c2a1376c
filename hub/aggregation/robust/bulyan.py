"""Bulyan: first choose whom to trust as Krum does, then look at each number by itself."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hub.aggregation.algorithm import NEEDED, setting
from hub.aggregation.robust.coordinates import by_coordinate
from hub.aggregation.robust.distances import Distances
from hub.aggregation.robust.krum import neighbours
from hub.aggregation.robust.rows import Chosen, Rows, Wide
from hub.aggregation.robust.rule import Rule, at_least
from shared.tensors import Array


@dataclass(frozen=True)
class Bulyan(Rule):
    """[x]_j = 1/beta sum of the beta values [x_i]_j, i in S, closest to the median of [x_i]_j, i in S.

    S holds theta = n - 2f updates: Krum's choice is taken out and put into S until they are that many; and
    beta = theta - 2f. El Mhamdi, Guerraoui, Rouault 2018, "The Hidden Vulnerability of Distributed Learning in
    Byzantium", section 4.
    An update close to all others may still hide one harmful number among a million, so Krum alone is not enough. Needs
    n >= 4f + 3; from fewer updates, the largest f is taken that they allow.

    As updates are taken out, fewer than Krum asks for remain; each looks at r - f - 2 of the r that do, and at two at
    least. The median of an even number is the mean of the two in the middle, and of two values that are equally far
    from it the lower counts.
    """

    f: int = setting(NEEDED, "how many hostile updates it withstands")

    def __post_init__(self) -> None:
        at_least(0, f=self.f)

    @property
    def needs(self) -> int:
        """4f + 3."""
        return 4 * self.f + 3

    def combine(self, rows: Rows) -> Wide:
        """Select, then average around the median."""
        f = min(self.f, max(0, (rows.count - 3) // 4))
        return _mean_around_median(Chosen(rows, _selected(rows, f)), rows.count - 4 * f)


def _selected(rows: Rows, f: int) -> list[int]:
    distances = Distances.between(rows)
    remaining = list(range(rows.count))
    selected: list[int] = []
    while len(selected) < rows.count - 2 * f:
        (best,) = distances.most_central(remaining, neighbours=neighbours(len(remaining), f), count=1)
        remaining.remove(best)
        selected.append(best)
    return sorted(selected)


def _mean_around_median(rows: Rows, beta: int) -> Wide:
    """Average the `beta` values closest to the median: in sorted order they are neighbours, and begin at some place.

    The window moves up by one as long as the value it would lose is farther from the median than the one it would gain.
    That holds up to some place and then never again, so place by place it says which values count.
    """
    count = rows.count
    moves = count - beta

    def merge(ordered: Sequence[Array], there: Wide) -> None:
        wide = [row.astype(np.float64) for row in ordered]
        median = (wide[(count - 1) // 2] + wide[count // 2]) / 2.0
        moved = [median - wide[place] > wide[place + beta] - median for place in range(moves)]
        for place, values in enumerate(wide):
            if place < moves:
                values[moved[place]] = 0.0
            if place >= beta:
                values[~moved[place - beta]] = 0.0
            there += values
        there /= beta

    return by_coordinate(rows, range(count), merge)
