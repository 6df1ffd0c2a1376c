"""What edges can compute, by the names that a plan has for it: a line for each."""

from collections.abc import Mapping

import msgspec

from edge.local.algorithm import Local
from edge.local.ditto import Ditto
from edge.local.feddyn import FedDyn
from edge.local.fedprox import FedProx
from edge.local.finetune import FineTune
from edge.local.gradient import Gradient
from edge.local.momentum import Momentum
from edge.local.qfedavg import QFedAvg
from edge.local.scaffold import Scaffold
from edge.local.sgd import SGD
from shared.errors import ConfigError
from shared.messages import Plan

LOCALS: Mapping[str, type[Local]] = {
    "sgd": SGD,
    "gradient": Gradient,
    "fedprox": FedProx,
    "scaffold": Scaffold,
    "feddyn": FedDyn,
    "qfedavg": QFedAvg,
    "momentum": Momentum,
    "ditto": Ditto,
    "finetune": FineTune,
}


def local_of(plan: Plan) -> Local:
    """Give what a plan asks an edge to compute.

    Raises:
        ConfigError: this release does not know it.
    """
    kind = LOCALS.get(plan.local)
    if kind is None:
        raise ConfigError(
            f"the hub wants edges to compute {plan.local!r}, which this edge does not know; "
            "install the hub's version of Fedhub here"
        )
    try:
        return msgspec.convert(plan.settings, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"the hub's settings for {plan.local} are not those that this edge knows ({error}); "
            "install the hub's version of Fedhub here"
        ) from None
