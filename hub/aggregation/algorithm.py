"""What every algorithm is made of: a way to make many updates one, and a step the hub takes with the result."""

from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from shared.messages import Local
from shared.tensors import Tensors

State = TypeVar("State")


class Aggregation(Protocol[State]):
    """Many updates into one. The state is passed along and never kept, so it can be saved, moved and merged."""

    def fits(self, examples: int, magnitude: float, *, updates: int) -> bool:
        """Tell whether an update of so many examples and such a largest value can be one of `updates` in a round."""
        ...

    def init(self, model: Tensors) -> State:
        """Start with nothing accumulated, for updates of the shapes of `model`."""
        ...

    def accumulate(self, state: State, update: Tensors, weight: int, *, largest: float) -> State:
        """Take in one admitted update, none of whose floats is larger than `largest`; `state` is used up."""
        ...

    def finalize(self, state: State, model: Tensors) -> Tensors:
        """Give the aggregate: float64 for the model's float tensors, the agreed value for all others.

        `state` is used up: its memory may be that of the aggregate.

        Raises:
            NothingAccumulated: there was no update.
        """
        ...


class ServerStep(Protocol):
    """What the hub does with the aggregate: a server optimizer; its memory is passed along and kept by the journal."""

    def __call__(self, memory: Tensors, model: Tensors, aggregate: Tensors) -> tuple[Tensors, Tensors]:
        """Give the next model, in the dtypes of `model`, and the next memory."""
        ...


@dataclass(frozen=True)
class Algorithm:
    """One federated algorithm: what edges compute, how their updates become one, and the step taken with it."""

    name: str
    local: Local
    aggregation: Aggregation[Any]
    step: ServerStep
