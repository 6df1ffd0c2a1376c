"""With momentum, clipping begins at what the last round gave, and the hub remembers that."""

import numpy as np
import pytest

from hub.aggregation.algorithm import Aggregate
from hub.aggregation.robust.rule import move_and_remember
from shared.errors import ConfigError
from shared.tensors import Tensors
from tests.hub.aggregation.quadratic import chosen

MODEL: Tensors = {"w": np.zeros(2), "n": np.array(3)}


def aggregate_of(text: str, updates: list[list[float]], memory: Tensors) -> list[float]:
    rule = chosen(text).aggregation
    state = rule.init(MODEL)
    for update in updates:
        state = rule.accumulate(state, {"w": np.array(update), "n": np.array(3)}, 1, largest=100.0)
    return list(rule.finalize(state, MODEL, memory)["w"])


def test_clipping_begins_at_the_last_rounds_aggregate_as_worked_out_by_hand() -> None:
    # v = (10, 0), tau = 5, one step. x_1 = (10, 4): distance 4, not clipped, + (0, 4). x_2 = (2, -6): the difference
    # (-8, -6) of length 10 is halved to (-4, -3). v + ((0, 4) + (-4, -3)) / 2 = (10, 0) + (-2, 1/2) = (8, 1/2).
    # From zero: x_1 has length sqrt(116), x_2 sqrt(40); both would be clipped to 5.
    text = "centred_clipping(tau=5, steps=1, momentum=0.5)"
    updates = [[10.0, 4.0], [2.0, -6.0]]
    assert aggregate_of(text, updates, {"last w": np.array([10.0, 0.0])}) == [8.0, 0.5]
    assert aggregate_of(text, updates, {}) != [8.0, 0.5]


@pytest.mark.parametrize("outer", ["bucketing(size=1, rule={})", "nnm(f=0, rule={})"])
def test_a_rule_around_it_begins_there_as_well(outer: str) -> None:
    text = outer.format("centred_clipping(tau=5, steps=1, momentum=0.5)")
    assert chosen(text).settings == {"beta": 0.5}
    memory = {"last w": np.array([10.0, 0.0])}
    assert aggregate_of(text, [[10.0, 4.0]], memory) == [10.0, 4.0]


def test_edges_send_momentum_only_if_it_is_asked_for() -> None:
    assert (chosen("centred_clipping").local, chosen("centred_clipping(momentum=0.9)").local) == ("sgd", "momentum")


def test_the_hub_remembers_which_way_it_went() -> None:
    went = Aggregate({"w": np.array([1.0, 2.0]), "n": np.array(4)})
    model, memory = move_and_remember({"last w": np.array([9.0, 9.0])}, MODEL, went)
    assert (list(model["w"]), int(model["n"])) == ([1.0, 2.0], 4)
    assert {name: list(array) for name, array in memory.items()} == {"last w": [1.0, 2.0]}


@pytest.mark.parametrize("text", ["centred_clipping(tau=5, steps=1)", "norm_clipping", "median"])
def test_a_rule_without_momentum_makes_nothing_of_what_another_has_left(text: str) -> None:
    updates = [[10.0, 4.0], [2.0, -6.0], [1.0, 1.0]]
    assert aggregate_of(text, updates, {"last w": np.array([10.0, 0.0])}) == aggregate_of(text, updates, {})


@pytest.mark.parametrize("name", ["fedprox", "ditto", "finetune"])
def test_edges_that_compute_something_else_cannot_send_momentum_as_well(name: str) -> None:
    with pytest.raises(ConfigError, match="its server wants edges to compute momentum themselves"):
        chosen(f"{name}(server=centred_clipping(momentum=0.9))")
    assert chosen("fedbn(server=centred_clipping(momentum=0.9))").local == "momentum"
