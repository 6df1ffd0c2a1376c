"""Ditto: beside the common model, each edge trains one of its own that is held near it."""

from dataclasses import dataclass, replace

from hub.aggregation.algorithm import Algorithm, NotNegative, Recipe, Terms, setting
from hub.aggregation.fedavg import FedAvg
from hub.aggregation.servers import SERVERS, on_edges


@dataclass(frozen=True)
class Ditto:
    """v_k <- v_k - lr (grad F_k(v_k) + lam (v_k - w_t)), on each edge, and for w whatever the hub does otherwise.

    Li et al. 2021, "Ditto: Fair and Robust Federated Learning Through Personalization", Algorithm 1. Twice the training
    on an edge; on the wire, and on the hub, nothing changes. What v_k reaches on what its edge holds out is measured as
    `personal_accuracy` beside `accuracy`, and so for each metric.
    """

    lam: NotNegative = setting(0.1, "how near to the common model the own ones are held (lambda)")
    server: Recipe = setting(FedAvg(), "what the hub does with the updates", among=SERVERS)

    def make(self, name: str, terms: Terms) -> Algorithm:
        """Have edges train both models."""
        return replace(on_edges(self.server.make(name, terms), "ditto", lam=self.lam), personal=True)
