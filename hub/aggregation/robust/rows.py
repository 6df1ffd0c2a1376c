"""A round's updates as rows of numbers, read a block at a time, and the sums over them that every rule needs."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shared.tensors import Array

Wide = NDArray[np.float64]

BLOCK = 16_384
"""Numbers of each row that are worked on at a time."""


class Rows(Protocol):
    """What a rule combines: `count` rows of `size` numbers, in an order that does not depend on who came first."""

    @property
    def count(self) -> int:
        """How many rows there are."""
        ...

    @property
    def size(self) -> int:
        """How many numbers a row has."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """What is wide enough for sorting them: float32, or float64 where the model has it."""
        ...

    @property
    def weights(self) -> Wide:
        """How many examples stand behind each row, as its edge claims."""
        ...

    def read(self, start: int, into: Array) -> None:
        """Fill `into` (count x width) with the numbers from `start` on; the caller may do with them as it likes."""
        ...


@dataclass(frozen=True)
class Chosen:
    """Some of the rows."""

    rows: Rows
    indices: list[int]

    @property
    def count(self) -> int:
        """How many were chosen."""
        return len(self.indices)

    @property
    def size(self) -> int:
        """As before."""
        return self.rows.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """As before."""
        return self.rows.dtype

    @property
    def weights(self) -> Wide:
        """Those of the chosen."""
        return self.rows.weights[self.indices]

    def read(self, start: int, into: Array) -> None:
        """Read all, and copy the chosen."""
        everyone = np.empty((self.rows.count, into.shape[1]), into.dtype)
        self.rows.read(start, everyone)
        into[...] = everyone[self.indices]


def weighted_sum(rows: Rows, factors: Wide) -> Wide:
    """Give sum_i factors_i x_i in float64, row after row: the same bits on any machine, which BLAS does not promise."""
    total = np.zeros(rows.size)
    room = np.empty((rows.count, min(BLOCK, rows.size)))
    for start in range(0, rows.size, BLOCK):
        there = total[start : start + BLOCK]
        wide = room[:, : there.size]
        rows.read(start, wide)
        for row, factor in zip(wide, factors, strict=True):
            if factor == 0.0:
                continue
            if factor != 1.0:
                row *= factor
            there += row
    return total


def squared_distances_to(rows: Rows, point: Wide) -> Wide:
    """Give ||x_i - point||^2 for every row, from the differences: exact to rounding, however close they are.

    Summed by numpy's pairwise summation and block after block: the same bits on any machine.
    """
    squares = np.zeros(rows.count)
    room = np.empty((rows.count, min(BLOCK, rows.size)))
    for start in range(0, rows.size, BLOCK):
        there = point[start : start + BLOCK]
        wide = room[:, : there.size]
        rows.read(start, wide)
        for index, row in enumerate(wide):
            row -= there
            row *= row
            squares[index] += np.add.reduce(row)
    return squares
