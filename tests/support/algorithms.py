"""The algorithms of the catalogue, each as one may write it."""

from hub.aggregation.catalogue import CATALOGUE

RULES = {
    "median": "median",
    "trimmed_mean": "trimmed_mean(f=0)",
    "krum": "krum(f=0)",
    "multi_krum": "multi_krum(f=0)",
    "bulyan": "bulyan(f=0)",
    "geometric_median": "geometric_median",
    "centred_clipping": "centred_clipping",
    "norm_clipping": "norm_clipping",
    "bucketing": "bucketing(rule=median, size=1)",
    "bucketing with momentum": "bucketing(rule=centred_clipping(momentum=0.5), size=1)",
    "nnm": "nnm(f=0)",
}
"""Those that combine a round's updates in a way of their own, and take FedAvg's step with the result."""

PERSONAL = {"fedbn": "fedbn", "fedper": "fedper(own=bias)", "ditto": "ditto", "finetune": "finetune"}
"""Those that give each edge a model of its own, and leave all else to FedAvg unless told otherwise."""

STEPS = [name for name in CATALOGUE if name not in RULES and name not in PERSONAL]
"""Those that average, and take a step of their own."""

LONG_STEPS = [name for name in STEPS if name not in ("fedavg", "fedsgd", "fednova", "qfedavg", "fedprox", "feddyn")]
"""Those whose step has a length, `server_lr`."""

FORGETFUL = ("fedavg", "fedsgd", "fednova", "qfedavg", "fedprox", *PERSONAL)
"""Those whose step remembers nothing."""

WRITTEN = [*STEPS, *PERSONAL.values(), *RULES.values()]
