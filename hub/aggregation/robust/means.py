"""Rows that are made of others: each the mean of some updates, as bucketing and nearest-neighbour mixing want them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hub.aggregation.robust.panels import Panels, stacked, tiles
from hub.aggregation.robust.rows import Rows, Wide
from shared.tensors import Array


@dataclass(frozen=True)
class Means:
    """Rows of which each is the mean of some others: nothing is stored, each block is made when it is read.

    A product with ones and zeros is exact, so that a fused multiply-add rounds like an addition, and BLAS sums over a
    few dozen rows from the first to the last: it gives the bits of a plain loop here, in a fifth of the time. A test
    holds them against the loop.
    """

    rows: Rows
    members: NDArray[np.bool_]
    """[i, j]: whether the old row j is part of the new row i. Each new row has at least one."""

    @property
    def count(self) -> int:
        """One for each row of `members`."""
        return len(self.members)

    @property
    def size(self) -> int:
        """As before."""
        return self.rows.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """As before: for sorting, a mean of float32 is rounded to float32 again (6e-8 of it), in half the time."""
        return self.rows.dtype

    @property
    def weights(self) -> Wide:
        """One each: a mean that mixes edges stands for nobody's examples."""
        return np.ones(self.count)

    def read(self, start: int, into: Array) -> None:
        """Mix in float64."""
        ones = self.members.astype(np.float64)
        shares = 1.0 / ones.sum(axis=1, keepdims=True)
        panels = Panels(self.rows, into.shape[1])
        mixed = np.empty((self.count, panels.block))
        for at in range(0, into.shape[1], panels.block):
            there = into[:, at : at + panels.block]
            panels.read(start + at, start + at + there.shape[1])
            for some in tiles(self.count, by=self.rows.count * panels.width):
                np.matmul(ones[some], panels.stacked, out=stacked(mixed, panels.width)[:, some])
            mixed *= shares
            there[...] = mixed[:, : there.shape[1]]
