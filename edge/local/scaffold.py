"""SCAFFOLD's part on the edge: steps that are corrected for how its own data pull, and what it learns of that."""

from dataclasses import dataclass

import torch

from edge.learner import Trained
from edge.local.algorithm import Local
from edge.work import Work, named

_COMMON, _OWN = "scaffold c", "scaffold c_k"


@dataclass(frozen=True)
class Scaffold(Local):
    """y <- y - lr (g(y) - c_k + c), K times from y = x; then c_k^+ = c_k - c + (x - y) / (K lr).

    Sent are y - x and c_k^+ - c_k. Only what is learnt has control variates; what is just averaged has none.
    """

    def train(self, work: Work) -> Trained:
        """Take the steps, then move c_k."""
        common = work.beside(_COMMON)
        kept = work.remembered(_OWN)
        own = {name: kept[name] for name in common}
        shift = {name: common[name] - own[name] for name in common}

        def correct(name: str, y: torch.Tensor, gradient: torch.Tensor) -> None:
            if name in shift:
                gradient.add_(shift[name])

        length = work.descend(correct) * work.plan.lr
        with torch.no_grad():
            gained = {name: (work.received[name] - work.parameters[name]) / length - common[name] for name in common}
            following = {name: own[name] + gained[name] for name in common}
        tensors = {**work.moved(), **named(_COMMON, gained)}
        return work.answer(tensors, remember=named(_OWN, following))
