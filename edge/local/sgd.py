"""FedAvg's part on the edge, and that of all algorithms that do the rest on the hub: plain steps of SGD."""

from dataclasses import dataclass

from edge.learner import Trained
from edge.local.algorithm import Local
from edge.work import Work


@dataclass(frozen=True)
class SGD(Local):
    """w <- w - lr g(w), E times through the data in batches of B; what is sent is how far w moved."""

    def train(self, work: Work) -> Trained:
        """Take the steps."""
        work.descend()
        return work.answer()
