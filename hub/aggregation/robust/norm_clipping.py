"""Norm clipping: no update is longer than the one in the middle, and then they are averaged."""

from dataclasses import dataclass

import numpy as np

from hub.aggregation.robust.centred_clipping import step_towards
from hub.aggregation.robust.rows import Rows, Wide
from hub.aggregation.robust.rule import Rule


@dataclass(frozen=True)
class NormClipping(Rule):
    """x = 1/n sum_i x_i min(1, M / ||x_i||), where M is the median of the norms.

    The norm bound of Sun, Kairouz, Suresh, McMahan 2019, "Can You Really Backdoor Federated Learning?", section 4, with
    the median norm for its threshold; all updates count alike. It is one step of centred clipping from 0. Fewer than
    half hostile edges cannot lengthen any update beyond honest ones, but each pulls as hard as an honest one does.
    """

    @property
    def needs(self) -> int:
        """Any number will do: fewer than half of them may be hostile."""
        return 1

    def combine(self, rows: Rows) -> Wide:
        """Clip and average."""
        return step_towards(rows, np.zeros(rows.size), None)
