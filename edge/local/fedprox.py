"""FedProx's part on the edge: a spring to the model of the round, and no longer than there is time for."""

from dataclasses import dataclass

import torch

from edge.learner import Trained
from edge.local.algorithm import Local
from edge.work import Correction, Weights, Work


@dataclass(frozen=True)
class FedProx(Local):
    """w <- w - lr (g(w) + mu (w - w_t)); with `partial`, as many steps as end before the deadline."""

    mu: float
    partial: bool

    def train(self, work: Work) -> Trained:
        """Take the steps."""
        work.descend(spring(self.mu, work.received), partial=self.partial)
        return work.answer()


def spring(stiffness: float, to: Weights) -> Correction:
    """Add the slope of stiffness/2 ||w - to||^2."""

    def correct(name: str, w: torch.Tensor, gradient: torch.Tensor) -> None:
        gradient.add_(w - to[name], alpha=stiffness)

    return correct
