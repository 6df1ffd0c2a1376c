"""FedNova: an edge that took more local steps than others gets no more say for that than its examples give it."""

from dataclasses import dataclass

from hub.aggregation.algorithm import NONE_TOLD, NOTHING_KEPT, Algorithm, Metrics, Terms
from hub.aggregation.fedavg import move
from hub.aggregation.mean import ExactMean, Sum
from shared.tensors import Tensors


@dataclass(frozen=True)
class FedNova:
    """w_{t+1} = w_t + tau_eff sum_k p_k Delta_k / tau_k,  with p_k = n_k / n  and  tau_eff = sum_k p_k tau_k.

    Wang et al. 2020, "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization", for local
    SGD without momentum or decay: there their ||a_k||_1 is tau_k, the number of local steps.
    """

    def make(self, name: str, terms: Terms) -> Algorithm:
        """Have edges take local steps."""
        normalized = Normalized(terms.epochs, terms.batch)
        return Algorithm(name=name, local="sgd", aggregation=normalized, averaging=ExactMean(), step=move)


@dataclass
class Paces:
    """What has been accumulated: the sum of n_k Delta_k / tau_k, and that of n_k tau_k."""

    moves: Sum
    steps: int = 0


@dataclass(frozen=True)
class Normalized:
    """tau_eff sum_k p_k Delta_k / tau_k, on the exact mean's grid: as independent of the order as that is.

    No edge says how many steps it took, for what it would gain by a lie. They follow from its weight n_k and the plan:
    tau_k = E ceil(n_k / B). That is what an app's edges do, unless their data is a DataLoader with batches of its own,
    or a script trains as it likes. An edge whose weight is capped counts with the steps that the cap would take.
    """

    epochs: int
    batch: int
    mean: ExactMean = ExactMean()

    def fits(self, examples: int, magnitude: float, *, updates: int, metrics: Metrics = NONE_TOLD) -> bool:
        """Tell whether the mean could take it in undivided; divided it is no larger."""
        return self.mean.fits(examples, magnitude, updates=updates)

    def init(self, model: Tensors) -> Paces:
        """Start from zero."""
        return Paces(self.mean.init(model))

    def accumulate(
        self, state: Paces, update: Tensors, weight: int, *, largest: float, metrics: Metrics = NONE_TOLD
    ) -> Paces:
        """Add the update, divided by its steps."""
        steps = self.epochs * (-(-weight // self.batch) if self.batch else 1)
        state.moves = self.mean.accumulate(state.moves, update, weight, largest=largest, share=1 / steps)
        state.steps += weight * steps
        return state

    def finalize(self, state: Paces, model: Tensors, memory: Tensors = NOTHING_KEPT) -> Tensors:
        """Give the mean move of a step, times the mean number of steps."""
        return self.mean.finalize(state.moves, model, times=state.steps / max(state.moves.weight, 1))
