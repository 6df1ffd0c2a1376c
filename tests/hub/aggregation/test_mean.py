"""The mean is exact: no order or grouping changes a bit, it errs less than it says, and what fits never overflows."""

import itertools
import random
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hub.aggregation.mean import CAPACITY, ExactMean, Sum
from shared.errors import NothingAccumulated
from shared.tensors import ModelSpec, Tensors, magnitude
from tests.support.examples import DTYPES, same_tensors

MEAN = ExactMean()
FLOATS = ("float16", ml_dtypes.bfloat16, "float32", "float64")
Updates = list[tuple[Tensors, int]]


def sum_of(updates: Updates, like: Tensors) -> Sum:
    state = MEAN.init(like)
    for tensors, examples in updates:
        state = MEAN.accumulate(state, tensors, examples, largest=largest(tensors))
    return state


def largest(tensors: Tensors) -> float:
    return max((magnitude(array) for array in tensors.values() if array.dtype.kind not in "biu"), default=0.0)


def units(state: Sum) -> list[int]:
    """What is in the sum of the tensor `x`, in units of 2**-32, without the constants."""
    model = {"x": np.zeros(state.totals["x"].shape)}
    weight, state.weight = state.weight, 1
    found = [int(number * 2**32) for number in MEAN.finalize(state, model)["x"]]
    state.weight = weight
    return found


def mean_of(updates: Updates) -> Tensors:
    like = updates[0][0]
    return MEAN.finalize(sum_of(updates, like), like)


def scalar(*pairs: tuple[float, int]) -> float:
    """The mean of single numbers with their examples."""
    return float(mean_of([({"x": np.array([value])}, examples) for value, examples in pairs])["x"][0])


def some_updates(count: int, *, seed: int = 0, size: int = 40_000) -> Updates:
    """Updates of every awkward kind, longer than two blocks of the addition."""
    dice = np.random.default_rng(seed)
    return [
        (
            {
                "w": (dice.normal(size=(2, size // 2)) * 10.0 ** dice.integers(-9, 3)).astype(np.float32),
                "half": dice.normal(size=7).astype(np.float16),
                "brain": dice.normal(size=7).astype(ml_dtypes.bfloat16),
                "point": np.array(dice.normal()),
                "count": np.array(dice.integers(1000)),
                "frozen": dice.integers(0, 2, 5).astype(bool),
                "empty": np.zeros((0, 3), np.float32),
            },
            int(dice.integers(1, 1000)),
        )
        for _ in range(count)
    ]


# --- what a mean is ---


def test_the_mean_is_weighted_by_examples() -> None:
    assert scalar((1.0, 1), (5.0, 3)) == 4.0


def test_the_mean_of_one_update_is_that_update() -> None:
    assert scalar((0.125, 600)) == 0.125


def test_the_mean_is_given_in_float64_and_in_the_models_shapes() -> None:
    model = {"w": np.ones((2, 3), np.float16), "point": np.array(1.5, np.float32), "empty": np.zeros((0, 4))}
    mean = mean_of([(model, 2), (model, 5)])
    assert {name: (array.dtype, array.shape) for name, array in mean.items()} == {
        name: (np.float64, array.shape) for name, array in model.items()
    }
    assert all(isinstance(array, np.ndarray) for array in mean.values())


@pytest.mark.parametrize("dtype", [kind for kind in DTYPES if kind.kind in "iu"], ids=str)
def test_of_integers_the_largest_counts(dtype: np.dtype[Any]) -> None:
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    updates = [({"n": np.array(values, dtype)}, 10**6) for values in ([low, low, 3], [low, high, 2], [low, 0, 1])]
    mean = mean_of(updates)["n"]
    assert mean.dtype == dtype
    assert mean.tolist() == [low, high, 3]


def test_of_booleans_the_logical_or_counts() -> None:
    updates = [({"b": np.array(values)}, 1) for values in ([False, True, False], [False, False, True])]
    mean = mean_of(updates)["b"]
    assert mean.dtype == bool
    assert mean.tolist() == [False, True, True]


def test_the_mean_of_nothing_is_an_error_and_not_zero() -> None:
    model = {"w": np.ones(3)}
    with pytest.raises(NothingAccumulated, match="the mean of no updates was asked for"):
        MEAN.finalize(MEAN.init(model), model)


def test_adding_changes_neither_model_nor_update() -> None:
    ((update, examples),) = some_updates(1)
    before = {name: array.copy() for name, array in update.items()}
    for array in update.values():
        array.flags.writeable = False
    mean_of([(update, examples)])
    assert same_tensors(update, before)


# --- exactness ---


def test_no_order_of_arrival_changes_a_bit() -> None:
    updates = some_updates(4)
    first = mean_of(updates)
    for order in itertools.permutations(updates):
        assert same_tensors(mean_of(list(order)), first)


def test_a_hundred_shuffles_of_many_updates_give_the_same_bits() -> None:
    updates = some_updates(30, size=500)
    first, dice = mean_of(updates), random.Random(3)
    for _ in range(100):
        dice.shuffle(updates)
        assert same_tensors(mean_of(updates), first)


def test_no_grouping_into_partial_sums_changes_a_bit() -> None:
    updates = some_updates(6, size=500)
    like = updates[0][0]
    floats = {tensor.name for tensor in ModelSpec.of(like).tensors if tensor.is_float}
    for cut in range(1, 6):
        one, other = sum_of(updates[:cut], like), sum_of(updates[cut:], like)
        merged = {
            name: total + other.totals[name] if name in floats else np.maximum(total, other.totals[name])
            for name, total in one.totals.items()
        }
        both = Sum(merged, one.weight + other.weight, one.updates + other.updates)
        assert same_tensors(MEAN.finalize(both, like), mean_of(updates))


def test_plain_floats_would_depend_on_the_order() -> None:
    arrays = [tensors["w"] for tensors, _ in some_updates(30, size=500)]
    assert sum(arrays).tobytes() != sum(reversed(arrays)).tobytes()


def bound(pairs: list[tuple[Fraction, int]], exact: Fraction) -> Fraction:
    """How far the mean may be from the exact one: the grid, a product's rounding, and the division's."""
    weight = sum(examples for _, examples in pairs)
    products = sum(abs(value) * examples for value, examples in pairs) / weight
    return Fraction(2) ** -33 + products / 2**53 + abs(exact) * Fraction(3, 2**53)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("examples", [1, 600])
def test_the_mean_errs_less_than_it_says(dtype: Any, examples: int) -> None:
    dice = np.random.default_rng(4)
    arrays = [(dice.normal(size=300) * 10.0 ** dice.integers(-9, 4, 300)).astype(dtype) for _ in range(9)]
    weights = [examples * (number + 1 if examples > 1 else 1) for number in range(9)]
    mean = mean_of([({"x": array}, weight) for array, weight in zip(arrays, weights, strict=True)])["x"]
    for place in range(300):
        pairs = [(Fraction(float(array[place])), weight) for array, weight in zip(arrays, weights, strict=True)]
        exact = sum(value * weight for value, weight in pairs) / Fraction(sum(weights))
        assert abs(Fraction(float(mean[place])) - exact) <= bound(pairs, exact)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(-CAPACITY, CAPACITY) | st.floats(-1, 1) | st.sampled_from([5e-324, -(2.0**-34)]),
            st.integers(1, 500),
        ),
        min_size=1,
        max_size=8,
    )
)  # fmt: skip
def test_any_numbers_average_to_within_the_bound_in_any_order(pairs: list[tuple[float, int]]) -> None:
    assume(all(MEAN.fits(examples, abs(value), updates=len(pairs)) for value, examples in pairs))
    fractions = [(Fraction(value), examples) for value, examples in pairs]
    exact = sum(value * examples for value, examples in fractions) / Fraction(sum(examples for _, examples in pairs))
    mean = scalar(*pairs)
    assert abs(Fraction(mean) - exact) <= bound(fractions, exact)
    assert scalar(*reversed(pairs)) == mean == scalar(*sorted(pairs))


@settings(deadline=None)
@given(st.lists(st.floats(-1000, 1000), min_size=1, max_size=5), st.integers(1, 500))
def test_the_two_ways_to_round_to_the_grid_give_the_same_bits(values: list[float], examples: int) -> None:
    like = {"x": np.array(values)}
    fast, slow = (
        MEAN.finalize(MEAN.accumulate(MEAN.init(like), like, examples, largest=known), like)["x"]
        for known in (largest(like), float("inf"))
    )
    assert fast.tobytes() == slow.tobytes()


@pytest.mark.parametrize("size", [1, 16_383, 16_384, 16_385, 32_768, 40_001])
def test_no_number_is_lost_where_blocks_meet(size: int) -> None:
    array = np.arange(size, dtype=np.float32) / 4
    assert np.array_equal(mean_of([({"x": array}, 1), ({"x": array}, 3)])["x"], array)


def test_tensors_that_do_not_lie_in_one_piece_are_added_all_the_same() -> None:
    array = np.arange(12.0).reshape(3, 4)
    assert np.array_equal(mean_of([({"x": array.T}, 2)])["x"], array.T)


# --- capacity ---


def worst(magnitude: float, examples: int, updates: int) -> list[int]:
    """Add as many updates as a cohort can send, each as large as it may be, in both directions."""
    array = np.array([magnitude, -magnitude])
    return units(sum_of([({"x": array}, examples)] * updates, {"x": array}))


@pytest.mark.parametrize("magnitude", [2.0**-33, 2.0**-20, 0.125, 1.0, 1 + 2.0**-32, 1000.5, 2.0**18, 2.0**24])
@pytest.mark.parametrize("updates", [1, 2, 7, 64])
def test_the_worst_that_fits_does_not_overflow(magnitude: float, updates: int) -> None:
    examples = min(int(CAPACITY / magnitude / updates), 2**53)  # no edge can claim more
    while not MEAN.fits(examples, magnitude, updates=updates):
        examples -= 1
    exact = round(Fraction(magnitude) * examples * 2**32) * updates
    assert exact < 2**63
    low, high = sorted(worst(magnitude, examples, updates))
    assert (low, high) == (-high, high)
    assert abs(high - exact) <= abs(exact) / 2**51  # less than a float64 can tell apart


@settings(deadline=None)
@given(magnitude=st.floats(0, CAPACITY), examples=st.integers(1, 2**53), updates=st.integers(1, 2**20))
def test_whatever_fits_stays_within_64_bits_however_it_is_rounded(
    magnitude: float, examples: int, updates: int
) -> None:
    most = Fraction(magnitude) * examples * (1 + Fraction(1, 2**53)) * 2**32 + Fraction(1, 2)
    if MEAN.fits(examples, magnitude, updates=updates):
        assert most * updates < 2**63
    else:
        assert most * updates > 2**63 - 2**33


def test_a_cohort_whose_updates_differ_does_not_overflow_either() -> None:
    pairs = [(2.0**18, 2047), (1.0, 536_870_911), (2.0**-20, 2**48), (511.5, 1_049_000)]
    for value, examples in pairs:
        assert MEAN.fits(examples, value, updates=4)
    like = {"x": np.zeros(2)}
    total = units(sum_of([({"x": np.array([m, -m])}, n) for m, n in pairs], like))
    exact = sum(round(m * n * 2**32) for m, n in pairs)
    assert abs(exact - total[0]) <= exact / 2**52
    assert total[1] == -total[0]


def test_what_is_no_number_or_beyond_the_capacity_does_not_fit() -> None:
    assert MEAN.fits(1, CAPACITY - 1, updates=1)
    assert not MEAN.fits(1, CAPACITY + 1, updates=1)
    assert not MEAN.fits(1, float("inf"), updates=1)
    assert not MEAN.fits(1, float("nan"), updates=1)


@pytest.mark.parametrize("number", [2.0**30, -(2.0**30), 2.0**19, 2.0**18 - 2.0**-32, 2.0**-32, -(2.0**-32), -0.0])
def test_numbers_on_the_grid_are_kept_exactly(number: float) -> None:
    assert scalar((number, 1)) == number
