"""Whoever is called close is close: as the exact distances say, whatever BLAS rounds, and the same bits always."""

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from hub.aggregation.robust import panels
from hub.aggregation.robust.distances import Distances
from hub.aggregation.robust.kept import Ordered
from hub.aggregation.robust.krum import MultiKrum
from hub.aggregation.robust.means import Means
from hub.aggregation.robust.rows import Chosen, squared_distances_to, weighted_sum
from shared.tensors import Array
from tests.support.hostile import of_rows


def ordered(rows: Array) -> Ordered:
    return Ordered(tuple(rows), np.ones(len(rows)))


def exactly(rows: Array) -> list[list[Fraction]]:
    """All squared distances, without any rounding."""
    numbers = [[Fraction(float(value)) for value in row] for row in rows]
    return [[sum(((a - b) ** 2 for a, b in zip(x, y, strict=True)), Fraction(0)) for y in numbers] for x in numbers]


def chosen_exactly(squares: list[list[Fraction]], *, f: int, m: int) -> list[int]:
    scores = [sum(sorted(line)[1 : len(squares) - f - 1]) for line in squares]
    return sorted(sorted(range(len(squares)), key=lambda index: (scores[index], index))[:m])


def awkward(seed: int) -> Array:
    """Updates of 1e-6 to 1e3 beside weights of order 1, some close together, some far, some the same."""
    dice = np.random.default_rng(seed)
    n = int(dice.integers(7, 16))
    sizes = 10.0 ** dice.uniform(-6, 3, (n, 1)) if seed % 2 else 10.0 ** dice.uniform(-6, 3)
    common = dice.normal(size=40) * (10.0 ** dice.uniform(-6, 3) if seed % 3 else 0.0)
    rows = (common + dice.normal(size=(n, 40)) * sizes).astype(np.float32)
    if seed % 5 == 0:
        rows[1] = rows[0]
    return rows


@pytest.mark.parametrize("seed", range(100))
def test_multi_krum_selects_as_exact_arithmetic_does(seed: int) -> None:
    rows = awkward(seed)
    f = (len(rows) - 3) // 2
    m = len(rows) - f
    chosen = Distances.between(ordered(rows)).most_central(list(range(len(rows))), neighbours=m - 2, count=m)
    assert chosen == chosen_exactly(exactly(rows), f=f, m=m)


@pytest.mark.parametrize("seed", range(0, 100, 10))
def test_the_neighbours_are_those_of_exact_arithmetic(seed: int) -> None:
    rows = awkward(seed)
    near = Distances.between(ordered(rows)).nearest(5)
    for line, found in zip(exactly(rows), near, strict=True):
        assert found == sorted(sorted(range(len(rows)), key=lambda index: (line[index], index))[:5])


def test_updates_that_differ_in_their_last_digits_only_are_told_apart() -> None:
    # All have a norm near 1,000; the product of matrices cannot see a difference of 1e-9, and float64 can.
    rows = np.full((7, 50), 141.0)
    rows[:, 0] += np.array([0.0, 1.0, 2.1, 3.3, 4.6, 40.0, -60.0]) * 1e-10
    distances = Distances.between(ordered(rows))
    assert (distances.low[0, 1:] == 0.0).all()
    assert distances.most_central(list(range(7)), neighbours=3, count=5) == [0, 1, 2, 3, 4]


def test_the_bounds_hold_and_sharp_distances_are_exact_to_rounding() -> None:
    rows = np.random.default_rng(1).normal(size=(6, 9_001)).astype(np.float32)
    distances = Distances.between(ordered(rows))
    loose = distances.high - distances.low
    low, high = distances.low.copy(), distances.high.copy()
    distances.sharpen((i, j) for i in range(6) for j in range(6))
    assert (distances.low == distances.high).all()
    assert (low <= distances.low).all()
    assert (distances.high <= high).all()
    assert 0 < loose.max() < 1e-6
    direct = ((rows[:, None].astype(np.float64) - rows[None]) ** 2).sum(axis=2)
    assert np.allclose(distances.low, direct, rtol=1e-13, atol=0)


def test_of_two_that_score_the_same_the_first_is_chosen() -> None:
    rows = np.array([[5.0], [1.0], [0.0], [-1.0], [-5.0]])
    assert Distances.between(ordered(rows)).most_central(list(range(5)), neighbours=1, count=1) == [1]
    assert Distances.between(ordered(rows)).nearest(2) == [[0, 1], [1, 2], [1, 2], [2, 3], [3, 4]]


def test_means_are_summed_as_a_plain_loop_sums_them_bit_for_bit() -> None:
    dice = np.random.default_rng(2)
    for count, size in ((1, 3), (50, 10_007), (150, 700)):
        rows = (dice.normal(size=(count, size)) * 10.0 ** dice.integers(-9, 9, size)).astype(np.float32)
        members = dice.random((count, count)) < 0.8
        members[:, 0] = True
        mixed = np.empty((count, size))
        Means(ordered(rows), members).read(0, mixed)
        for line, chosen in zip(mixed, members, strict=True):
            total = np.zeros(size)
            for row in rows[chosen]:
                total += row
            total *= 1.0 / chosen.sum()
            assert np.array_equal(line, total)


def test_any_part_of_the_means_is_the_same_as_all_of_them() -> None:
    dice = np.random.default_rng(3)
    means = Means(ordered(dice.normal(size=(9, 20_000))), np.tri(9, dtype=np.bool_))
    everything, part = np.empty((9, 20_000)), np.empty((9, 7))
    means.read(0, everything)
    for start in (0, 4_093, 19_993):
        means.read(start, part)
        assert np.array_equal(part, everything[:, start : start + 7])


def test_no_number_is_lost_where_blocks_meet() -> None:
    for size in (1, 4_095, 4_097, 16_384, 16_385, 33_000):
        rows = np.random.default_rng(size).normal(size=(3, size)).astype(np.float32)
        assert np.allclose(
            weighted_sum(ordered(rows), np.array([1.0, 0.0, -2.0])), rows[0] - 2.0 * rows[2].astype(float)
        )
        assert np.allclose(squared_distances_to(ordered(rows), np.ones(size)), ((rows - 1.0) ** 2).sum(axis=1))
        direct = ((rows[:, None].astype(np.float64) - rows[None]) ** 2).sum(axis=2)
        assert np.allclose(Distances.between(ordered(rows)).low, direct, rtol=1e-9)


def test_some_of_the_rows_keep_their_numbers_and_their_weights() -> None:
    rows = np.arange(12.0).reshape(4, 3)
    some = Chosen(Ordered(tuple(rows), np.array([5.0, 6.0, 7.0, 8.0])), [0, 3])
    into = np.empty((2, 2), np.float32)
    some.read(1, into)
    assert (some.count, some.size, some.dtype, some.weights.tolist()) == (2, 3, np.float64, [5.0, 8.0])
    assert into.tolist() == [[1.0, 2.0], [10.0, 11.0]]


def test_the_number_of_threads_of_blas_changes_no_bit() -> None:
    program = (
        "import numpy as np\n"
        "from hub.aggregation.robust.nearest_neighbours import NearestNeighbourMixing\n"
        "from hub.aggregation.robust.krum import MultiKrum\n"
        "from tests.support.hostile import of_rows\n"
        "rows = np.random.default_rng(5).normal(size=(130, 3000)).astype(np.float32)\n"
        "print([of_rows(rule, rows).tobytes().hex() for rule in (NearestNeighbourMixing(f=9), MultiKrum(f=9))])\n"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program], env={"OPENBLAS_NUM_THREADS": threads, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, check=True,
        ).stdout
        for threads in ("1", "2")
    }  # fmt: skip
    assert len(printed) == 1


def test_products_are_no_larger_than_one_thread_takes() -> None:
    for count in (1, 10, 50, 64, 65, 180, 5_000):
        width = panels.Panels(ordered(np.zeros((count, 100), np.float32)), 100).width
        largest = max(group.stop - group.start for group in panels.tiles(count, by=count * width))
        assert largest == 1 or largest * count * width <= 2**18


@pytest.mark.parametrize("count", [63, 64, 65, 130])
def test_many_rows_are_multiplied_in_groups(count: int) -> None:
    rows = np.random.default_rng(count).normal(size=(count, 300)).astype(np.float32)
    direct = ((rows[:, None].astype(np.float64) - rows[None]) ** 2).sum(axis=2)
    assert np.allclose(Distances.between(ordered(rows)).low, direct, rtol=1e-9)


def test_it_makes_no_difference_whether_blas_rounds_up_or_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bounds are wider than any rounding: with estimates moved within them, the choice is the same."""
    rows = awkward(4)
    expected = of_rows(MultiKrum(f=2), rows)
    honest = Distances.between

    def moved(of: Ordered) -> Distances:
        found = honest(of)
        width = found.high - found.low
        found.low, found.high = np.maximum(found.low - 1e6 * width, 0.0), found.high + 1e6 * width
        return found

    monkeypatch.setattr(Distances, "between", moved)
    assert np.array_equal(of_rows(MultiKrum(f=2), rows), expected)
