"""FedAvgM: FedAvg with momentum, which carries the model over rounds whose edges pull to either side."""

from dataclasses import dataclass

from hub.aggregation.algorithm import Aggregate, Algorithm, Decay, Rate, Terms, setting
from hub.aggregation.mean import ExactMean
from hub.aggregation.step import step
from shared.tensors import Array, Tensors


@dataclass(frozen=True)
class FedAvgM:
    """m_t = beta m_{t-1} + Delta_t,  w_{t+1} = w_t + server_lr m_t,  with Delta_t = sum_k (n_k / n) (w^k_{t+1} - w_t).

    Hsu et al. 2019, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification",
    section 3, where m_{-1} = 0. (They write v for m and move against it, as their Delta is w_t - w^k_{t+1}.)
    """

    server_lr: Rate = setting(1.0, "how far the hub goes along the momentum")
    beta: Decay = setting(0.9, "how much of the momentum is kept in a round")

    def make(self, name: str, terms: Terms) -> Algorithm:
        """Have edges take local steps."""
        return Algorithm(name=name, local="sgd", aggregation=ExactMean(), step=self)

    def __call__(self, memory: Tensors, model: Tensors, aggregate: Aggregate) -> tuple[Tensors, Tensors]:
        """Take the step."""

        def equation(delta: Array, m: Array) -> Array:
            m *= self.beta
            m += delta
            return self.server_lr * m

        return step(memory, model, aggregate, equation=equation, keeps={"fedavgm m": 0.0})
