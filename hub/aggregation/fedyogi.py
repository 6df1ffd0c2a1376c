"""FedYogi: FedAdam whose memory of large updates fades no faster than small ones can explain."""

from dataclasses import dataclass

import numpy as np

from hub.aggregation.adaptive import adapt
from hub.aggregation.algorithm import Aggregate, Algorithm, Decay, Rate, Terms, setting
from hub.aggregation.mean import ExactMean
from shared.tensors import Array, Tensors


@dataclass(frozen=True)
class FedYogi:
    """v_t = v_{t-1} - (1 - beta2) m_t^2 sign(v_{t-1} - m_t^2), and the rest as in `hub.aggregation.adaptive`.

    Reddi et al. 2021, Algorithm 2, after Zaheer et al. 2018, "Adaptive Methods for Nonconvex Optimization".
    """

    server_lr: Rate = setting(0.01, "length of the hub's step (eta)")
    beta1: Decay = setting(0.9, "how much of the momentum is kept in a round")
    beta2: Decay = setting(0.99, "how little v changes in a round: by 1 - beta2 of the square")
    tau: Rate = setting(1e-3, "degree of adaptivity: the smaller, the more alike all parameters' steps")

    def make(self, name: str, terms: Terms) -> Algorithm:
        """Have edges take local steps."""
        return Algorithm(name=name, local="sgd", aggregation=ExactMean(), step=self)

    def __call__(self, memory: Tensors, model: Tensors, aggregate: Aggregate) -> tuple[Tensors, Tensors]:
        """Take the step."""

        def spread(v: Array, square: Array) -> None:
            sign = np.sign(v - square)
            square *= 1 - self.beta2
            sign *= square
            v -= sign

        return adapt(memory, model, aggregate, name="fedyogi", settings=self, spread=spread)
