"""Server and clients of Flower's deprecated gRPC path: `python bidi.py server|clients …`, in Flower's environment."""

import argparse
import threading
from pathlib import Path
from typing import Any

import flwr
import gauge
import numpy as np

LONGEST = 2**31 - 1  # of a gRPC message, in bytes: the most that gRPC can


class Timed(flwr.server.strategy.FedAvg):
    """Flower's FedAvg, each round timed."""

    def __init__(self, rounds: gauge.Rounds, *, edges: int, parameters: int) -> None:
        super().__init__(
            fraction_evaluate=0.0,
            min_fit_clients=edges,
            min_available_clients=edges,
            initial_parameters=flwr.common.ndarrays_to_parameters([np.zeros(parameters, np.float32)]),
        )
        self.rounds = rounds
        self.edges = edges
        self.latest: Any = None

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        """Aggregate, and note the end of the round."""
        if len(results) != self.edges:
            raise RuntimeError(f"{len(results)} of {self.edges} clients answered in round {server_round}: {failures}")
        aggregated = super().aggregate_fit(server_round, results, failures)
        self.latest = aggregated[0]
        self.rounds.ended()
        return aggregated


class Adder(flwr.client.NumPyClient):
    """A client whose training adds one."""

    def fit(self, parameters: Any, config: Any) -> Any:
        """Give the parameters plus one, with the weight of one example."""
        return [array + 1 for array in parameters], 1, {}


def server(chosen: argparse.Namespace) -> None:
    """Run the server until all rounds are through."""
    rounds = gauge.Rounds(chosen.rounds, chosen.report)
    strategy = Timed(rounds, edges=chosen.edges, parameters=chosen.parameters)
    flwr.server.start_server(
        server_address=chosen.address,
        config=flwr.server.ServerConfig(num_rounds=chosen.rounds),
        strategy=strategy,
        grpc_max_message_length=LONGEST,
    )
    rounds.finish(flwr.common.parameters_to_ndarrays(strategy.latest))


def clients(chosen: argparse.Namespace) -> None:
    """Run all clients as threads of this one process, so that nobody pays for a Python process each."""

    def client() -> None:
        flwr.client.start_client(
            server_address=chosen.address, client=Adder().to_client(), grpc_max_message_length=LONGEST
        )

    threads = [threading.Thread(target=client) for _ in range(chosen.edges)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=["server", "clients"])
    parser.add_argument("--address", required=True)
    parser.add_argument("--edges", type=int, required=True)
    parser.add_argument("--parameters", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--report", type=Path, required=True)
    given = parser.parse_args()
    {"server": server, "clients": clients}[given.side](given)
