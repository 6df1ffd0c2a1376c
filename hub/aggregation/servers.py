"""What an algorithm of the edges may have the hub do with its updates: the averages, server steps and robust rules."""

from collections.abc import Mapping
from dataclasses import replace

from hub.aggregation.algorithm import Algorithm, Recipe
from hub.aggregation.fedadagrad import FedAdagrad
from hub.aggregation.fedadam import FedAdam
from hub.aggregation.fedavg import FedAvg
from hub.aggregation.fedavgm import FedAvgM
from hub.aggregation.fedyogi import FedYogi
from hub.aggregation.robust.bucketing import Bucketing
from hub.aggregation.robust.inner import INNER
from hub.aggregation.robust.nearest_neighbours import NearestNeighbourMixing
from shared.errors import ConfigError

SERVERS: Mapping[str, type[Recipe]] = {
    "fedavg": FedAvg,
    "fedavgm": FedAvgM,
    "fedadagrad": FedAdagrad,
    "fedadam": FedAdam,
    "fedyogi": FedYogi,
    **INNER,
    "bucketing": Bucketing,
    "nnm": NearestNeighbourMixing,
}


def on_edges(server: Algorithm, local: str, **settings: bool | int | float | str) -> Algorithm:
    """Have edges compute `local`, with these settings, for a hub that does what `server` says.

    Raises:
        ConfigError: that wants edges to compute something else already.
    """
    if server.local != "sgd":
        raise ConfigError(
            f"algorithm: {server.name} cannot be: its server wants edges to compute {server.local} themselves; "
            "leave that setting of the server out"
        )
    return replace(server, local=local, settings=settings)
