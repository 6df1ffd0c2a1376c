"""The algorithms by the names people write in a configuration: a line for each."""

from collections.abc import Mapping

from hub.aggregation.algorithm import Algorithm, Recipe, Terms
from hub.aggregation.ditto import Ditto
from hub.aggregation.fedbn import FedBN
from hub.aggregation.feddyn import FedDyn
from hub.aggregation.fednova import FedNova
from hub.aggregation.fedper import FedPer
from hub.aggregation.fedprox import FedProx
from hub.aggregation.fedsgd import FedSGD
from hub.aggregation.finetune import FineTune
from hub.aggregation.qfedavg import QFedAvg
from hub.aggregation.scaffold import Scaffold
from hub.aggregation.servers import SERVERS
from hub.aggregation.spelling import build, parse, spell

CATALOGUE: Mapping[str, type[Recipe]] = {
    **SERVERS,
    "fedsgd": FedSGD,
    "fednova": FedNova,
    "qfedavg": QFedAvg,
    "fedprox": FedProx,
    "scaffold": Scaffold,
    "feddyn": FedDyn,
    "fedbn": FedBN,
    "fedper": FedPer,
    "ditto": Ditto,
    "finetune": FineTune,
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
