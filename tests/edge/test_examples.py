"""Whatever a user's data function returns is counted, weighed, split and cut into batches; nonsense is told apart."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
)

from edge.examples import Examples, joined
from shared.errors import ConfigError

X = torch.arange(14, dtype=torch.float32).reshape(7, 2)
Y = torch.arange(7)


class Pairs(Dataset[Any]):
    """A user's own: seven examples, each a tensor and a number."""

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return X[index], index


def kinds() -> dict[str, Any]:
    return {
        "tensors": (X, Y),
        "list of tensors": [X, Y],
        "arrays": (X.numpy(), Y.numpy()),
        "read-only arrays": (read_only(X.numpy()), read_only(Y.numpy())),
        "arrays that run backwards": (X.numpy()[::-1][::-1], np.flip(np.arange(6, -1, -1))),
        "tensor dataset": TensorDataset(X, Y),
        "dataset": Pairs(),
        "loader": DataLoader(TensorDataset(X, Y), batch_size=3),
        "shuffling loader of a dataset": DataLoader(Pairs(), batch_size=3, shuffle=True),
    }


def read_only(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    array = array.copy()
    array.flags.writeable = False
    return array


def of(data: object) -> Examples:
    return Examples.of(data, where="data() of app.py")


def order(examples: Examples, size: int, seed: int | None = None) -> list[list[int]]:
    """Give the targets batch by batch, having seen that each input is its target's."""
    batches = []
    for x, y in examples.batches(size, None if seed is None else np.random.default_rng(seed)):
        assert torch.equal(x, X[y])
        batches.append(y.tolist())
    return batches


def flat(batches: Iterable[list[int]]) -> list[int]:
    return list(chain.from_iterable(batches))


@pytest.mark.parametrize("kind", kinds())
def test_every_kind_of_data_is_counted_weighed_and_given_once(kind: str) -> None:
    examples = of(kinds()[kind])
    assert examples.count == 7
    assert examples.nbytes == 7 * (2 * 4 + 8)
    batches = order(examples, 3)
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert sorted(flat(batches)) == list(range(7))


@pytest.mark.parametrize("kind", ["tensors", "arrays", "tensor dataset", "dataset"])
def test_without_dice_the_order_is_kept_and_with_them_the_seed_decides_it(kind: str) -> None:
    examples = of(kinds()[kind])
    assert order(examples, 4) == [[0, 1, 2, 3], [4, 5, 6]]
    first, again, other = (order(examples, 4, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert sorted(flat(first)) == list(range(7))


def test_the_same_seed_shuffles_tensors_and_a_dataset_alike() -> None:
    assert order(of((X, Y)), 2, seed=5) == order(of(Pairs()), 2, seed=5)


def test_each_epoch_has_an_order_of_its_own() -> None:
    examples, dice = of((X, Y)), np.random.default_rng(0)
    epochs = [flat(y.tolist() for _, y in examples.batches(3, dice)) for _ in range(2)]
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize(("size", "sizes"), [(0, [7]), (1, [1] * 7), (7, [7]), (100, [7])])
def test_a_batch_of_zero_is_everything_and_one_of_too_many_too(size: int, sizes: list[int]) -> None:
    for data in ((X, Y), Pairs()):
        assert [len(batch) for batch in order(of(data), size)] == sizes


@pytest.mark.parametrize(
    ("size", "least", "sizes"),
    [
        (3, 1, [3, 3, 1]),
        (3, 2, [3, 4]),
        (2, 2, [2, 2, 3]),
        (6, 2, [7]),
        (5, 2, [5, 2]),
        (5, 3, [7]),
        (1, 2, [1] * 7),  # such batches were asked for
        (2, 3, [2, 2, 2, 1]),
        (0, 2, [7]),
        (7, 8, [7]),
        (100, 200, [7]),
    ],
)
def test_a_last_batch_that_is_too_small_joins_the_one_before_it(size: int, least: int, sizes: list[int]) -> None:
    for data in ((X, Y), Pairs()):
        batches = [y.tolist() for _, y in of(data).batches(size, np.random.default_rng(3), least=least)]
        assert [len(batch) for batch in batches] == sizes
        assert flat(batches) == flat(order(of(data), size, seed=3)), "each comes once, in the order of the dice"


def test_a_single_example_is_a_batch_whatever_the_least() -> None:
    assert [len(y) for _, y in of((X[:1], Y[:1])).batches(4, least=2)] == [1]


@pytest.mark.parametrize(("size", "count"), [(0, 1), (1, 7), (3, 3), (7, 1), (100, 1)])
def test_batches_are_counted_without_making_them(size: int, count: int) -> None:
    assert of((X, Y)).batch_count(size) == count
    assert of(DataLoader(Pairs(), batch_size=2)).batch_count(size) == 4, "a loader's are its own"


def test_a_loader_keeps_its_own_batches_whatever_is_asked() -> None:
    assert order(of(DataLoader(Pairs(), batch_size=5)), 2, seed=1) == [[0, 1, 2, 3, 4], [5, 6]]


def test_a_loader_counts_what_its_sampler_lets_through_because_that_is_the_edges_weight() -> None:
    mine = DataLoader(TensorDataset(X, Y), batch_size=2, sampler=SubsetRandomSampler([1, 3, 5]))
    assert of(mine).count == 3
    assert of(mine).nbytes == 3 * 16
    assert sorted(flat(order(of(mine), 0))) == [1, 3, 5]


def test_a_loader_that_drops_its_last_batch_does_not_count_it() -> None:
    assert of(DataLoader(Pairs(), batch_size=3, drop_last=True)).count == 6


def test_a_loader_with_batches_of_its_own_making_is_counted_too() -> None:
    batches = BatchSampler(SequentialSampler(Y), batch_size=4, drop_last=False)
    assert of(DataLoader(Pairs(), batch_sampler=batches)).count == 7


def test_a_loader_may_collate_what_only_it_understands() -> None:
    class Words(Dataset[Any]):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> dict[str, object]:
            return {"text": "x" * index, "label": object()}

    loader = DataLoader(Words(), collate_fn=lambda items: (torch.ones(len(items), 3), torch.zeros(len(items))))
    assert (of(loader).count, of(loader).nbytes) == (2, 2 * 16)


# --- holding out ---


@pytest.mark.parametrize("data", [(X, Y), Pairs()], ids=["tensors", "dataset"])
@pytest.mark.parametrize(("share", "apart"), [(0.3, 2), (0.5, 4), (0.99, 6)])
def test_holding_out_keeps_a_share_apart_and_no_example_in_both(data: object, share: float, apart: int) -> None:
    mine, held_out = of(data).split(share, np.random.default_rng(0))
    assert held_out is not None
    assert (mine.count, held_out.count) == (7 - apart, apart)
    assert mine.nbytes == (7 - apart) * 16
    assert sorted(flat(order(mine, 0)) + flat(order(held_out, 0))) == list(range(7))


def test_the_seed_decides_what_is_held_out() -> None:
    first, again, other = (order(of((X, Y)).split(0.5, np.random.default_rng(seed))[0], 0) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("share", [0.0, 0.01])
def test_a_share_of_less_than_half_an_example_holds_nothing_out(share: float) -> None:
    examples = of((X, Y))
    assert examples.split(share, np.random.default_rng(0)) == (examples, None)


def test_an_edge_with_one_example_trains_on_it_whatever_the_share() -> None:
    only = of((X[:1], Y[:1]))
    assert only.split(0.9, np.random.default_rng(0)) == (only, None)


def test_a_loader_cannot_be_split_and_a_sentence_says_what_to_return() -> None:
    with pytest.raises(ConfigError, match="holdout needs a Dataset or tensors: return one of them instead of a"):
        of(DataLoader(Pairs(), batch_size=2)).split(0.5, np.random.default_rng(0))


# --- all in one place ---


def test_the_data_of_several_edges_can_be_joined() -> None:
    for parts in ([(X[:3], Y[:3]), (X[3:], Y[3:])], [(X[:3], Y[:3]), TensorDataset(X[3:], Y[3:])]):
        assert order(joined([of(part) for part in parts]), 0) == [list(range(7))]
    loaders = [DataLoader(Pairs(), sampler=SubsetRandomSampler(mine)) for mine in ([0, 2, 4], [1, 3, 5, 6])]
    assert sorted(flat(order(joined([of(loader) for loader in loaders]), 3))) == list(range(7))
    mixed = joined([of(Pairs()), of((X, Y))])
    assert mixed.count == 14
    assert order(mixed, 7) == [list(range(7))] * 2


# --- nonsense ---


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([(X[0], 0)])


class Named(Pairs):
    def __getitem__(self, index: int) -> Any:
        return {"x": X[index], "y": 0}


class Raising(Pairs):
    def __getitem__(self, index: int) -> Any:
        raise FileNotFoundError(f"no picture {index}")


class Uncollatable(Pairs):
    def __getitem__(self, index: int) -> Any:
        return object(), 0


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (None, "must return a Dataset, a DataLoader or tensors (x, y); it returned nothing"),
        (7, "must return a Dataset, a DataLoader or tensors (x, y); it returned a int"),
        ((X, Y, Y), "must return a Dataset, a DataLoader or tensors (x, y); it returned a tuple"),
        (([1, 2], [3, 4]), "must return a Dataset, a DataLoader or tensors (x, y); it returned a tuple"),
        ((X, None), "must return a Dataset, a DataLoader or tensors (x, y); it returned a tuple"),
        ((X, Y[:5]), "returned 7 inputs and 5 targets; they must pair up"),
        ((X[:0], Y[:0]), "returned no examples"),
        (TensorDataset(X[:0], Y[:0]), "returned no examples"),
        (DataLoader(Pairs(), batch_size=10, drop_last=True), "returned no examples"),
        (Endless(), "returned data without a length; an edge must know how many examples it has"),
        (DataLoader(Endless()), "returned data without a length; an edge must know how many examples it has"),
        (TensorDataset(X), "must give pairs of tensors (input, target); its examples are (Tensor)"),
        (
            TensorDataset(X, Y, Y),
            "must give pairs of tensors (input, target); its examples are (Tensor, Tensor, Tensor)",
        ),
        (Named(), "must give pairs of tensors (input, target); its examples are (str, str)"),
        ((torch.tensor(1.0), torch.tensor(1)), "failed: TypeError: len() of a 0-d tensor"),
        ((np.array(["a", "b"]), np.array([0, 1])), "failed: TypeError: can't convert np.ndarray of type numpy.str_"),
        (Uncollatable(), "failed: TypeError: default_collate: batch must contain tensors"),
    ],
)
def test_what_cannot_be_learnt_from_is_answered_in_one_sentence(data: object, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        of(data)
    assert str(caught.value).startswith(f"data() of app.py {sentence}")
    assert "\n" not in str(caught.value)


def test_a_dataset_that_fails_is_named_by_line_and_error() -> None:
    with pytest.raises(
        ConfigError, match=r"^data\(\) of app.py failed at test_examples.py line \d+: FileNotFoundError: "
    ):
        of(Raising())
