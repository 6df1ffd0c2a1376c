"""FedDyn: each edge's loss is bent from round to round until the edges' minima and everybody's are the same point."""

from dataclasses import dataclass

from hub.aggregation.algorithm import Aggregate, Algorithm, Rate, Terms, setting
from hub.aggregation.mean import ExactMean
from hub.aggregation.step import step
from shared.tensors import Array, Tensors


@dataclass(frozen=True)
class FedDyn:
    """Edges minimise F_k(w) - <g_k, w> + alpha/2 ||w - w_t||^2, and then g_k <- g_k - alpha (w_k - w_t). The hub steps:

    h <- h - alpha |S|/N sum_k p_k (w_k - w_t),   w_{t+1} = w_t + sum_k p_k (w_k - w_t) - h / alpha,   p_k = n_k / n.

    Acar et al. 2021, "Federated Learning Based on Dynamic Regularization", Algorithm 1 (there all edges weigh alike).
    The edge keeps g_k, and moves it only if its update counts. N is the number of edges that were there.
    """

    alpha: Rate = setting(0.01, "strength of the regularization")

    def make(self, name: str, terms: Terms) -> Algorithm:
        """Have edges minimise the bent loss."""
        return Algorithm(name=name, local="feddyn", settings={"alpha": self.alpha}, aggregation=ExactMean(), step=self)

    def __call__(self, memory: Tensors, model: Tensors, aggregate: Aggregate) -> tuple[Tensors, Tensors]:
        """Take the step."""

        def equation(delta: Array, h: Array) -> Array:
            h -= self.alpha * aggregate.turnout * delta
            return delta - h / self.alpha

        return step(memory, model, aggregate, equation=equation, keeps={"feddyn h": 0.0})
