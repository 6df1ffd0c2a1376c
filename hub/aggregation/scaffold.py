"""SCAFFOLD: edges correct each step for how their own data pull differently from everybody's."""

from dataclasses import dataclass

import numpy as np

from hub.aggregation.algorithm import Aggregate, Algorithm, Rate, Terms, setting
from hub.aggregation.mean import ExactMean
from hub.aggregation.step import step
from shared.tensors import Tensors

_CONTROL = "scaffold c"


@dataclass(frozen=True)
class Scaffold:
    """Edges step by y <- y - lr (g_k(y) - c_k + c), and then c_k^+ = c_k - c + (x - y) / (K lr). The hub steps by

    x <- x + server_lr sum_k p_k (y_k - x),   c <- c + |S|/N sum_k p_k (c_k^+ - c_k),   with p_k = n_k / n.

    Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", Algorithm 1, option II.
    (There all edges weigh alike; here, as everywhere, by examples, so that c is the gradient of the weighted loss.)
    c goes out with the model, and each answer brings how far c_k moved beside how far the model did: twice the bytes.
    The edge keeps c_k, and moves it only if its update counts. N is the number of edges that were there.
    """

    server_lr: Rate = setting(1.0, "how far the hub goes along the mean (eta_g)")

    def make(self, name: str, terms: Terms) -> Algorithm:
        """Have edges take corrected steps."""
        return Algorithm(name=name, local="scaffold", aggregation=ExactMean(), step=self, carries=(_CONTROL,))

    def __call__(self, memory: Tensors, model: Tensors, aggregate: Aggregate) -> tuple[Tensors, Tensors]:
        """Take both steps."""
        moved, _ = step(memory, model, aggregate, equation=lambda delta: self.server_lr * delta)
        control = {
            key: memory.get(key, np.zeros(array.shape)) for key, array in aggregate.tensors.items() if _is_control(key)
        }
        controlled, _ = step({}, control, aggregate, equation=lambda delta: aggregate.turnout * delta)
        return moved, controlled


def _is_control(name: str) -> bool:
    return name.startswith(f"{_CONTROL} ")
