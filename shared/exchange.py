"""What becomes of each tensor of a model: learnt, only averaged, kept on its edge, or never changed."""

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from shared.errors import ConfigError
from shared.tensors import Tensors

TensorRule = Literal["learn", "average", "own", "frozen"]
"""What becomes of a tensor in a round.

`learn`: the algorithm combines what edges send, and takes its step. `average`: combined alike, and moved there as it
is, whatever the algorithm's step does: running statistics are measured, not descended. `own`: it is trained, and stays
on each edge. `frozen`: nobody trains it; each edge has it from the app, and it never crosses the wire.

Integers and booleans among the first two are not averaged: their aggregate has a rule of its own (`ExactMean`).
"""


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """A model's tensors and their rules: part of what an app brings to a run, and the same on all its edges."""

    rules: dict[str, TensorRule]
    """A rule for each tensor, in the order of the model's state. A tensor of two names has one of them here."""
    tied: dict[str, str] = {}
    """Further names of tensors that have several."""
    norms: tuple[str, ...] = ()
    """Tensors of batch normalisation: its scales, shifts and statistics."""

    @classmethod
    def plain(cls, model: Tensors) -> "Exchange":
        """Learn all floats, and average what is none."""
        return cls(rules={name: "average" if array.dtype.kind in "biu" else "learn" for name, array in model.items()})

    def of(self, *rules: TensorRule) -> frozenset[str]:
        """Name the tensors of these rules."""
        return frozenset(name for name, rule in self.rules.items() if rule in rules)

    def sent(self, tensors: Tensors) -> Tensors:
        """Give those that cross the wire, in the model's order."""
        return {name: tensors[name] for name, rule in self.rules.items() if rule in ("learn", "average")}

    def frozen(self, tensors: Tensors) -> Tensors:
        """Give those that never change."""
        return {name: tensors[name] for name, rule in self.rules.items() if rule == "frozen"}

    def whole(self, tensors: Tensors) -> Tensors:
        """Give the model as the app knows it: in its order, with all names; less what edges keep to themselves."""
        once = {name: tensors[name] for name, rule in self.rules.items() if rule != "own"}
        return once | {also: once[name] for also, name in self.tied.items() if name in once}

    def with_own(self, names: Iterable[str], *, why: str) -> "Exchange":
        """Have edges keep `names` to themselves as well, unless these are frozen.

        Raises:
            ConfigError: that is nothing, or nothing would be left to learn together.
        """
        kept = {name for name in names if self.rules[name] != "frozen"}
        set_apart = [name for name, rule in self.rules.items() if rule != "frozen"]
        if not kept:
            raise ConfigError(f"{why}, but the model has none: its tensors are {_some(set_apart)}")
        rules: Mapping[str, TensorRule] = {name: "own" if name in kept else rule for name, rule in self.rules.items()}
        if "learn" not in rules.values():
            raise ConfigError(f"{why}, and nothing is left that edges could learn together")
        return Exchange(rules=dict(rules), tied=self.tied, norms=self.norms)


def _some(names: Iterable[str]) -> str:
    """List names, as many as one wants to read."""
    listed = list(names)
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")
