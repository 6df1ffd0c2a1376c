"""Updates for the robust rules: matrices of numbers, one update in each row, and every rule by its name."""

from hub.aggregation.robust.bucketing import Bucketing
from hub.aggregation.robust.bulyan import Bulyan
from hub.aggregation.robust.centred_clipping import CentredClipping
from hub.aggregation.robust.geometric_median import GeometricMedian
from hub.aggregation.robust.krum import Krum, MultiKrum
from hub.aggregation.robust.median import CoordinateMedian
from hub.aggregation.robust.nearest_neighbours import NearestNeighbourMixing
from hub.aggregation.robust.norm_clipping import NormClipping
from hub.aggregation.robust.rule import Rule
from hub.aggregation.robust.trimmed_mean import TrimmedMean
from shared.tensors import Array, Tensors

RULES: dict[str, Rule] = {
    "median": CoordinateMedian(),
    "trimmed mean": TrimmedMean(f=2),
    "krum": Krum(f=2),
    "multi-krum": MultiKrum(f=2),
    "multi-krum of 3": MultiKrum(f=2, m=3),
    "bulyan": Bulyan(f=2),
    "geometric median": GeometricMedian(steps=10, weighted=False),
    "centred clipping": CentredClipping(),
    "norm clipping": NormClipping(),
    "nnm": NearestNeighbourMixing(f=2),
    "nnm + krum": NearestNeighbourMixing(f=2, rule=Krum(f=2)),
    "bucketing": Bucketing(rule=Krum(f=2)),
    "bucketing + geometric median": Bucketing(rule=GeometricMedian(steps=10)),
    "bucketing + centred clipping": Bucketing(rule=CentredClipping(tau=1.0), size=3),
}


def combined(rule: Rule, updates: list[Tensors], *, weights: list[int] | None = None) -> Tensors:
    """Go through a round as the coordinator does."""
    state = rule.init(updates[0])
    for update, weight in zip(updates, weights or [1] * len(updates), strict=True):
        state = rule.accumulate(state, update, weight, largest=1.0)
    return rule.finalize(state, updates[0])


def of_rows(rule: Rule, rows: Array, *, weights: list[int] | None = None) -> Array:
    """Combine the rows of a matrix."""
    return combined(rule, [{"x": row} for row in rows], weights=weights)["x"]
