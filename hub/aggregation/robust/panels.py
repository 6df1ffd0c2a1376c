"""Cuts a block of rows into panels: products of matrices so small that they stay in the thread that asks for them."""

import numpy as np
from numpy.typing import NDArray

from hub.aggregation.robust.rows import Rows, Wide

_BLOCK = 4_096  # numbers of each row at a time
_ALONE = 2**18
"""Multiplications in one product up to which OpenBLAS uses no other thread.

Its threads wait for each other by spinning. On two cores that others used as well, products of whole blocks took
between 0.1 s and 100 s for 50 rows of 1.66 M numbers, and so small ones always 0.13 s to 0.17 s.
"""
_NARROWEST = 64  # where there are so many rows that products get narrower, groups of rows are multiplied


class Panels:
    """Room for a block of `rows`: `wide[i]` is row i, and `stacked[p]` is the p-th panel of all rows.

    Numbers behind the end of the rows are zeros.
    """

    def __init__(self, rows: Rows, most: int) -> None:
        """Take memory for `most` numbers of each row, or fewer."""
        self.rows = rows
        width = min(_BLOCK, max(_NARROWEST, _ALONE // rows.count**2))
        panels = max(1, -(-min(most, _BLOCK) // width))
        self.wide: Wide = np.zeros((rows.count, panels * width))
        self.block = self.wide.shape[1]
        self.width = width
        """Numbers of each row in a panel."""

    @property
    def stacked(self) -> Wide:
        """The panels, each rows x width."""
        return stacked(self.wide, self.width)

    def read(self, start: int, stop: int) -> None:
        """Fill with the numbers from `start` to `stop`, no more than a block."""
        self.rows.read(start, self.wide[:, : stop - start])
        self.wide[:, stop - start :] = 0.0


def tiles(count: int, *, by: int) -> list[slice]:
    """Cut `count` rows into groups whose products with `by` numbers a row, for each of them, stay in one thread."""
    most = max(1, _ALONE // by)
    return [slice(first, min(first + most, count)) for first in range(0, count, most)]


def stacked(wide: Wide, width: int) -> NDArray[np.float64]:
    """See count x (panels * width) numbers as panels x count x width, without copying."""
    return wide.reshape(len(wide), -1, width).swapaxes(0, 1)
