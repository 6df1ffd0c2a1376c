"""FedSGD takes one step down the average gradient, as worked out by hand."""

import numpy as np
import pytest

from hub.aggregation.algorithm import Aggregate
from hub.aggregation.fedsgd import Descend
from shared.tensors import Tensors
from tests.hub.aggregation.quadratic import chosen
from tests.support.examples import same_tensors


@pytest.mark.parametrize(
    ("lr", "rounds"),
    [
        # Two edges: f_k(w) = (w - c_k)^2 / 2, so g_k = w - c_k; 1 example with c_1 = 0, 3 examples with c_2 = 4.
        # The mean gradient is (1 (w - 0) + 3 (w - 4)) / 4 = w - 3, and w_{t+1} = w_t - lr (w_t - 3).
        #   lr = 1/2:  7 - 4/2 = 5;  5 - 2/2 = 4;  4 - 1/2 = 3.5
        (0.5, [5.0, 4.0, 3.5]),
        #   lr = 1/4:  7 - 4/4 = 6;  6 - 3/4 = 5.25;  5.25 - 2.25/4 = 4.6875
        (0.25, [6.0, 5.25, 4.6875]),
        #   lr = 1:  there in one step, and it stays
        (1.0, [3.0, 3.0, 3.0]),
    ],
)
def test_three_rounds_on_a_quadratic_are_what_they_are_by_hand(lr: float, rounds: list[float]) -> None:
    sgd = chosen("fedsgd", lr=lr)
    model: Tensors = {"w": np.array([7.0], np.float32)}
    for expected in rounds:
        state = sgd.aggregation.init(model)
        for examples, centre in ((1, 0.0), (3, 4.0)):
            state = sgd.aggregation.accumulate(state, {"w": model["w"] - np.float32(centre)}, examples, largest=100.0)
        model, memory = sgd.step({}, model, Aggregate(sgd.aggregation.finalize(state, model)))
        assert same_tensors(model, {"w": np.array([expected], np.float32)})
        assert memory == {}


def test_fedsgd_asks_for_gradients_and_is_called_by_its_name() -> None:
    sgd = chosen("fedsgd")
    assert (sgd.name, sgd.local) == ("fedsgd", "gradient")


def test_an_algorithm_can_say_what_it_is() -> None:
    assert chosen("fedsgd", lr=0.1) == chosen("fedsgd", lr=0.1) != chosen("fedsgd", lr=0.2)
    assert chosen("fedsgd", lr=0.25).step == Descend(lr=0.25)


def test_integers_are_replaced_and_not_descended() -> None:
    model = {"count": np.array(3)}
    assert Descend(0.5)({}, model, Aggregate({"count": np.array(9)}))[0]["count"] == 9
