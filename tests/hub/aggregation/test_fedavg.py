"""FedAvg goes where its edges went on average, as worked out by hand."""

import ml_dtypes
import numpy as np
import pytest

from hub.aggregation.algorithm import Aggregate, Algorithm
from hub.aggregation.fedavg import move
from shared.tensors import Tensors
from tests.hub.aggregation.quadratic import chosen
from tests.support.examples import same, same_tensors

# Two edges hold quadratics: f_k(w) = (w - c_k)^2 / 2, so that the gradient is w - c_k.
# Edge 1 has 1 example and c_1 = 0, edge 2 has 3 examples and c_2 = 4. Their weighted minimum is (1*0 + 3*4) / 4 = 3.
EDGES = ((1, 0.0), (3, 4.0))
LR = 0.5


def local_sgd(model: Tensors, *, centre: float, steps: int) -> Tensors:
    """Take local steps w <- w - lr * (w - c) and give how far the model moved."""
    now = model["w"]
    for _ in range(steps):
        now = now - np.float32(LR) * (now - np.float32(centre))
    return {"w": now - model["w"]}


def play(algorithm: Algorithm, model: Tensors, *, steps: int) -> Tensors:
    """Play one round."""
    state = algorithm.aggregation.init(model)
    for examples, centre in EDGES:
        state = algorithm.aggregation.accumulate(
            state, local_sgd(model, centre=centre, steps=steps), examples, largest=100.0
        )
    return algorithm.step({}, model, Aggregate(algorithm.aggregation.finalize(state, model)))[0]


@pytest.mark.parametrize(
    ("steps", "rounds"),
    [
        # One step halves the distance to c_k: edge k moves by -(w - c_k) / 2. The mean of the moves is -(w - 3) / 2.
        #   7 - (7 - 3) / 2 = 5;  5 - (5 - 3) / 2 = 4;  4 - (4 - 3) / 2 = 3.5
        (1, [5.0, 4.0, 3.5]),
        # Two steps leave a quarter of the distance: edge k moves by -3/4 (w - c_k), the mean by -3/4 (w - 3).
        #   7 - 3 = 4;  4 - 3/4 = 3.25;  3.25 - 3/16 = 3.0625
        (2, [4.0, 3.25, 3.0625]),
    ],
)
def test_three_rounds_on_a_quadratic_are_what_they_are_by_hand(steps: int, rounds: list[float]) -> None:
    model: Tensors = {"w": np.array([7.0], np.float32)}
    for expected in rounds:
        model = play(chosen("fedavg"), model, steps=steps)
        assert same_tensors(model, {"w": np.array([expected], np.float32)})


def test_with_one_local_step_fedavg_is_fedsgd() -> None:
    averaged: Tensors = {"w": np.array([7.0], np.float32)}
    descended = averaged
    sgd = chosen("fedsgd", lr=LR)
    for _ in range(3):
        averaged = play(chosen("fedavg"), averaged, steps=1)
        state = sgd.aggregation.init(descended)
        for examples, centre in EDGES:
            state = sgd.aggregation.accumulate(
                state, {"w": descended["w"] - np.float32(centre)}, examples, largest=100.0
            )
        descended = sgd.step({}, descended, Aggregate(sgd.aggregation.finalize(state, descended)))[0]
        assert same_tensors(averaged, descended)


def test_fedavg_lets_edges_take_steps_and_is_called_by_its_name() -> None:
    fedavg = chosen("fedavg")
    assert (fedavg.name, fedavg.local) == ("fedavg", "sgd")


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float32", "float64"], ids=str)
@pytest.mark.parametrize("shape", [(), (3,), (0, 2)], ids=str)
def test_the_next_model_keeps_dtype_and_shape(dtype: str, shape: tuple[int, ...]) -> None:
    model = {"w": np.ones(shape, dtype)}
    moved, _ = move({}, model, Aggregate({"w": np.full(shape, 0.5)}))
    assert isinstance(moved["w"], np.ndarray)
    assert same(moved["w"], np.full(shape, 1.5, dtype))


def test_the_sum_is_rounded_once() -> None:
    model = {"w": np.array([2.0**24], np.float32)}
    moved, _ = move(
        {}, model, Aggregate({"w": np.array([1.0 + 2.0**-20])})
    )  # rounded to float32 first, it would be lost
    assert moved["w"][0] == 2.0**24 + 2


def test_integers_and_booleans_are_replaced_by_what_the_edges_agreed_on() -> None:
    model = {"count": np.array(3, np.int32), "frozen": np.array([True, False])}
    moved, _ = move({}, model, Aggregate({"count": np.array(9, np.int32), "frozen": np.array([False, True])}))
    assert same_tensors(moved, {"count": np.array(9, np.int32), "frozen": np.array([False, True])})


def test_fedavg_remembers_nothing_and_changes_no_model_in_place() -> None:
    model, memory = {"w": np.ones(2)}, {"another one's w": np.ones(1)}
    _, kept = move(memory, model, Aggregate({"w": np.ones(2)}))
    assert kept == {}
    assert model["w"].tolist() == [1.0, 1.0]
