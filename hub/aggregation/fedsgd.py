"""FedSGD: edges send the gradient over all their data, and the hub takes one step down the average."""

from dataclasses import dataclass

from hub.aggregation.algorithm import Algorithm
from hub.aggregation.fedavg import shifted
from hub.aggregation.mean import ExactMean
from shared.tensors import Tensors


@dataclass(frozen=True)
class Descend:
    """w_{t+1} = w_t - lr * sum_k (n_k / n) g_k, with g_k the mean gradient over edge k's examples."""

    lr: float

    def __call__(self, memory: Tensors, model: Tensors, aggregate: Tensors) -> tuple[Tensors, Tensors]:
        """Take the step."""
        return {name: shifted(array, aggregate[name], -self.lr) for name, array in model.items()}, memory


def fedsgd(lr: float) -> Algorithm:
    """Federated SGD (McMahan et al. 2017, section 2): FedAvg with one local step over all data, taken by the hub."""
    return Algorithm(name="fedsgd", local="gradient", aggregation=ExactMean(), step=Descend(lr))
