"""FedNova counts an edge by its examples and not by its steps, as worked out by hand, whatever the order."""

import itertools

import numpy as np
import pytest

from hub.aggregation.fednova import Normalized
from shared.errors import NothingAccumulated
from shared.tensors import Tensors
from tests.hub.aggregation.quadratic import chosen, rounds
from tests.support.examples import same_tensors


def test_three_rounds_on_a_quadratic_are_what_they_are_by_hand() -> None:
    # E = 1 and B = 1: edge 1 takes 1 step, edge 2 takes 3. A step halves the distance to c_k, so
    #   Delta_1 = -w / 2,  Delta_2 = -7/8 (w - 4),  tau_eff = 1/4 1 + 3/4 3 = 5/2, and the move is
    #   5/2 (1/4 (-w/2) / 1 + 3/4 (-7/8 (w - 4)) / 3) = 5/2 (-w/8 - 7/32 (w - 4)) = -(55 w - 140) / 64
    #   w = 4:          -80 / 64 = -5/4,                     w = 11/4
    #   w = 11/4:       -(605/4 - 140) / 64 = -45/256,       w = 659/256
    #   w = 659/256:    -(36245/256 - 140) / 64 = -405/16384, w = (42176 - 405) / 16384 = 41771/16384
    nova = chosen("fednova", epochs=1, batch=1)
    assert rounds(nova, 4.0, steps=(1, 3)) == [11 / 4, 659 / 256, 41771 / 16384]


@pytest.mark.parametrize("batch", [0, 3, 10])
def test_where_all_edges_take_as_many_steps_it_is_fedavg(batch: int) -> None:
    nova = chosen("fednova", epochs=2, batch=batch)
    assert rounds(nova, steps=(2, 2)) == rounds(chosen("fedavg"), steps=(2, 2)) == [4.0, 3.25, 3.0625]


def test_the_order_of_arrival_changes_no_bit() -> None:
    dice = np.random.default_rng(5)
    updates = [({"w": dice.normal(size=500).astype(np.float32)}, int(n)) for n in dice.integers(1, 900, 4)]
    like: Tensors = {"w": np.zeros(500, np.float32)}
    rule = Normalized(epochs=5, batch=10)
    found = []
    for order in itertools.permutations(updates):
        state = rule.init(like)
        for update, weight in order:
            state = rule.accumulate(state, update, weight, largest=10.0)
        found.append(rule.finalize(state, like))
    assert all(same_tensors(one, found[0]) for one in found)


def test_what_does_not_fit_the_mean_does_not_fit() -> None:
    assert Normalized(1, 1).fits(1, 1.0, updates=1)
    assert not Normalized(1, 1).fits(1, 2.0**32, updates=1)


def test_of_nothing_there_is_none() -> None:
    rule, like = Normalized(1, 1), {"w": np.zeros(1)}
    with pytest.raises(NothingAccumulated):
        rule.finalize(rule.init(like), like)


def test_counters_take_the_largest_value_undivided() -> None:
    rule, like = Normalized(1, 1), {"n": np.array(1), "b": np.array([False])}
    state = rule.accumulate(rule.init(like), {"n": np.array(9), "b": np.array([True])}, 7, largest=0.0)
    assert same_tensors(rule.finalize(state, like), {"n": np.array(9), "b": np.array([True])})
