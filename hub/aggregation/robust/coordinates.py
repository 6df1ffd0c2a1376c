"""Goes through the coordinates of all updates in sorted order, for the rules that judge each number by itself."""

from collections.abc import Callable, Sequence

import numpy as np

from hub.aggregation.robust.network import network, run
from hub.aggregation.robust.rows import BLOCK, Rows, Wide
from shared.tensors import Array


def by_coordinate(rows: Rows, wanted: range, merge: Callable[[Sequence[Array], Wide], None]) -> Wide:
    """Sort every coordinate, and let `merge` add to zeros what becomes of it.

    Args:
        rows: what to combine.
        wanted: the places of the sorted order that `merge` looks at.
        merge: gets the sorted rows of a block, least first, and where to add their result, which begins with zeros;
            that makes a plus of a minus zero, which minimum and maximum do not tell apart.
    """
    plan = network(rows.count, wanted)
    total = np.zeros(rows.size)
    room = np.empty((rows.count, min(BLOCK, rows.size)), rows.dtype)
    spare = np.empty(room.shape[1], rows.dtype)
    for start in range(0, rows.size, BLOCK):
        there = total[start : start + BLOCK]
        block = room[:, : there.size]
        rows.read(start, block)
        ordered = list(block)
        run(plan, ordered, spare[: there.size])
        merge(ordered, there)
    return total


def mean_of_middle(rows: Rows, trim: int) -> Wide:
    """Leave out the `trim` least and the `trim` largest of each coordinate, and give the mean of the rest."""
    middle = range(trim, rows.count - trim)

    def merge(ordered: Sequence[Array], there: Wide) -> None:
        wide = np.empty(there.size)
        for index in middle:
            wide[...] = ordered[index]  # a pass of its own: numpy's casts within an operation are slower
            there += wide
        there /= len(middle)

    return by_coordinate(rows, middle, merge)
