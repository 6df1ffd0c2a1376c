"""An edge's data, whatever a user's function returned: counted, weighed, split and cut into batches."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset, default_collate

from shared.errors import ConfigError

Batch = tuple[torch.Tensor, torch.Tensor]


class Examples:
    """Pairs of input and target.

    Tensors are cut by index, which is 20 times as fast as a DataLoader for small models; a Dataset is collated example
    by example; a DataLoader keeps its own batches and order.
    """

    def __init__(self, source: Dataset[Any] | DataLoader[Any]) -> None:
        self._source = source

    @classmethod
    def of(cls, data: object, *, where: str) -> "Examples":
        """Take what a user's function returned: a Dataset, a DataLoader, or a pair of tensors or arrays.

        Args:
            data: the value.
            where: whose value, for the error.

        Raises:
            ConfigError: it is none of these, or is empty.
        """
        if isinstance(data, tuple | list) and len(data) == 2:
            x, y = (torch.from_numpy(part) if isinstance(part, np.ndarray) else part for part in data)
            if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor):
                if len(x) != len(y):
                    raise ConfigError(f"{where} returned {len(x)} inputs and {len(y)} targets; they must pair up")
                data = TensorDataset(x, y)
        if not isinstance(data, Dataset | DataLoader):
            raise ConfigError(
                f"{where} must return a Dataset, a DataLoader or tensors (x, y); it returned a {type(data).__name__}"
            )
        examples = cls(data)
        if not examples.count:
            raise ConfigError(f"{where} returned no examples")
        return examples

    @property
    def _dataset(self) -> Any:
        return self._source.dataset if isinstance(self._source, DataLoader) else self._source

    @property
    def count(self) -> int:
        """How many examples there are."""
        return len(self._dataset)

    @property
    def nbytes(self) -> int:
        """About how many bytes the examples take: all of their tensors, or the first one's times their number."""
        if isinstance(self._dataset, TensorDataset):
            return sum(tensor.nbytes for tensor in self._dataset.tensors)
        first = default_collate([self._dataset[0]])
        return self.count * sum(part.nbytes for part in first if isinstance(part, torch.Tensor))

    def batches(self, size: int, order: np.random.Generator | None = None) -> Iterator[Batch]:
        """Give all examples once, `size` at a time (0: all at once), shuffled by `order` if given."""
        if isinstance(self._source, DataLoader):
            yield from self._source
            return
        indices = np.arange(self.count) if order is None else order.permutation(self.count)
        for start in range(0, self.count, size or self.count):
            chosen = indices[start : start + (size or self.count)]
            if isinstance(self._source, TensorDataset):
                x, y = self._source.tensors
                picked = torch.from_numpy(chosen)
                yield x[picked], y[picked]
            else:
                yield tuple(default_collate([self._source[int(index)] for index in chosen]))

    def split(self, share: float, dice: np.random.Generator) -> tuple["Examples", "Examples | None"]:
        """Keep `share` of the examples apart: give those to train on, and those held out (None if there are none)."""
        apart = round(share * self.count)
        if not apart:
            return self, None
        if isinstance(self._source, DataLoader):
            raise ConfigError("holdout needs a Dataset or tensors: return one of them instead of a DataLoader")
        order = dice.permutation(self.count)
        return self._pick(np.sort(order[apart:])), self._pick(np.sort(order[:apart]))

    def _pick(self, indices: Sequence[int] | np.ndarray[Any, Any]) -> "Examples":
        if isinstance(self._source, TensorDataset):
            picked = torch.as_tensor(indices)
            return Examples(TensorDataset(*(tensor[picked] for tensor in self._source.tensors)))
        return Examples(Subset(self._dataset, [int(index) for index in indices]))


def joined(parts: Sequence[Examples]) -> Examples:
    """Put the data of several edges together: what federated learning avoids, for comparing with it."""
    datasets = [part._dataset for part in parts]  # noqa: SLF001  # of the same class
    if all(isinstance(dataset, TensorDataset) for dataset in datasets):
        return Examples(
            TensorDataset(*(torch.cat(column) for column in zip(*(d.tensors for d in datasets), strict=True)))
        )
    return Examples(ConcatDataset(datasets))
