"""Decides whether the run has got where it was meant to go: planned rounds, a target, or no more improvement."""

import math
from dataclasses import dataclass, field

_SMALLER_WINS = ("loss", "error", "perplexity", "entropy", "mse", "mae", "nll", "mape")
"""Words in the name of a measurement that is better when smaller; an rmse has mse in it."""


@dataclass
class Progress:
    """How the model's metric has developed, round by round.

    Args:
        rounds: how many rounds are planned.
        metric: the measurement that counts; one called like a loss or an error is better when smaller.
        target: stop when the metric is at least this good; None for no target.
        patience: stop when this many evaluations in a row have brought no new best; 0 for never.
    """

    rounds: int
    metric: str
    target: float | None
    patience: int
    best: float | None = None
    best_round: int = 0
    _since_best: int = field(default=0, repr=False)

    def note(self, round: int, metrics: dict[str, float]) -> bool:
        """Take in what an evaluation found; tell whether it is the best so far."""
        value = metrics.get(self.metric)
        if value is None or math.isnan(value):
            return False
        if self.best is None or is_better(self.metric, value, self.best):
            self.best, self.best_round, self._since_best = value, round, 0
            return True
        self._since_best += 1
        return False

    def finished(self, round: int) -> str | None:
        """Say why the run is over after `round` rounds, or None if it goes on."""
        if self.target is not None and self.best is not None and not is_better(self.metric, self.target, self.best):
            return f"{self.metric} {self.best:.4g} reached the target {self.target:g} in round {self.best_round}"
        if self.patience and self._since_best >= self.patience:
            return f"{self.metric} has not improved for {self._since_best} rounds (best {self.best:.4g})"
        if round >= self.rounds:
            exact = round == self.rounds
            return f"all {round} rounds are done" if exact else f"{round} rounds are done, {self.rounds} were planned"
        return None


def is_better(metric: str, one: float, other: float) -> bool:
    """Tell whether `one` is a better value than `other`: the smaller of a loss or an error, else the larger."""
    smaller_wins = any(word in metric.lower() for word in _SMALLER_WINS)
    return one < other if smaller_wins else one > other
