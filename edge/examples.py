"""An edge's data, whatever a user's function returned: counted, weighed, split and cut into batches."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset, default_collate

from edge.app import users_code
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
            ConfigError: it is none of these, is empty, or its first example is not a pair of tensors.
        """
        with users_code(where):
            if isinstance(data, tuple | list) and len(data) == 2:
                x, y = (_tensor(part) if isinstance(part, np.ndarray) else part for part in data)
                if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor):
                    if len(x) != len(y):
                        raise ConfigError(f"{where} returned {len(x)} inputs and {len(y)} targets; they must pair up")
                    data = TensorDataset(x, y)
            if not isinstance(data, Dataset | DataLoader):
                kind = "nothing" if data is None else f"a {type(data).__name__}"
                raise ConfigError(f"{where} must return a Dataset, a DataLoader or tensors (x, y); it returned {kind}")
            examples = cls(data)
            if not hasattr(type(examples._dataset), "__len__"):
                raise ConfigError(f"{where} returned data without a length; an edge must know how many examples it has")
            if not examples.count:
                raise ConfigError(f"{where} returned no examples")
            examples._check_first(where)
            return examples

    def _check_first(self, where: str) -> None:
        """See that there are pairs of tensors, before a round depends on it."""
        first = self._first()
        if len(first) != 2 or not all(isinstance(part, torch.Tensor) for part in first):
            kinds = ", ".join(type(part).__name__ for part in first)
            raise ConfigError(f"{where} must give pairs of tensors (input, target); its examples are ({kinds})")

    @property
    def _dataset(self) -> Any:
        return self._source.dataset if isinstance(self._source, DataLoader) else self._source

    @property
    def dataset(self) -> Any:
        """The examples as a Dataset; of a DataLoader, those that its sampler lets through."""
        if isinstance(self._source, DataLoader) and len(chosen := list(self._source.sampler)) != len(self._dataset):
            return Subset(self._dataset, chosen)
        return self._dataset

    @property
    def count(self) -> int:
        """How many examples there are; of a DataLoader, those that its sampler lets through."""
        if not isinstance(self._source, DataLoader):
            return len(self._dataset)
        count = len(self._source.sampler)  # type: ignore[arg-type]  # samplers of what has a length have one
        return count - count % self._source.batch_size if self._source.drop_last and self._source.batch_size else count

    @property
    def nbytes(self) -> int:
        """About how many bytes the examples take: their number times those of the first."""
        x, y = self._first()
        return self.count * (x.nbytes + y.nbytes) // len(y)

    def _first(self) -> Batch:
        return next(self.batches(1))

    def batches(self, size: int, order: np.random.Generator | None = None, *, least: int = 1) -> Iterator[Batch]:
        """Give all examples once, `size` at a time (0: all at once), shuffled by `order` if given.

        A last batch of fewer than `least` joins the one before it. A DataLoader makes its own batches.
        """
        if isinstance(self._source, DataLoader):
            yield from self._source
            return
        indices = np.arange(self.count) if order is None else order.permutation(self.count)
        cuts = list(range(0, self.count, size or self.count))
        if len(cuts) > 1 and size >= least > self.count - cuts[-1]:
            cuts.pop()
        for chosen in np.split(indices, cuts[1:]):
            if isinstance(self._source, TensorDataset):
                picked = torch.from_numpy(chosen)
                yield tuple(tensor[picked] for tensor in self._source.tensors)  # type: ignore[misc]  # two, see `of`
            else:
                yield tuple(default_collate([self._source[int(index)] for index in chosen]))

    def batch_count(self, size: int) -> int:
        """Tell how many batches of `size` there are."""
        if isinstance(self._source, DataLoader):
            return len(self._source)
        return -(-self.count // (size or self.count))

    def split(self, share: float, dice: np.random.Generator) -> tuple["Examples", "Examples | None"]:
        """Keep `share` of the examples apart: give those to train on (one at least), and those held out (or None)."""
        apart = min(round(share * self.count), self.count - 1)
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


def _tensor(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """Share an array's memory, unless torch cannot: where it is read-only or runs backwards, it is copied."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def joined(parts: Sequence[Examples]) -> Examples:
    """Put the data of several edges together: what federated learning avoids, for comparing with it."""
    datasets = [part.dataset for part in parts]
    if all(isinstance(dataset, TensorDataset) for dataset in datasets):
        return Examples(
            TensorDataset(*(torch.cat(column) for column in zip(*(d.tensors for d in datasets), strict=True)))
        )
    return Examples(ConcatDataset(datasets))
