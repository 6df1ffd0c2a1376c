"""Every server step keeps dtypes and shapes, rounds once, replaces counters, and gives the same bits in any blocks."""

import ml_dtypes
import numpy as np
import pytest

import hub.aggregation.step as step_file
from hub.aggregation.algorithm import Aggregate
from hub.aggregation.step import BLOCK
from shared.tensors import Tensors
from tests.hub.aggregation.quadratic import chosen
from tests.support.algorithms import LONG_STEPS, STEPS
from tests.support.examples import same, same_tensors

ALL = pytest.mark.parametrize("name", STEPS)


def a_model(size: int) -> Tensors:
    dice = np.random.default_rng(size)
    return {
        "w": dice.normal(size=(size, 3)).astype(np.float32),
        "half": dice.normal(size=5).astype(np.float16),
        "brain": dice.normal(size=5).astype(ml_dtypes.bfloat16),
        "point": np.array(dice.normal()),
        "empty": np.zeros((0, 4), np.float32),
        "count": np.array(7),
        "frozen": np.array([True, False]),
    }


def an_aggregate(model: Tensors, seed: int) -> Tensors:
    dice = np.random.default_rng(seed)
    return {
        name: np.asarray(array + 1)
        if array.dtype.kind == "i"
        else ~array
        if array.dtype == bool
        else np.asarray(dice.normal(size=array.shape))
        for name, array in model.items()
    }


def three_steps(name: str, model: Tensors) -> tuple[Tensors, Tensors]:
    algorithm, memory = chosen(name), dict[str, np.ndarray]()
    for seed in range(3):
        model, memory = algorithm.step(memory, model, Aggregate(an_aggregate(model, seed)))  # type: ignore[assignment]
    return model, memory


@ALL
def test_dtypes_and_shapes_are_kept_and_memory_is_float64(name: str) -> None:
    model = a_model(10)
    after, memory = three_steps(name, model)
    assert {key: (one.dtype, one.shape) for key, one in after.items()} == {
        key: (one.dtype, one.shape) for key, one in model.items()
    }
    assert all(one.dtype == np.float64 for one in memory.values())
    assert not any(key.endswith((" count", " frozen")) for key in memory)


@ALL
def test_counters_and_flags_become_what_the_edges_agreed_on(name: str) -> None:
    after, _ = three_steps(name, a_model(10))
    assert same(after["count"], np.array(10))
    assert same(after["frozen"], np.array([False, True]))


@ALL
def test_nothing_is_changed_in_place(name: str) -> None:
    model = a_model(10)
    _, memory = three_steps(name, model)
    for one in (*model.values(), *memory.values()):
        one.flags.writeable = False  # as they are when they come out of a file
    aggregate = an_aggregate(model, 9)
    for one in aggregate.values():
        one.flags.writeable = False
    chosen(name).step(memory, model, Aggregate(aggregate))


@ALL
def test_no_length_of_a_block_changes_a_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = a_model(BLOCK // 3 + 2)  # the first tensor is longer than a block
    whole = three_steps(name, model)
    for length in (1_000, 10**9):
        monkeypatch.setattr(step_file, "BLOCK", length)
        again = three_steps(name, model)
        assert all(same_tensors(one, other) for one, other in zip(whole, again, strict=True))


@ALL
def test_a_step_beyond_the_largest_number_is_told_as_infinity(name: str) -> None:
    model = {"w": np.array([60_000.0], np.float16)}
    text = f"{name}(server_lr=1e6)" if name in LONG_STEPS else name
    direction = -1e6 if name == "fedsgd" else 1e6
    after, _ = chosen(text).step({}, model, Aggregate({"w": np.array([direction])}))
    assert np.isinf(after["w"][0])
