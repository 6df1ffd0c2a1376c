"""Fine-tuning: before it measures, each edge goes on with the common model on its own data for a while."""

from dataclasses import dataclass, replace
from typing import Annotated

from msgspec import Meta

from hub.aggregation.algorithm import Algorithm, Recipe, Terms, setting
from hub.aggregation.fedavg import FedAvg
from hub.aggregation.servers import SERVERS, on_edges


@dataclass(frozen=True)
class FineTune:
    """Training is FedAvg's, or what `server` says; each evaluation measures w, and v_k: w after some local epochs.

    Yu, Bagdasaryan, Shmatikov 2020, "Salvaging Federated Learning by Local Adaptation", and many others. What v_k
    reaches on what its edge holds out is measured as `personal_accuracy` beside `accuracy`, and so for each metric.
    """

    epochs: Annotated[int, Meta(ge=1, le=1000)] = setting(1, "passes over an edge's data before it measures")
    server: Recipe = setting(FedAvg(), "what the hub does with the updates", among=SERVERS)

    def make(self, name: str, terms: Terms) -> Algorithm:
        """Have edges take local steps, and fine-tune when they measure."""
        return replace(on_edges(self.server.make(name, terms), "finetune", epochs=self.epochs), personal=True)
