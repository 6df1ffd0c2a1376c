"""FedAvg: edges train for a while on their own data, and the hub averages how far their models moved."""

from dataclasses import dataclass

from hub.aggregation.algorithm import Aggregate, Algorithm, Terms
from hub.aggregation.mean import ExactMean
from hub.aggregation.step import step
from shared.tensors import Tensors


@dataclass(frozen=True)
class FedAvg:
    """w_{t+1} = w_t + sum_k (n_k / n) (w^k_{t+1} - w_t).

    McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data", Algorithm 1. Equal
    to its sum_k (n_k / n) w^k_{t+1}, as the weights n_k / n sum to 1; differences are smaller numbers than weights and
    lose less in rounding.
    """

    def make(self, name: str, terms: Terms) -> Algorithm:
        """Have edges take local steps."""
        return Algorithm(name=name, local="sgd", aggregation=ExactMean(), step=move)


def move(memory: Tensors, model: Tensors, aggregate: Aggregate) -> tuple[Tensors, Tensors]:
    """Go where the edges went on average."""
    return step(memory, model, aggregate, equation=lambda delta: delta)
