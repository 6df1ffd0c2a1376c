"""The algorithms by the names people write in a configuration: a line for each."""

from collections.abc import Mapping

from hub.aggregation.algorithm import Algorithm, Recipe, Terms
from hub.aggregation.ditto import Ditto
from hub.aggregation.fedadagrad import FedAdagrad
from hub.aggregation.fedadam import FedAdam
from hub.aggregation.fedavg import FedAvg
from hub.aggregation.fedavgm import FedAvgM
from hub.aggregation.fedbn import FedBN
from hub.aggregation.feddyn import FedDyn
from hub.aggregation.fednova import FedNova
from hub.aggregation.fedper import FedPer
from hub.aggregation.fedprox import FedProx
from hub.aggregation.fedsgd import FedSGD
from hub.aggregation.fedyogi import FedYogi
from hub.aggregation.finetune import FineTune
from hub.aggregation.qfedavg import QFedAvg
from hub.aggregation.robust.bucketing import Bucketing
from hub.aggregation.robust.inner import INNER
from hub.aggregation.robust.nearest_neighbours import NearestNeighbourMixing
from hub.aggregation.scaffold import Scaffold
from hub.aggregation.spelling import build, parse, spell

CATALOGUE: Mapping[str, type[Recipe]] = {
    "fedavg": FedAvg,
    "fedsgd": FedSGD,
    "fedavgm": FedAvgM,
    "fedadagrad": FedAdagrad,
    "fedadam": FedAdam,
    "fedyogi": FedYogi,
    "fednova": FedNova,
    "qfedavg": QFedAvg,
    "fedprox": FedProx,
    "scaffold": Scaffold,
    "feddyn": FedDyn,
    "fedbn": FedBN,
    "fedper": FedPer,
    "ditto": Ditto,
    "finetune": FineTune,
    **INNER,
    "bucketing": Bucketing,
    "nnm": NearestNeighbourMixing,
}


def algorithm(text: str, terms: Terms, *, catalogue: Mapping[str, type[Recipe]] = CATALOGUE) -> Algorithm:
    """Make the algorithm that `text` asks for.

    Its name is the exact spelling, with the settings that are not at their defaults: it leads to the same algorithm.

    Args:
        text: `NAME` or `NAME(setting=value, ...)`.
        terms: what edges are told about training: settings or a plan.
        catalogue: what there is.

    Raises:
        ConfigError: there is no such algorithm or setting, or its value is impossible.
    """
    recipe: Recipe = build(parse(text), catalogue)
    return recipe.make(spell(recipe, catalogue), terms)
