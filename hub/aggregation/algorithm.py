"""What every algorithm is made of: a way to make many updates one, a step the hub takes with the result, settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, Protocol, TypeVar

import ml_dtypes
import numpy as np
from msgspec import Meta

from shared.exchange import Exchange
from shared.tensors import Array, ModelSpec, Tensors

State = TypeVar("State")
Metrics = Mapping[str, float]
NONE_TOLD: Metrics = MappingProxyType({})
NOTHING_KEPT: Tensors = MappingProxyType({})


class Aggregation(Protocol[State]):
    """Many updates into one. The state is passed along and never kept, so it can be saved, moved and merged."""

    def fits(self, examples: int, magnitude: float, *, updates: int, metrics: Metrics = NONE_TOLD) -> bool:
        """Tell whether an update of so many examples, such a largest value and such metrics can be one of `updates`."""
        ...

    def init(self, model: Tensors) -> State:
        """Start with nothing accumulated, for updates of the shapes of `model`."""
        ...

    def accumulate(
        self, state: State, update: Tensors, weight: int, *, largest: float, metrics: Metrics = NONE_TOLD
    ) -> State:
        """Take in one admitted update, none of whose floats is larger than `largest`; `state` is used up.

        `metrics` are what the edge measured: those that the algorithm asks for.
        """
        ...

    def finalize(self, state: State, model: Tensors, memory: Tensors = NOTHING_KEPT) -> Tensors:
        """Give the aggregate: float64 for the model's float tensors, the agreed value for all others.

        `state` is used up: its memory may be that of the aggregate. `memory` is what the last server step kept.

        Raises:
            NothingAccumulated: there was no update.
        """
        ...


@dataclass(frozen=True)
class Aggregate:
    """What a round's updates have become."""

    tensors: Tensors
    turnout: float = 1.0
    """How many of the edges that were there it is made of: |S| / N, with the letters of most papers."""


class ServerStep(Protocol):
    """What the hub does with the aggregate: a server optimizer; its memory is passed along and kept by the journal."""

    def __call__(self, memory: Tensors, model: Tensors, aggregate: Aggregate) -> tuple[Tensors, Tensors]:
        """Give the next model, in the dtypes of `model`, and the next memory."""
        ...


def all_of_it(exchange: Exchange) -> Exchange:
    """Exchange what the app says."""
    return exchange


@dataclass(frozen=True)
class Algorithm:
    """One federated algorithm: what edges compute, how their updates become one, and the step taken with it."""

    name: str
    local: str
    """What edges compute: the name of a file's algorithm in `edge/local`."""
    aggregation: Aggregation[Any]
    step: ServerStep
    averaging: Aggregation[Any] | None = None
    """How what is averaged and not learnt becomes one, where `aggregation` gives no average; if None, it does."""
    settings: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    """Those of `local`."""
    asks: frozenset[str] = frozenset({"loss"})
    """What edges measure while they train, and an update must bring."""
    carries: tuple[str, ...] = ()
    """What of the step's memory edges get along with the model, and answer in kind: `WHAT` stands for a tensor
    `WHAT name` for each learnt tensor `name`. At first it is zero."""
    narrow: Callable[[Exchange], Exchange] = all_of_it
    """Says which tensors stay on the edges, on top of what the app says."""
    needs: int = 1
    """The fewest updates with which it keeps its promise: for rules that withstand hostile edges."""
    personal: bool = False
    """Whether edges have models of their own, so that nobody else can measure them."""

    def carried(self, memory: Tensors, model: Tensors) -> Tensors:
        """Give what edges are sent along with these learnt tensors, in their dtypes."""
        floats = [tensor.name for tensor in ModelSpec.of(model).tensors if tensor.is_float]
        names = [(f"{what} {name}", model[name]) for what in self.carries for name in floats]
        return {key: _fitted(memory[key], like) if key in memory else np.zeros_like(like) for key, like in names}


def _fitted(wide: Array, like: Array) -> Array:
    """Round to the type of `like`; what is too large for it becomes the largest there is, and no infinity."""
    most = float(ml_dtypes.finfo(like.dtype).max)  # type: ignore[no-untyped-call]  # it has no types
    return np.asarray(np.clip(wide, -most, most), like.dtype)


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
NotNegative = Annotated[float, Meta(ge=0, le=1e6)]
"""A strength that may be none."""
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
