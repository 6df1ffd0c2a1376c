"""What an algorithm of the edges may have the hub do with its updates: the averages, server steps and robust rules."""

from collections.abc import Mapping

from hub.aggregation.algorithm import Recipe
from hub.aggregation.fedadagrad import FedAdagrad
from hub.aggregation.fedadam import FedAdam
from hub.aggregation.fedavg import FedAvg
from hub.aggregation.fedavgm import FedAvgM
from hub.aggregation.fedyogi import FedYogi
from hub.aggregation.robust.inner import INNER

SERVERS: Mapping[str, type[Recipe]] = {
    "fedavg": FedAvg,
    "fedavgm": FedAvgM,
    "fedadagrad": FedAdagrad,
    "fedadam": FedAdam,
    "fedyogi": FedYogi,
    **INNER,
}
