"""Trains and measures with one torch module, for whichever edge of this process it is asked."""

import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

import numpy as np
import torch

from edge.app import App
from edge.arrays import to_numpy
from edge.examples import Examples
from edge.exchange import exchange_of
from edge.learner import Measured, Trained
from edge.local.catalogue import local_of
from edge.work import Work
from shared.errors import ConfigError
from shared.exchange import Exchange
from shared.messages import Plan
from shared.tensors import ModelSpec, Tensors, sha256

_NOTHING: Tensors = MappingProxyType({})
_MEASURING = Plan(local="sgd", epochs=1, batch=0, lr=1.0, seed=0, holdout=0.0)


def pick_device(wish: str) -> torch.device:
    """Choose where to compute: `auto` takes CUDA or MPS if there is one.

    Raises:
        ConfigError: this machine has no such device.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wish == "auto":
        wish = next(name for name in ("cuda", "mps", "cpu") if there[name])
    if not there.get(wish, False):
        raise ConfigError(
            f"this machine has no device {wish!r}; choose one of auto, {', '.join(k for k in there if there[k])}"
        )
    return torch.device(wish)


@dataclass
class Trainer:
    """A torch module that takes a model's tensors, trains on given examples, and gives back what changed.

    It keeps nothing between calls but what nobody trains, so the phones of a swarm share one.

    Args:
        app: whose model it is.
        module: the model, fresh.
        device: where to compute.
    """

    app: App
    module: torch.nn.Module
    device: torch.device
    exchange: Exchange = field(init=False)
    """What becomes of its tensors, as the app says."""
    first: Tensors = field(init=False)
    """The fresh model: copies, in the order of its state dict; a tensor of several names has the first of them."""

    def __post_init__(self) -> None:
        self.exchange = exchange_of(self.module, self.app.rules, app=self.app.name)
        self.module.to(self.device)  # only now: a buffer of two names becomes two on another device
        state = self.module.state_dict()
        self.first = {name: to_numpy(state[name]).copy() for name in self.exchange.rules}
        for name, parameter in self.module.named_parameters():
            if (rule := self.exchange.rules.get(name)) in ("learn", "frozen") and parameter.is_floating_point():
                parameter.requires_grad = rule == "learn"

    @property
    def tensors(self) -> Tensors:
        """What is exchanged of the fresh model."""
        return self.exchange.sent(self.first)

    @property
    def spec(self) -> ModelSpec:
        """What is exchanged of the model."""
        return ModelSpec.of(self.tensors)

    @cached_property
    def frozen(self) -> str | None:
        """Hash of what nobody trains, if there is any: it may be large, and every phone of a swarm asks for it."""
        still = self.exchange.frozen(self.first)
        return sha256(still) if still else None

    def with_own(self, own: tuple[str, ...]) -> None:
        """Exchange less than the app says: `own` stays here, as the run's algorithm wants it."""
        unknown = [name for name in own if name not in self.exchange.rules]
        if unknown:
            raise ConfigError(f"the run is of another model: the model of {self.app.name} has no {unknown[0]}")
        if set(own) - self.exchange.of("own"):
            self.exchange = self.exchange.with_own(own, why="the run's algorithm keeps tensors on the edges")

    def train(
        self,
        plan: Plan,
        model: Tensors,
        examples: Examples,
        *,
        seed: tuple[int, ...],
        stop: threading.Event,
        memory: Tensors = _NOTHING,
        late: Callable[[], bool] = lambda: False,
        share: float = 1.0,
    ) -> Trained:
        """Train as `plan` says on `examples`, beginning with `model`.

        Args:
            plan: what to compute, and with which settings.
            model: what came from the hub.
            examples: this edge's own.
            seed: of the order of examples and the module's dice: run, round and edge.
            stop: set it to give up between two batches.
            memory: what this edge has remembered.
            late, share: see `Work`.

        Raises:
            GivenUp: `stop` was set.
            ConfigError: this release does not know what the plan asks for.
        """
        work = self._work(plan, model, examples, memory, np.random.default_rng(seed), stop)
        work.late, work.share = late, share
        return local_of(plan).train(work)

    def evaluate(
        self,
        model: Tensors,
        examples: Examples,
        *,
        plan: Plan = _MEASURING,
        own: Examples | None = None,
        memory: Tensors = _NOTHING,
        seed: tuple[int, ...] = (0,),
        stop: threading.Event | None = None,
    ) -> Measured:
        """Measure loss and the app's metrics of `model` on `examples`.

        Where the plan's algorithm gives this edge a model of its own, that is measured as well, as `personal_...`.

        Args:
            model: what came from the hub.
            examples: what to measure on.
            plan: says what this edge's own model is.
            own: examples that it may train on for that; None for an evaluator, who has no model of its own.
            memory, seed, stop: as in `train`.
        """
        dice = np.random.default_rng(seed)
        work = self._work(plan, model, own or examples, memory, dice, stop or threading.Event())
        found = work.measure(examples)
        if own is None or not local_of(plan).personalise(work):
            return found
        personal = {f"personal_{name}": value for name, value in work.measure(examples).metrics.items()}
        return Measured(found.examples, {**found.metrics, **personal})

    def _work(
        self,
        plan: Plan,
        model: Tensors,
        examples: Examples,
        memory: Tensors,
        dice: np.random.Generator,
        stop: threading.Event,
    ) -> Work:
        return Work(self.app, self.module, self.exchange, plan, examples, model, self.first, memory, dice, stop)


def seed_of(plan: Plan, *, round: int, edge: str) -> tuple[int, ...]:
    """Give the seed of one edge's training in one round: another for every edge and round, the same in every try."""
    return plan.seed, round, zlib.crc32(edge.encode())
