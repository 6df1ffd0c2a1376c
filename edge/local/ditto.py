"""Ditto's part on the edge: plain steps for the common model, and as many for one of its own that is held near it."""

from dataclasses import dataclass, replace

from edge.learner import Trained
from edge.local.algorithm import Local
from edge.local.fedprox import spring
from edge.work import Work

_OWN = "ditto v"


@dataclass(frozen=True)
class Ditto(Local):
    """w <- w - lr g(w) from w_t, which is sent; v_k <- v_k - lr (g(v_k) + lam (v_k - w_t)). At first v_k is w_t."""

    lam: float

    def train(self, work: Work) -> Trained:
        """Train both models, one after the other."""
        work.descend()
        common = work.answer()
        work.begin()
        work.load_state(_OWN)
        work.descend(spring(self.lam, work.received))
        return replace(common, memory={**common.memory, **work.state(_OWN)})

    def personalise(self, work: Work) -> bool:
        """Take v_k; at first that is the common model."""
        work.load_state(_OWN)
        return True
