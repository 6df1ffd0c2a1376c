"""What every algorithm is made of: a way to make many updates one, a step the hub takes with the result, settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol, TypeVar

from msgspec import Meta

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


class Terms(Protocol):
    """What edges are told about their training, as far as an algorithm may depend on it: settings or a plan say it."""

    @property
    def lr(self) -> float:
        """Learning rate of the local steps, or of the hub's where it takes them."""
        ...

    @property
    def epochs(self) -> int:
        """Passes over an edge's data in a round."""
        ...

    @property
    def batch(self) -> int:
        """Examples in a local step; 0 means all."""
        ...


class Recipe(Protocol):
    """An algorithm as a configuration names it: a frozen dataclass whose fields, made by `setting`, are its settings.

    Its docstring has the equation and the paper. `hub.aggregation.catalogue` gives it its name.
    """

    def make(self, name: str, terms: Terms) -> Algorithm:
        """Make the algorithm that these settings ask for, called `name`."""
        ...


Rate = Annotated[float, Meta(gt=0, le=1e6)]
"""A learning rate, or another number that scales."""
Decay = Annotated[float, Meta(ge=0, lt=1)]
"""How much of what was remembered is kept in a round; at 1, nothing would ever be forgotten."""

NEEDED: Any = object()
"""The default of a setting that has none."""


def setting(default: Any, meaning: str, *, among: Mapping[str, type] | None = None) -> Any:
    """Declare a field as a setting.

    Args:
        default: its value where nothing else is said, from the paper; or `NEEDED`.
        meaning: what it is, in a line.
        among: for a setting that is written NAME(...) itself: what there is to choose from.
    """
    metadata = {"help": meaning, "among": among}
    return field(metadata=metadata) if default is NEEDED else field(default=default, metadata=metadata)
