"""Keeps a round's updates side by side until all are there: no robust rule can judge one of them alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash

from hub.aggregation.robust.rows import Wide
from shared.tensors import Array, ModelSpec, Tensors, TensorSpec

LARGEST = float(np.finfo(np.float32).max)
"""What a row can hold. Its square, times 4 GiB of parameters, is far below what a float64 holds."""


@dataclass
class Kept:
    """What has been accumulated: for each update a row with all its floats, and its integers as they came.

    A row takes 4 bytes a parameter (8 where the model has float64): 50 updates of 1.66 M parameters take 332 MB. Rows
    come one by one, so that memory is taken for those that came, and none is copied twice.
    """

    dtype: np.dtype[Any]
    floats: tuple[str, ...]
    """The tensors of a row, in order."""
    rows: list[Array] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)
    prints: list[bytes] = field(default_factory=list)
    """A hash of each row."""
    others: dict[str, list[Array]] = field(default_factory=dict)
    """Integer and boolean tensors, by name."""

    @classmethod
    def nothing(cls, model: Tensors) -> "Kept":
        """Begin a round."""
        tensors = ModelSpec.of(model).tensors
        wide = any(tensor.dtype == "float64" for tensor in tensors)
        return cls(
            np.dtype(np.float64 if wide else np.float32),
            tuple(tensor.name for tensor in tensors if tensor.is_float),
            others={tensor.name: [] for tensor in tensors if not tensor.is_float},
        )

    def add(self, update: Tensors, weight: int) -> None:
        """Copy an update: its own memory is wanted for the next one."""
        floats = [update[name] for name in self.floats]
        row = np.empty(sum(array.size for array in floats), self.dtype)
        start = 0
        for array in floats:
            row[start : start + array.size] = array.reshape(-1)
            start += array.size
        self.rows.append(row)
        self.weights.append(weight)
        self.prints.append(xxhash.xxh3_128_digest(row.data))
        for name, arrays in self.others.items():
            arrays.append(update[name].copy())

    def in_order(self) -> "Ordered":
        """Sort by what the updates hold, so that it makes no difference which came first.

        By their hashes, in 0.5 ms an update of 1.66 M parameters. Rows of the same hash are the same row; whoever could
        make two that differ would gain that their order of arrival counts. To buckets this order is as good as random:
        nobody can choose which honest edges come together, and hostile ones gain nothing by choosing their own places.
        """
        order = sorted(range(len(self.rows)), key=lambda index: (self.prints[index], self.weights[index]))
        return Ordered(
            tuple(self.rows[index] for index in order),
            np.array([self.weights[index] for index in order], np.float64),
        )

    def shift(self, point: Wide) -> None:
        """Take `point` from each row."""
        for row in self.rows:
            np.subtract(row, point, out=row, casting="same_kind")

    def row(self, tensors: Tensors, model: Tensors) -> Wide:
        """Give as one row, in float64, what is kept of tensors under their names; zeros for the others."""
        return np.concatenate(
            [np.zeros(0), *(np.ravel(tensors.get(name, np.zeros(model[name].size))) for name in self.floats)]
        )

    def tensors(self, combined: Wide, model: Tensors) -> dict[str, Array]:
        """Cut a combined row into the model's tensors, without copying; integers and booleans have their own rule."""
        cut: dict[str, Array] = {}
        start = 0
        for tensor in ModelSpec.of(model).tensors:
            if tensor.is_float:
                size = model[tensor.name].size
                cut[tensor.name] = combined[start : start + size].reshape(tensor.shape)
                start += size
            else:
                cut[tensor.name] = lower_median(self.others[tensor.name], tensor)
        return cut


@dataclass(frozen=True)
class Ordered:
    """The rows of a round that is over."""

    arrays: Sequence[Array]
    weights: Wide

    @property
    def count(self) -> int:
        """One row for each update."""
        return len(self.arrays)

    @property
    def size(self) -> int:
        """One number for each float parameter."""
        return self.arrays[0].size

    @property
    def dtype(self) -> np.dtype[Any]:
        """As kept."""
        return self.arrays[0].dtype

    def read(self, start: int, into: Array) -> None:
        """Copy a block."""
        width = into.shape[1]
        for row, to in zip(self.arrays, into, strict=True):
            to[...] = row[start : start + width]


def lower_median(arrays: Sequence[Array], tensor: TensorSpec) -> Array:
    """Give, for each place, the middle value that was sent, or the lower of the two: of booleans, what most say.

    A counter's largest value, which the mean takes, could be chosen by a single hostile edge.
    """
    stacked = np.sort(np.stack(arrays), axis=0)
    middle: Array = stacked[(len(arrays) - 1) // 2 :][:1]
    return middle.reshape(tensor.shape)
