"""FedBN: batch normalisation stays on each edge, as it describes the edge's own data."""

from dataclasses import dataclass, replace

from hub.aggregation.algorithm import Algorithm, Recipe, Terms, setting
from hub.aggregation.fedavg import FedAvg
from hub.aggregation.servers import SERVERS
from shared.exchange import Exchange


@dataclass(frozen=True)
class FedBN:
    """All but the layers of batch normalisation is learnt together; their scales, shifts and statistics are not sent.

    Li et al. 2021, "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization", Algorithm 1.
    """

    server: Recipe = setting(FedAvg(), "what the hub does with the updates", among=SERVERS)

    def make(self, name: str, terms: Terms) -> Algorithm:
        """Have edges take local steps, and keep their normalisation."""
        return replace(self.server.make(name, terms), narrow=keep_norms, personal=True)


def keep_norms(exchange: Exchange) -> Exchange:
    """Leave batch normalisation on the edges."""
    return exchange.with_own(exchange.norms, why="fedbn keeps layers of batch normalisation on the edges")
