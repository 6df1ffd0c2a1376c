"""FedProx: each edge is held back by a spring to the model it was sent, and an edge that is slow sends what it did."""

from dataclasses import dataclass

from hub.aggregation.algorithm import Algorithm, NotNegative, Recipe, Terms, setting
from hub.aggregation.fedavg import FedAvg
from hub.aggregation.servers import SERVERS, on_edges


@dataclass(frozen=True)
class FedProx:
    """Edges minimise h_k(w; w_t) = F_k(w) + mu/2 ||w - w_t||^2, each for as long as it can; the hub averages.

    Li et al. 2020, "Federated Optimization in Heterogeneous Networks", Algorithm 2. Its inexactness gamma_k is what the
    round's deadline leaves an edge time for: one that would miss it stops early and sends the steps that it has taken.
    """

    mu: NotNegative = setting(0.01, "stiffness of the spring to the model of the round")
    partial: bool = setting(default=True, meaning="whether an edge that runs out of time sends what it did")
    server: Recipe = setting(FedAvg(), "what the hub does with the updates", among=SERVERS)

    def make(self, name: str, terms: Terms) -> Algorithm:
        """Have edges take local steps with the spring."""
        return on_edges(self.server.make(name, terms), "fedprox", mu=self.mu, partial=self.partial)
