"""The rules that another rule may use on what it has made of the updates: a line for each."""

from collections.abc import Mapping

from hub.aggregation.robust.bulyan import Bulyan
from hub.aggregation.robust.centred_clipping import CentredClipping
from hub.aggregation.robust.geometric_median import GeometricMedian
from hub.aggregation.robust.krum import Krum, MultiKrum
from hub.aggregation.robust.median import CoordinateMedian
from hub.aggregation.robust.norm_clipping import NormClipping
from hub.aggregation.robust.rule import Rule
from hub.aggregation.robust.trimmed_mean import TrimmedMean

INNER: Mapping[str, type[Rule]] = {
    "median": CoordinateMedian,
    "trimmed_mean": TrimmedMean,
    "krum": Krum,
    "multi_krum": MultiKrum,
    "bulyan": Bulyan,
    "geometric_median": GeometricMedian,
    "centred_clipping": CentredClipping,
    "norm_clipping": NormClipping,
}
