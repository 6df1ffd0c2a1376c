"""FedSGD: edges send the gradient over all their data, and the hub takes one step down the average."""

from dataclasses import dataclass

from hub.aggregation.algorithm import Aggregate, Algorithm, Terms
from hub.aggregation.mean import ExactMean
from hub.aggregation.step import step
from shared.tensors import Tensors


@dataclass(frozen=True)
class FedSGD:
    """McMahan et al. 2017, section 2: FedAvg with one local step over all data, which the hub takes for the edges."""

    def make(self, name: str, terms: Terms) -> Algorithm:
        """Have edges send gradients; the run's learning rate is that of the hub's step."""
        return Algorithm(name=name, local="gradient", aggregation=ExactMean(), step=Descend(terms.lr))


@dataclass(frozen=True)
class Descend:
    """w_{t+1} = w_t - lr * sum_k (n_k / n) g_k, with g_k the mean gradient over edge k's examples."""

    lr: float

    def __call__(self, memory: Tensors, model: Tensors, aggregate: Aggregate) -> tuple[Tensors, Tensors]:
        """Take the step."""
        return step(memory, model, aggregate, equation=lambda gradient: -self.lr * gradient)
