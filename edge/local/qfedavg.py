"""q-FedAvg's part on the edge: plain steps, and how bad the model was that came."""

from dataclasses import dataclass

from edge.learner import Trained
from edge.local.algorithm import Local
from edge.work import Work


@dataclass(frozen=True)
class QFedAvg(Local):
    """As FedAvg; beside how far w moved, F_k(w_t) is sent, measured before the first step."""

    def train(self, work: Work) -> Trained:
        """Measure, then take the steps."""
        start = work.measure().metrics["loss"]
        work.descend()
        return work.answer(start_loss=start)
