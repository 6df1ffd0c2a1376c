"""What the robust rules have in common: they keep a round's updates, and combine them when all are there."""

from typing import Protocol

from hub.aggregation.algorithm import NONE_TOLD, NOTHING_KEPT, Aggregate, Algorithm, Metrics, Terms
from hub.aggregation.fedavg import move
from hub.aggregation.robust.kept import LARGEST, Kept
from hub.aggregation.robust.rows import Rows, Wide
from shared.errors import ConfigError, NothingAccumulated
from shared.tensors import Tensors

_LAST = "last "
"""Under which names the last round's aggregate is kept."""


class Rule(Protocol):
    """An aggregation that is told by `combine` alone.

    Rules combine what edges send (how far their models moved), as float32 rows with all arithmetic in float64. They
    ignore how many examples an edge claims, as a hostile one would claim many, unless they say otherwise. Of integer
    tensors the lower median is taken, which of booleans is what most say.

    `f` is how many hostile updates a rule withstands. That takes `needs` updates; from fewer, a rule withstands as many
    as it can from so few, rather than end a run on a bad day. Whoever wants the promise sets the quorum to `needs`.
    """

    @property
    def needs(self) -> int:
        """The fewest updates with which the rule keeps its promise."""
        ...

    @property
    def momentum(self) -> float:
        """How much of its momentum an edge keeps in a round, if it sends that; then the rule begins at the last one."""
        return 0.0

    def combine(self, rows: Rows) -> Wide:
        """Give one row for all rows, of which there is at least one."""
        ...

    def fits(self, examples: int, magnitude: float, *, updates: int, metrics: Metrics = NONE_TOLD) -> bool:
        """Tell whether a float32 can hold it: nothing else can go wrong, and examples do not count."""
        return magnitude <= LARGEST

    def init(self, model: Tensors) -> Kept:
        """Start with no update."""
        return Kept.nothing(model)

    def accumulate(
        self, state: Kept, update: Tensors, weight: int, *, largest: float, metrics: Metrics = NONE_TOLD
    ) -> Kept:
        """Keep a copy of the update."""
        state.add(update, weight)
        return state

    def make(self, name: str, terms: Terms) -> Algorithm:
        """Have edges take local steps, and go where this rule says that they went."""
        if not self.momentum:
            return Algorithm(name=name, local="sgd", aggregation=self, step=move, needs=self.needs)
        return Algorithm(
            name=name,
            local="momentum",
            settings={"beta": self.momentum},
            aggregation=self,
            step=move_and_remember,
            needs=self.needs,
        )

    def finalize(self, state: Kept, model: Tensors, memory: Tensors = NOTHING_KEPT) -> Tensors:
        """Combine what was kept."""
        if not state.rows:
            raise NothingAccumulated("a robust rule was asked to combine no updates")
        last = {key.removeprefix(_LAST): array for key, array in memory.items() if key.startswith(_LAST)}
        if not (last and self.momentum):  # it may be of another rule, with which the run was played before
            return state.tensors(self.combine(state.in_order()), model)
        start = state.row(last, model)
        state.shift(start)
        combined = self.combine(state.in_order())
        combined += start
        return state.tensors(combined, model)


def move_and_remember(memory: Tensors, model: Tensors, aggregate: Aggregate) -> tuple[Tensors, Tensors]:
    """Go where the edges went, and keep which way that was."""
    moved, _ = move(memory, model, aggregate)
    floats = (name for name, array in model.items() if array.dtype.kind not in "biu")
    return moved, {f"{_LAST}{name}": aggregate.tensors[name] for name in floats}


def at_least(least: float, /, **settings: float) -> None:
    """Refuse settings that are too small.

    Raises:
        ConfigError: names the first of them.
    """
    for name, value in settings.items():
        if not value >= least:
            raise ConfigError(f"algorithm: {name} = {value} cannot be; it is at least {least}")
