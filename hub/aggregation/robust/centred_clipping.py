"""Centred clipping: nobody may pull farther than a given length, however far away they say the goal is."""

from dataclasses import dataclass

import numpy as np

from hub.aggregation.algorithm import Decay, setting
from hub.aggregation.robust.rows import Rows, Wide, squared_distances_to, weighted_sum
from hub.aggregation.robust.rule import Rule, at_least


@dataclass(frozen=True)
class CentredClipping(Rule):
    """v <- v + 1/n sum_i (x_i - v) min(1, tau / ||x_i - v||), so many times.

    Karimireddy, He, Jaggi 2021, "Learning from History for Byzantine Robust Optimization", Algorithm 2. There edges
    send a momentum, and v begins with what the last round gave: so it is with `momentum`. Without, edges send how far
    they moved in this round alone, and v begins with 0, the model that all of them began with. Where data differ from
    edge to edge, put it behind `Bucketing`.

    The paper's tau suits gradients and has no meaning for another model's steps. Without a tau each step takes the
    median of ||x_i - v||, so that half of the edges are clipped, and the rule scales as the updates do.
    """

    tau: float | None = setting(None, "radius; none means the median distance")
    steps: int = setting(3, "how often it is clipped anew (L)")
    momentum: Decay = setting(0.0, "how much of its momentum an edge keeps in a round (beta); 0 for none")

    def __post_init__(self) -> None:
        at_least(0, tau=0 if self.tau is None else self.tau)
        at_least(1, steps=self.steps)

    @property
    def needs(self) -> int:
        """Any number will do: fewer than half of them may be hostile."""
        return 1

    def combine(self, rows: Rows) -> Wide:
        """Take the steps."""
        point = np.zeros(rows.size)
        for _ in range(self.steps):
            point = step_towards(rows, point, self.tau)
        return point


def step_towards(rows: Rows, point: Wide, radius: float | None) -> Wide:
    """Move `point` by the mean of the differences to it, none longer than `radius`, or than the median if None."""
    lengths = np.sqrt(squared_distances_to(rows, point))
    radius = float(np.median(lengths)) if radius is None else radius
    factors = np.ones(rows.count)
    np.divide(radius, lengths, out=factors, where=lengths > radius)
    factors /= rows.count
    moved = weighted_sum(rows, factors)
    point *= 1.0 - np.add.reduce(factors)
    moved += point
    return moved
