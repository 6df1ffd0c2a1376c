"""FedAdagrad: each parameter's step shrinks with all that its updates have summed up to, so rare ones go far."""

from dataclasses import dataclass

from hub.aggregation.adaptive import adapt
from hub.aggregation.algorithm import Aggregate, Algorithm, Decay, Rate, Terms, setting
from hub.aggregation.mean import ExactMean
from shared.tensors import Array, Tensors


@dataclass(frozen=True)
class FedAdagrad:
    """v_t = v_{t-1} + m_t^2, and the rest as in `hub.aggregation.adaptive` (Reddi et al. 2021, Algorithm 2)."""

    server_lr: Rate = setting(0.01, "length of the hub's step (eta)")
    beta1: Decay = setting(0.0, "how much of the momentum is kept in a round")
    tau: Rate = setting(1e-3, "degree of adaptivity: the smaller, the more alike all parameters' steps")

    def make(self, name: str, terms: Terms) -> Algorithm:
        """Have edges take local steps."""
        return Algorithm(name=name, local="sgd", aggregation=ExactMean(), step=self)

    def __call__(self, memory: Tensors, model: Tensors, aggregate: Aggregate) -> tuple[Tensors, Tensors]:
        """Take the step."""

        def spread(v: Array, square: Array) -> None:
            v += square

        return adapt(memory, model, aggregate, name="fedadagrad", settings=self, spread=spread)
