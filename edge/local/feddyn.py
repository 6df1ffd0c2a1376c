"""FedDyn's part on the edge: its loss is bent by what it remembers of its own slope."""

from dataclasses import dataclass

import torch

from edge.learner import Trained
from edge.local.algorithm import Local
from edge.work import Work, named

_SLOPE = "feddyn g"


@dataclass(frozen=True)
class FedDyn(Local):
    """w <- w - lr (g(w) - g_k + alpha (w - w_t)); then g_k <- g_k - alpha (w - w_t)."""

    alpha: float

    def train(self, work: Work) -> Trained:
        """Take the steps, then move g_k."""
        slope = work.remembered(_SLOPE)

        def correct(name: str, w: torch.Tensor, gradient: torch.Tensor) -> None:
            gradient.sub_(slope[name]).add_(w - work.received[name], alpha=self.alpha)

        work.descend(correct)
        with torch.no_grad():
            moved = {name: work.parameters[name] - start for name, start in work.received.items()}
            following = {name: slope[name] - self.alpha * moved[name] for name in slope}
        return work.answer(remember=named(_SLOPE, following))
