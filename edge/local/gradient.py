"""FedSGD's part on the edge: one gradient over all data, and no step."""

from dataclasses import dataclass

from edge.learner import Trained
from edge.local.algorithm import Local
from edge.work import Work


@dataclass(frozen=True)
class Gradient(Local):
    """g = grad F_k(w_t), the mean over all examples; the hub takes the step."""

    def train(self, work: Work) -> Trained:
        """Compute it."""
        return work.answer(work.gradient())
