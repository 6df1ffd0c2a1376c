"""ServerApp and ClientApp of Flower's current path: SuperLink and SuperNodes load them, in Flower's environment."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gauge
import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

client = ClientApp()
server = ServerApp()


class Timed(FedAvg):
    """Flower's FedAvg, each round timed."""

    def __init__(self, rounds: gauge.Rounds, *, edges: int) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=edges, min_available_nodes=edges)
        self.rounds = rounds
        self.edges = edges

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        """Aggregate, and note the end of the round."""
        replies = list(replies)
        good = sum(not reply.has_error() for reply in replies)
        if good != self.edges:
            raise RuntimeError(f"{good} of {self.edges} clients answered in round {server_round}")
        aggregated = super().aggregate_train(server_round, replies)
        self.rounds.ended()
        return aggregated


@client.train()
def train(message: Message, context: Context) -> Message:
    """Give the parameters plus one, with the weight of one example."""
    arrays = [array + 1 for array in message.content["arrays"].to_numpy_ndarrays()]
    content = {"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": 1})}
    return Message(content=RecordDict(content), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Run all rounds, and leave the report."""
    config: Any = context.run_config
    rounds = gauge.Rounds(config["rounds"], Path(config["report"]))
    result = Timed(rounds, edges=config["edges"]).start(
        grid=grid,
        initial_arrays=ArrayRecord([np.zeros(config["parameters"], np.float32)]),
        num_rounds=config["rounds"],
    )
    rounds.finish(result.arrays.to_numpy_ndarrays())
