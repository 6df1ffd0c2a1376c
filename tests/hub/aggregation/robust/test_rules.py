"""Robust rules: no order matters, hostile updates have no power, and all kinds and numbers of updates work."""

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hub.aggregation.robust.bucketing import Bucketing
from hub.aggregation.robust.bulyan import Bulyan
from hub.aggregation.robust.centred_clipping import CentredClipping
from hub.aggregation.robust.geometric_median import GeometricMedian
from hub.aggregation.robust.kept import LARGEST
from hub.aggregation.robust.krum import Krum, MultiKrum
from hub.aggregation.robust.median import CoordinateMedian
from hub.aggregation.robust.nearest_neighbours import NearestNeighbourMixing
from hub.aggregation.robust.norm_clipping import NormClipping
from hub.aggregation.robust.rule import Rule
from hub.aggregation.robust.trimmed_mean import TrimmedMean
from shared.errors import ConfigError, NothingAccumulated
from shared.tensors import Array, Tensors
from tests.support.examples import DTYPES, MODEL, same_tensors
from tests.support.hostile import RULES, combined, of_rows

every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
# The one's tau is a length; the other mixes updates into equal ones, between which the hashes decide.
SCALES = {name: rule for name, rule in RULES.items() if name not in ("bucketing + centred clipping", "nnm + krum")}
MOVES_ALONG = {name: rule for name, rule in SCALES.items() if "clipping" not in name}  # clipping begins at zero


@st.composite
def matrices(draw: st.DrawFn) -> Array:
    """A few updates of different sizes, with plenty of ties; whole numbers, so that translations are exact."""
    count, size = draw(st.integers(1, 14)), draw(st.integers(1, 6))
    numbers = st.integers(-6, 6) | st.integers(-2000, 2000)
    values = draw(st.lists(numbers, min_size=count * size, max_size=count * size))
    return np.array(values, np.float64).reshape(count, size)


# --- equivariance ---


@every_rule
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_no_order_of_arrival_changes_a_bit(rule: Rule, data: st.DataObject) -> None:
    rows = data.draw(matrices()) / 7.0
    weights = [int(1 + abs(row.sum())) for row in rows]
    order = data.draw(st.permutations(range(len(rows))))
    shuffled = of_rows(rule, rows[order], weights=[weights[index] for index in order])
    assert shuffled.tobytes() == of_rows(rule, rows, weights=weights).tobytes()


@every_rule
def test_no_order_changes_a_bit_of_updates_longer_than_a_block(rule: Rule) -> None:
    dice = np.random.default_rng(0)
    rows = dice.normal(size=(12, 17_000)).astype(np.float32)
    first = of_rows(rule, rows).tobytes()
    assert all(of_rows(rule, dice.permutation(rows)).tobytes() == first for _ in range(3))


def told_apart(rows: Array) -> bool:
    """Whether no two distances or sums of them are equal: else the hashes decide, and those change with the numbers."""
    squares = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    apart = np.sort(squares[np.triu_indices(len(rows), 1)])
    return bool((np.diff(apart) > 1e-6 * apart[1:]).all())


def generic(seed: int) -> Array:
    return np.random.default_rng(seed).integers(-4000, 4000, (11, 5)).astype(np.float64)


@pytest.mark.parametrize("rule", MOVES_ALONG.values(), ids=MOVES_ALONG)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), shift=st.lists(st.integers(-(2**20), 2**20), min_size=5, max_size=5))
def test_updates_that_are_all_shifted_shift_the_result(rule: Rule, seed: int, shift: list[int]) -> None:
    rows = generic(seed)
    assume(told_apart(rows))
    if isinstance(rule, Bucketing):
        rule = Bucketing(CoordinateMedian(), size=1)  # other hashes fill other buckets
    assert np.allclose(of_rows(rule, rows + shift), of_rows(rule, rows) + shift, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("rule", SCALES.values(), ids=SCALES)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), power=st.integers(-20, 20), sign=st.sampled_from([1, -1]))
def test_updates_that_are_all_scaled_scale_the_result(rule: Rule, seed: int, power: int, sign: int) -> None:
    rows = generic(seed)
    assume(told_apart(rows))
    if isinstance(rule, Bucketing):
        rule = Bucketing(CoordinateMedian(), size=1)
    # Of two numbers as far from the median, Bulyan takes the lower, and a sign makes it the other.
    factor = (1 if isinstance(rule, Bulyan) else sign) * 2.0**power
    assert np.allclose(of_rows(rule, rows * factor), of_rows(rule, rows) * factor, rtol=1e-9, atol=1e-9 * abs(factor))


def test_a_given_length_of_clipping_scales_with_the_updates() -> None:
    rows = generic(1)
    once, twice = of_rows(CentredClipping(tau=900.0), rows), of_rows(CentredClipping(tau=1800.0), rows * 2.0)
    assert np.allclose(twice, 2.0 * once)


# --- hostile updates ---


def attacks(honest: Array, f: int) -> dict[str, Array]:
    mean = honest.mean(axis=0)
    return {
        "1e30": np.full((f, honest.shape[1]), 1e30),
        "-1e30": np.full((f, honest.shape[1]), -1e30),
        "the largest there is": np.full((f, honest.shape[1]), LARGEST),
        "sign flip": np.tile(-10.0 * mean, (f, 1)),
        "both ways": np.array([[1e30 * (-1) ** index] * honest.shape[1] for index in range(f)]),
        "a little beside": np.tile(mean + 1.5 * honest.std(axis=0), (f, 1)),
        "zeros": np.zeros((f, honest.shape[1])),
    }


def crowd() -> Array:
    """17 honest updates: 1 on average in each coordinate, with a deviation of 0.1."""
    return np.random.default_rng(9).normal(1.0, 0.1, (17, 20)).astype(np.float32)


ATTACKS = list(attacks(crowd(), 2))


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize(
    "rule",
    [CoordinateMedian(), TrimmedMean(4), Krum(4), MultiKrum(4, m=1), Bulyan(4), NearestNeighbourMixing(4)],
    ids=str,
)
def test_four_hostile_updates_of_twenty_one_leave_each_coordinate_in_the_honest_range(rule: Rule, attack: str) -> None:
    honest = crowd()
    result = of_rows(rule, np.concatenate([attacks(honest, 4)[attack].astype(np.float32), honest]))
    slack = (
        0.2 if attack == "a little beside" else 1e-6
    )  # close enough to be trusted, and so it may move what is trusted
    assert (result >= honest.min(axis=0) - slack).all()
    assert (result <= honest.max(axis=0) + slack).all()


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize(
    "name", [name for name in RULES if name not in ("norm clipping", "bucketing + centred clipping")]
)
def test_two_hostile_updates_of_nineteen_move_the_result_less_than_honest_ones_differ(name: str, attack: str) -> None:
    honest = crowd()
    result = of_rows(RULES[name], np.concatenate([attacks(honest, 2)[attack].astype(np.float32), honest]))
    farthest = np.linalg.norm(honest - honest.mean(axis=0), axis=1).max()
    assert np.linalg.norm(result - honest.mean(axis=0)) <= farthest * 1.01


@pytest.mark.parametrize("attack", ATTACKS)
def test_clipped_updates_pull_no_harder_than_honest_ones(attack: str) -> None:
    honest = crowd()
    result = of_rows(NormClipping(), np.concatenate([attacks(honest, 2)[attack].astype(np.float32), honest]))
    longest = np.linalg.norm(honest, axis=1).max()
    assert np.linalg.norm(result - honest.mean(axis=0)) <= 2 * longest * 2 / 19 + 0.2


def test_the_mean_would_be_lost() -> None:
    honest = crowd()
    assert np.concatenate([attacks(honest, 1)["1e30"], honest]).mean() > 1e28


@every_rule
def test_claimed_examples_count_for_nothing(rule: Rule) -> None:
    rows = crowd()
    assert np.array_equal(of_rows(rule, rows), of_rows(rule, rows, weights=[10**6, *range(1, 17)]))


def test_the_geometric_median_weighs_by_examples_as_in_its_paper_unless_told_otherwise() -> None:
    rows = np.array([[0.0], [0.0], [10.0]])
    assert of_rows(GeometricMedian(steps=50), rows, weights=[1, 1, 9])[0] == pytest.approx(10.0, abs=1e-4)
    assert of_rows(GeometricMedian(steps=50, weighted=False), rows, weights=[1, 1, 9])[0] == pytest.approx(0, abs=1e-4)


def test_an_update_may_hold_what_a_float32_holds_whatever_the_examples() -> None:
    rule = CoordinateMedian()
    assert rule.fits(10**12, LARGEST, updates=10**6)
    assert not rule.fits(1, LARGEST * 1.001, updates=1)
    assert not rule.fits(1, float("nan"), updates=1)


@every_rule
def test_the_largest_numbers_neither_overflow_nor_warn(rule: Rule) -> None:
    rows = np.full((9, 3), LARGEST) * np.array([1.0, -1.0, 1.0] * 3)[:, None]
    assert np.isfinite(of_rows(rule, rows.astype(np.float32))).all()


# --- numbers worked out by hand ---

LINE = np.array([[0.0], [1.0], [2.0], [4.0], [100.0]])


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (CoordinateMedian(), 2.0),
        (TrimmedMean(1), 7 / 3),
        # n = 5, f = 1: two nearest each. Scores 1+4, 1+1, 1+4, 4+9, 96^2+98^2: the second wins, then the first by hash.
        (Krum(1), 1.0),
        (MultiKrum(1, m=3), 1.0),
        (MultiKrum(1), 7 / 4),
        (MultiKrum(1, m=99), 7 / 4),  # no more than all but f
        # 0, 1, 2 and 4 are the nearest four of 0, 1, 2 and 4; of 100 all but 0: means 1.75 four times and 26.75.
        (NearestNeighbourMixing(1), 1.75),
        # Lengths 0, 1, 2, 4, 100, the middle is 2: (0 + 1 + 2 + 2 + 2) / 5.
        (NormClipping(), 7 / 5),
        (CentredClipping(tau=2.0, steps=1), 7 / 5),
        # From 1.4: -1.4, -0.4, 0.6, 2, 2.
        (CentredClipping(tau=2.0, steps=2), 1.4 + 2.8 / 5),
        (CentredClipping(tau=0.0), 0.0),
    ],
    ids=str,
)
def test_five_updates_give_what_they_give_by_hand(rule: Rule, expected: float) -> None:
    assert of_rows(rule, LINE)[0] == pytest.approx(expected, rel=1e-15)


def test_bulyan_of_seven_is_what_it_is_by_hand() -> None:
    # f = 1: five are selected. Of all, 2.1 scores least with its four nearest: 1.21 + 1.44 + 4.41 + 6.25 = 13.31.
    # Then 3.3 with three (1.69 + 5.29 + 7.29 = 14.27), 1 with two (1 + 12.96 = 13.96), 4.6 (1.96 + 21.16 = 23.12), and
    # 6 (36 + 8836). The median of those is 3.3, and 2.1, 3.3 and 4.6 are closest to it.
    rows = np.array([[0.0], [1.0], [2.1], [3.3], [4.6], [6.0], [100.0]])
    assert of_rows(Bulyan(1), rows)[0] == pytest.approx(10 / 3, rel=1e-15)


def test_buckets_of_one_change_nothing_and_one_bucket_of_all_is_the_mean() -> None:
    assert np.array_equal(of_rows(Bucketing(Krum(1), size=1), LINE), of_rows(Krum(1), LINE))
    assert of_rows(Bucketing(CoordinateMedian(), size=5), LINE)[0] == pytest.approx(107 / 5, rel=1e-15)


# --- few updates, many alike ---


@every_rule
def test_one_update_is_the_result_unless_it_is_clipped_by_a_length(rule: Rule) -> None:
    rows = np.array([[0.25, -0.5, 0.0]])
    assert of_rows(rule, rows) == pytest.approx(rows[0], abs=1e-12)


@every_rule
@pytest.mark.parametrize("count", range(1, 12))
def test_too_few_updates_for_the_promise_still_give_a_result_within_their_range(rule: Rule, count: int) -> None:
    rows = np.random.default_rng(count).normal(0.0, 0.2, (count, 4))
    result = of_rows(rule, rows)
    assert (result >= np.minimum(rows.min(axis=0), 0.0) - 1e-12).all()  # clipping pulls towards zero
    assert (result <= np.maximum(rows.max(axis=0), 0.0) + 1e-12).all()


@every_rule
@pytest.mark.parametrize("count", [2, 5, 12])
def test_updates_that_are_all_the_same_give_that_update(rule: Rule, count: int) -> None:
    assert of_rows(rule, np.tile([0.5, -0.25], (count, 1))) == pytest.approx([0.5, -0.25], abs=1e-12)


@every_rule
def test_no_update_is_an_error_and_not_zero(rule: Rule) -> None:
    with pytest.raises(NothingAccumulated, match="a robust rule was asked to combine no updates"):
        rule.finalize(rule.init(MODEL), MODEL)


def test_rules_say_how_many_updates_their_promise_takes() -> None:
    needs = {name: rule.needs for name, rule in RULES.items()}
    assert needs == {
        "median": 1,
        "trimmed mean": 5,
        "krum": 7,
        "multi-krum": 7,
        "multi-krum of 3": 7,
        "bulyan": 11,
        "geometric median": 1,
        "centred clipping": 1,
        "norm clipping": 1,
        "nnm": 5,
        "nnm + krum": 7,
        "bucketing": 13,
        "bucketing + geometric median": 1,
        "bucketing + centred clipping": 1,
    }
    assert MultiKrum(f=1, m=9).needs == 9


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: TrimmedMean(-1), "algorithm: f = -1 cannot be; it is at least 0"),
        (lambda: Krum(-1), "f = -1"),
        (lambda: MultiKrum(-1), "f = -1"),
        (lambda: MultiKrum(1, m=0), "m = 0 cannot be; it is at least 1"),
        (lambda: Bulyan(-2), "f = -2"),
        (lambda: NearestNeighbourMixing(-1), "f = -1"),
        (lambda: GeometricMedian(steps=0), "steps = 0"),
        (lambda: GeometricMedian(nu=float("nan")), "nu = nan"),
        (lambda: CentredClipping(tau=-1.0), "tau = -1.0"),
        (lambda: CentredClipping(steps=0), "steps = 0"),
        (lambda: Bucketing(Krum(1), size=0), "size = 0"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(make: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make()


# --- all kinds of tensors ---


@every_rule
@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float32", "float64"], ids=str)
@pytest.mark.parametrize("shape", [(), (3,), (2, 2), (0, 3)], ids=str)
def test_float_tensors_of_any_kind_give_float64_in_the_models_shape(rule: Rule, dtype: Any, shape: Any) -> None:
    updates: list[Tensors] = [
        {"w": np.full(shape, 0.125 * index, dtype), "v": np.full(shape, -0.125 * index, dtype)} for index in range(9)
    ]
    result = combined(rule, updates)
    assert list(result) == ["w", "v"]
    for array in result.values():
        assert isinstance(array, np.ndarray)
        assert (array.dtype, array.shape) == (np.float64, shape)
    assert np.allclose(result["w"], -result["v"])


def test_float64_is_not_rounded_on_the_way() -> None:
    rows = np.array([[1.0], [1.0 + 2.0**-40], [1.0 + 2.0**-39]])
    assert of_rows(CoordinateMedian(), rows)[0] == 1.0 + 2.0**-40


@every_rule
def test_awkward_models_go_through_and_nothing_is_changed_in_place(rule: Rule) -> None:
    updates: list[Tensors] = []
    for factor in range(7):
        update = {name: (array.copy() if array.dtype.kind in "biu" else array * (factor / 8)).astype(array.dtype)
                  for name, array in MODEL.items()}  # fmt: skip
        for array in update.values():
            array.flags.writeable = False
        updates.append(update)
    before = [{name: array.copy() for name, array in update.items()} for update in updates]
    result = combined(rule, updates)
    assert list(result) == list(MODEL)
    assert all(result[name].shape == array.shape for name, array in MODEL.items())
    assert same_tensors({"n": result["norm.count"]}, {"n": MODEL["norm.count"]})
    assert same_tensors({"n": result["norm.frozen"]}, {"n": MODEL["norm.frozen"]})
    assert all(same_tensors(one, other) for one, other in zip(before, updates, strict=True))


@every_rule
def test_a_model_of_integers_only_has_nothing_to_combine(rule: Rule) -> None:
    result = combined(rule, [{"n": np.array(index)} for index in (3, 1, 2)])
    assert same_tensors(result, {"n": np.array(2)})


@pytest.mark.parametrize("dtype", [kind for kind in DTYPES if kind.kind in "iu"], ids=str)
def test_of_integers_the_lower_of_those_in_the_middle_counts_and_no_extreme_does(dtype: np.dtype[Any]) -> None:
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    columns = [[low, 3, 5], [high, 3, high], [high, 4, high], [7, 4, 6]]
    result = combined(CoordinateMedian(), [{"n": np.array(values, dtype)} for values in columns])["n"]
    assert result.dtype == dtype
    assert result.tolist() == [7, 3, 6]


def test_of_booleans_what_most_say_counts() -> None:
    said = itertools.zip_longest([True] * 3, [True] * 2, [True], fillvalue=False)
    assert combined(CoordinateMedian(), [{"b": np.array(values)} for values in said])["b"].tolist() == [
        True,
        True,
        False,
    ]
    halves = [{"b": np.array([index < 2])} for index in range(4)]
    assert combined(CoordinateMedian(), halves)["b"].tolist() == [False]


def test_tensors_that_do_not_lie_in_one_piece_are_kept_all_the_same() -> None:
    array = np.arange(12.0).reshape(3, 4)
    assert np.array_equal(of_rows(CoordinateMedian(), array.T[None])[0:], array.T)


def test_minus_zero_and_zero_do_not_depend_on_who_came_first() -> None:
    for rule in (CoordinateMedian(), TrimmedMean(1)):
        for rows in itertools.permutations([[-0.0], [0.0], [-0.0]]):
            assert of_rows(rule, np.array(rows, np.float32)).tobytes() == np.zeros(1).tobytes()


def test_rules_can_say_what_they_are() -> None:
    assert str(Bucketing(rule=Krum(f=2), size=2)) == "Bucketing(rule=Krum(f=2), size=2)"
    assert NearestNeighbourMixing(2) == NearestNeighbourMixing(2) != NearestNeighbourMixing(2, rule=Krum(2))
