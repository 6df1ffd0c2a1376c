"""What an agent needs of whoever does the learning: a torch model, a user's script, or a simulated phone."""

from dataclasses import dataclass, field
from typing import Protocol

from shared.messages import Evaluate, Train, Welcome
from shared.tensors import Tensors

IN_TIME = 0.8
"""What of the time until the deadline partial work may take; the rest is for the way back, and for surprises."""


@dataclass(frozen=True)
class Holdings:
    """What an edge brings along: how many examples, and how many bytes they take."""

    examples: int
    data_bytes: int


@dataclass(frozen=True)
class Trained:
    """The result of training: differences or gradients, as the plan asks, in the order of the spec."""

    tensors: Tensors
    examples: int
    metrics: dict[str, float]
    memory: Tensors = field(default_factory=dict)
    """What the edge will remember of this round, if it counts."""


@dataclass(frozen=True)
class Measured:
    """The result of an evaluation."""

    examples: int
    metrics: dict[str, float]


class GivenUp(Exception):
    """Training was stopped from outside, between two batches: a newer task has come."""


class WentAway(Exception):
    """The device loses its connection now, and comes back after `seconds`. Only simulated devices know in advance."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"away for {seconds:.1f} s")
        self.seconds = seconds


class Learner(Protocol):
    """Does the work of an edge. Cancelling a call gives the work up."""

    async def prepare(self, welcome: Welcome) -> Holdings:
        """Get ready for this run: build the model, find the data.

        Raises:
            ConfigError: they do not fit the run.
        """
        ...

    async def train(self, task: Train, model: Tensors, *, share: float = 1.0) -> Trained:
        """Train as `task.plan` says, beginning with `model`.

        Where the plan takes partial work, a `share` of the steps will do: no more get done in time on this device.
        """
        ...

    async def evaluate(self, task: Evaluate, model: Tensors) -> Measured:
        """Measure `model` on held-out data; where there is none, say so with 0 examples."""
        ...
