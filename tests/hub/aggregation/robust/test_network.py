"""The sorting network sorts, and does no more than is asked of it."""

import itertools

import numpy as np
import pytest

from hub.aggregation.robust.network import Comparison, network, run


def sorted_by_network(columns: np.ndarray, wanted: range) -> list[np.ndarray]:
    rows = list(columns.copy())
    run(network(len(rows), wanted), rows, np.empty_like(rows[0]))
    return [rows[place] for place in wanted]


@pytest.mark.parametrize("count", range(1, 13))
def test_every_list_of_zeros_and_ones_is_sorted_and_therefore_every_list(count: int) -> None:
    columns = np.array(list(itertools.product([0.0, 1.0], repeat=count)), np.float32).T
    assert np.array_equal(sorted_by_network(columns, range(count)), np.sort(columns, axis=0))


@pytest.mark.parametrize("count", range(1, 11))
def test_whatever_places_are_wanted_are_right_for_every_list_of_zeros_and_ones(count: int) -> None:
    columns = np.array(list(itertools.product([0.0, 1.0], repeat=count)), np.float32).T
    for first, last in itertools.combinations(range(count + 1), 2):
        wanted = range(first, last)
        assert np.array_equal(sorted_by_network(columns, wanted), np.sort(columns, axis=0)[first:last])


@pytest.mark.parametrize("count", [13, 31, 32, 33, 50, 64, 100])
def test_random_lists_of_other_lengths_are_sorted(count: int) -> None:
    columns = np.random.default_rng(count).normal(size=(count, 500)).astype(np.float32)
    assert np.array_equal(sorted_by_network(columns, range(count)), np.sort(columns, axis=0))
    middle = range(count // 3, count - count // 3)
    assert np.array_equal(sorted_by_network(columns, middle), np.sort(columns, axis=0)[middle.start : middle.stop])


def test_nothing_is_compared_that_nobody_asked_for() -> None:
    assert network(1, range(1)) == network(5, range(0)) == network(0, range(0)) == ()
    assert network(2, range(2)) == (Comparison(0, 1, wants_low=True, wants_high=True),)
    assert network(2, range(1)) == (Comparison(0, 1, wants_low=True, wants_high=False),)
    effort = [sum(step.wants_low + step.wants_high for step in network(50, range(a, 50 - a))) for a in (0, 10, 24)]
    assert effort[0] > effort[1] > effort[2]
