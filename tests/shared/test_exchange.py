"""Rules per tensor say what crosses the wire, what stays, and what makes a whole model again."""

import msgspec
import numpy as np
import pytest

from shared.errors import ConfigError
from shared.exchange import Exchange
from shared.tensors import Tensors
from tests.support.examples import MODEL, same_tensors

EXCHANGE = Exchange(
    rules={
        "base.weight": "frozen",
        "norm.mean": "average",
        "mid.weight": "learn",
        "head.weight": "own",
        "norm.count": "average",
    },
    tied={"out.weight": "mid.weight", "copy.weight": "base.weight", "tail.weight": "head.weight"},
    norms=("norm.mean", "norm.count"),
)
TENSORS: Tensors = {name: np.array(float(place)) for place, name in enumerate(reversed(EXCHANGE.rules))}


def test_tensors_are_named_by_their_rules() -> None:
    assert EXCHANGE.of("learn", "average") == {"mid.weight", "norm.mean", "norm.count"}
    assert EXCHANGE.of("own") == {"head.weight"}
    assert EXCHANGE.of() == frozenset()


def test_what_is_learnt_or_averaged_crosses_the_wire_in_the_models_order_once() -> None:
    assert list(EXCHANGE.sent(TENSORS)) == ["norm.mean", "mid.weight", "norm.count"]
    assert list(EXCHANGE.frozen(TENSORS)) == ["base.weight"]
    assert EXCHANGE.sent(TENSORS)["mid.weight"] is TENSORS["mid.weight"]


def test_a_whole_model_has_all_names_but_those_of_what_edges_keep() -> None:
    kept = {**EXCHANGE.sent(TENSORS), **EXCHANGE.frozen(TENSORS)}
    whole = EXCHANGE.whole(kept)
    assert list(whole) == ["base.weight", "norm.mean", "mid.weight", "norm.count", "out.weight", "copy.weight"]
    assert whole["out.weight"] is TENSORS["mid.weight"]
    assert whole["copy.weight"] is TENSORS["base.weight"]


def test_a_model_without_rules_is_learnt_as_far_as_it_is_of_floats() -> None:
    plain = Exchange.plain(MODEL)
    assert plain.of("average") == {"norm.count", "norm.frozen"}
    assert plain.of("learn") == set(MODEL) - plain.of("average")
    assert plain.of("own", "frozen") == frozenset()
    assert same_tensors(plain.whole(MODEL), MODEL)
    assert same_tensors(plain.sent(MODEL), MODEL)


def test_further_tensors_are_kept_on_the_edges_unless_they_are_frozen() -> None:
    narrowed = EXCHANGE.with_own(["norm.mean", "base.weight"], why="the test keeps them")
    assert narrowed.of("own") == {"head.weight", "norm.mean"}
    assert narrowed.of("frozen") == {"base.weight"}
    assert list(narrowed.rules) == list(EXCHANGE.rules)
    assert (narrowed.tied, narrowed.norms) == (EXCHANGE.tied, EXCHANGE.norms)
    assert EXCHANGE.of("own") == {"head.weight"}, "it was not changed in place"


@pytest.mark.parametrize("names", [(), ("base.weight",)])
def test_to_keep_nothing_is_a_mistake(names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        EXCHANGE.with_own(names, why="x keeps them")
    assert str(caught.value) == (
        "x keeps them, but the model has none: its tensors are norm.mean, mid.weight, head.weight, norm.count"
    )


def test_of_many_tensors_the_first_are_named() -> None:
    with pytest.raises(ConfigError, match=r"its tensors are 0, 1, 2, 3, 4, 5, 6, 7 and 4 more$"):
        Exchange(rules={str(number): "learn" for number in range(12)}).with_own([], why="x keeps them")


def test_to_leave_nothing_to_learn_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"^x keeps them, and nothing is left that edges could learn together$"):
        EXCHANGE.with_own(["mid.weight"], why="x keeps them")


def test_it_crosses_from_an_app_to_the_hub_as_json_and_is_the_same_there() -> None:
    there = msgspec.json.decode(msgspec.json.encode(EXCHANGE), type=Exchange)
    assert there == EXCHANGE
    assert list(there.rules) == list(EXCHANGE.rules)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"rules": {"w": "melt"}}, Exchange)
