"""Fine-tuning on the edge: plain steps in a round, and further ones before the model is measured."""

from dataclasses import dataclass

from edge.learner import Trained
from edge.local.algorithm import Local
from edge.work import Work


@dataclass(frozen=True)
class FineTune(Local):
    """As FedAvg; v_k is w after `epochs` passes over the edge's own data, made anew for each measurement."""

    epochs: int

    def train(self, work: Work) -> Trained:
        """Take the steps."""
        work.descend()
        return work.answer()

    def personalise(self, work: Work) -> bool:
        """Go on from the common model."""
        work.descend(epochs=self.epochs)
        return True
