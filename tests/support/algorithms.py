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
    "nnm": "nnm(f=0)",
}
"""Those that combine a round's updates in a way of their own, and take FedAvg's step with the result."""

STEPS = [name for name in CATALOGUE if name not in RULES]
"""Those that average, and take a step of their own."""

WRITTEN = [*STEPS, *RULES.values()]
