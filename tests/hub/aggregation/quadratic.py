"""Two edges with a quadratic each, small enough that every round can be worked out by hand."""

import numpy as np

from hub.aggregation.algorithm import Aggregate, Algorithm
from hub.aggregation.catalogue import algorithm
from hub.config import Settings
from shared.tensors import Tensors

# f_k(w) = (w - c_k)^2 / 2, so that the gradient is w - c_k, and a step of lr 1/2 halves the distance to c_k.
# Edge 1 has 1 example and c_1 = 0, edge 2 has 3 examples and c_2 = 4. Their weighted minimum is (1*0 + 3*4) / 4 = 3.
# After one local step each, edge k has moved by -(w - c_k) / 2, and the mean of that is Delta = -(w - 3) / 2.
EDGES = ((1, 0.0), (3, 4.0))


def chosen(text: str, **settings: float) -> Algorithm:
    """Give the algorithm of this spelling."""
    return algorithm(text, Settings(**settings))  # type: ignore[arg-type]


def local_sgd(w: float, *, centre: float, steps: int) -> float:
    """Take local steps w <- w - (w - c) / 2 and tell how far the model moved."""
    now = w
    for _ in range(steps):
        now -= 0.5 * (now - centre)
    return now - w


def play(algorithm: Algorithm, memory: Tensors, w: float, *, steps: tuple[int, int] = (1, 1)) -> tuple[float, Tensors]:
    """Play one round from `w`; give the next one, and the memory."""
    model = {"w": np.array([w])}
    state = algorithm.aggregation.init(model)
    for (examples, centre), count in zip(EDGES, steps, strict=True):
        update = {"w": np.array([local_sgd(w, centre=centre, steps=count)])}
        state = algorithm.aggregation.accumulate(state, update, examples, largest=100.0)
    model_then, memory = algorithm.step(memory, model, Aggregate(algorithm.aggregation.finalize(state, model)))
    return float(model_then["w"][0]), memory


def rounds(algorithm: Algorithm, w: float = 7.0, *, steps: tuple[int, int] = (1, 1), count: int = 3) -> list[float]:
    """Play three rounds; give w after each."""
    memory: Tensors = {}
    found = []
    for _ in range(count):
        w, memory = play(algorithm, memory, w, steps=steps)
        found.append(w)
    return found
