"""Decides what becomes of each tensor of an app's model: by its kind, unless the app says otherwise."""

import difflib
import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import cast, get_args

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from edge.arrays import to_numpy
from shared.errors import ConfigError
from shared.exchange import Exchange, TensorRule
from shared.tensors import magnitude


def exchange_of(module: nn.Module, said: Mapping[str, str], *, app: str) -> Exchange:
    """Give a rule to each tensor of the module's state.

    Parameters are learnt, or frozen if they need no gradient; buffers (running statistics, counters) are averaged, as
    far as they have an average, and never learnt. A tensor that the module has under several names is exchanged once.

    Args:
        module: the model.
        said: the app's own rules, by pattern; the first that matches a tensor's name counts.
        app: its name, for errors.

    Raises:
        ConfigError: a rule is none, or is for no tensor; or the state holds what is no tensor.
    """
    for pattern, rule in said.items():
        if not isinstance(pattern, str):
            raise ConfigError(f'{app}: the rule for {pattern!r} is for no pattern of names; write a text like "head.*"')
        if rule not in get_args(TensorRule):
            raise ConfigError(f"{app}: the rule {rule!r} for {pattern} is not one of {', '.join(get_args(TensorRule))}")
    rules: dict[str, TensorRule] = {}
    tied: dict[str, str] = {}
    first: dict[int, str] = {}
    used = set[str]()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if not isinstance(tensor, torch.Tensor):
            raise ConfigError(f"{app}: {name!r} of the model's state is a {type(tensor).__name__}, no tensor")
        matching = [pattern for pattern in said if fnmatchcase(name, pattern)]
        if (once := first.setdefault(id(tensor), name)) != name:
            tied[name] = once
            used.update(pattern for pattern in matching if said[pattern] == rules[once])
            continue
        used.update(matching[:1])
        rule = cast(TensorRule, said[matching[0]]) if matching else _usual(tensor)
        rules[name] = _usual(tensor) if rule == "learn" and not isinstance(tensor, nn.Parameter) else rule
    for pattern in said:
        if pattern not in used:
            raise ConfigError(f"{app}: {_why_unused(pattern, rules, tied)}")
    return Exchange(rules=rules, tied=tied, norms=tuple(name for name in rules if name in _norms(module)))


def _usual(tensor: torch.Tensor) -> TensorRule:
    if not isinstance(tensor, nn.Parameter):
        finite = math.isfinite(magnitude(to_numpy(tensor)))
        return "average" if finite else "frozen"  # such as a mask, of zeros and minus infinity
    return "learn" if tensor.requires_grad else "frozen"


def _why_unused(pattern: str, rules: Mapping[str, TensorRule], tied: Mapping[str, str]) -> str:
    for also, name in tied.items():
        if fnmatchcase(also, pattern):
            return f"{also} is another name of {name} in this model; write the rule for {name}"
    if any(fnmatchcase(name, pattern) for name in rules):
        return f"the rule for {pattern} comes too late: patterns before it match all that it is for"
    close = difflib.get_close_matches(pattern, rules, n=1) or list(rules)[:1]
    return f"no tensor of the model is called {pattern}; there is, for example, {close[0]}"


def _norms(module: nn.Module) -> set[str]:
    """Name all tensors of layers of batch normalisation."""
    return {
        f"{path}.{name}" if path else name
        for path, layer in module.named_modules()
        if isinstance(layer, _BatchNorm)
        for name in layer.state_dict()
    }
