"""One round's work on one edge: the model that came, in torch's hands, and the steps that are taken with it."""

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from edge.app import App
from edge.arrays import moved, to_numpy, to_torch
from edge.examples import Batch, Examples
from edge.learner import GivenUp, Measured, Trained
from shared.exchange import Exchange
from shared.messages import Plan
from shared.tensors import Array, Tensors

_CHUNK = 1024  # examples at a time where all are wanted and no step is taken in between
_OWN = "own"  # under which name an edge remembers the tensors that it does not send

Weights = Mapping[str, torch.Tensor]
"""Numbers for parameters, by name, where torch computes."""
Correction = Callable[[str, torch.Tensor, torch.Tensor], None]
"""Changes a gradient in place before a step is taken with it: `correction(name, parameter, gradient)`."""


@dataclass
class Work:
    """What an edge's part of an algorithm has to work with. The module holds the model, ready to be trained.

    Args:
        app: whose loss and metrics count.
        module: the model; nothing of it is kept from round to round but what nobody trains.
        exchange: what becomes of its tensors.
        plan: how to train.
        examples: this edge's own.
        sent: what came from the hub: the model, and what the algorithm has beside it.
        first: the fresh model: what this edge's own tensors are at first, and frozen ones always.
        memory: what this edge has remembered.
        dice: for the order of examples; the module's own are thrown by torch.
        stop: set when the work is to be given up.
        late: whether it is too late for another step, if the round's deadline is to be met.
        share: how much of the planned steps this device gets done, where that is known beforehand.
    """

    app: App
    module: torch.nn.Module
    exchange: Exchange
    plan: Plan
    examples: Examples
    sent: Tensors
    first: Tensors
    memory: Tensors
    dice: np.random.Generator
    stop: threading.Event
    late: Callable[[], bool] = lambda: False
    share: float = 1.0
    loss: float = field(default=math.nan, init=False)
    """The mean over the last pass through the examples."""

    def __post_init__(self) -> None:
        self.begin()
        self.module.train()
        torch.manual_seed(int(self.dice.integers(2**63)))

    def begin(self) -> None:
        """Put the model into the module with which a round begins: what came, and what this edge has of its own.

        And frozen buffers as they were at first: a layer may have moved its own, for this edge or another of a swarm.
        """
        own = {name: self.memory.get(f"{_OWN} {name}", self.first[name]) for name in self.exchange.of("own")}
        frozen = self.exchange.of("frozen")
        still = {name: self.first[name] for name, _ in self.module.named_buffers() if name in frozen}
        self.load({**self.exchange.sent(self.sent), **own, **still})

    @cached_property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that are trained: the module's own, which steps change."""
        return {name: one for name, one in self.module.named_parameters() if one.requires_grad}

    @cached_property
    def received(self) -> Weights:
        """Those of them that came from the hub, as they came."""
        exchanged = self.exchange.of("learn", "average")
        return {name: self._there(self.sent[name]) for name in self.parameters if name in exchanged}

    def beside(self, what: str) -> Weights:
        """What came beside the model under this name: for each learnt parameter."""
        return {name: self._there(self.sent[key]) for name, key in self._keys(what) if key in self.sent}

    def remembered(self, what: str) -> Weights:
        """What this edge has remembered under this name: for each parameter that came; zeros at first."""
        return {
            name: self._there(self.memory[key]) if key in self.memory else torch.zeros_like(self.received[name])
            for name, key in self._keys(what)
        }

    def descend(self, correct: Correction | None = None, *, epochs: int | None = None, partial: bool = False) -> int:
        """Take local steps, w <- w - lr g; give their number, K.

        Args:
            correct: changes the gradients of the parameters that came from the hub.
            epochs: passes over the examples, if not the plan's.
            partial: stop where the round's deadline would be missed otherwise, after one step at least.

        Raises:
            GivenUp: something newer is to be done.
        """
        # Not torch.optim.SGD: its first use imports the compiler, 1.4 s in which an edge would miss its first round.
        epochs, size = epochs or self.plan.epochs, self.plan.batch
        most = math.ceil(epochs * self.examples.batch_count(size) * self.share) if partial else math.inf
        steps = 0
        for _ in range(epochs):
            total, seen = 0.0, 0
            for x, y in self._batches(size):
                loss = self.app.loss_of(self.module(x), y)
                self._backward(loss)
                with torch.no_grad():
                    for name, parameter in self.parameters.items():
                        slope = parameter.grad
                        if correct and name in self.received:  # also of what this batch has not used: its slope is 0
                            slope = torch.zeros_like(parameter) if slope is None else slope
                            correct(name, parameter, slope)
                        if slope is not None:
                            parameter.add_(slope, alpha=-self.plan.lr)
                total, seen, steps = total + float(loss.detach()) * len(y), seen + len(y), steps + 1
                self.loss = total / seen
                if partial and (steps >= most or self.late()):
                    return steps
        return steps

    def gradient(self) -> Tensors:
        """Give the mean gradient over all examples for each learnt parameter; all else moves as in training."""
        self.module.zero_grad()
        self.loss = 0.0
        for x, y in self._batches(_CHUNK):
            loss = self.app.loss_of(self.module(x), y) * (len(y) / self.examples.count)
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
            self.loss += float(loss.detach())
        learnt = self.exchange.of("learn")
        slopes = {}
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                slope = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                if name in learnt:
                    slopes[name] = to_numpy(slope).copy()
                else:
                    parameter.add_(slope, alpha=-self.plan.lr)
        return {**self.moved(), **slopes}

    def measure(self, examples: Examples | None = None) -> Measured:
        """Measure loss and metrics of the module as it is, on this edge's own examples if on no others."""
        self.module.eval()
        sums: dict[str, float] = {}
        seen = 0
        with torch.no_grad():
            for x, y in self._on_device((examples or self.examples).batches(_CHUNK)):
                output = self.module(x)
                found = {"loss": float(self.app.loss_of(output, y)), **self.app.metrics_of(output, y)}
                for name, value in found.items():
                    sums[name] = sums.get(name, 0.0) + value * len(y)
                seen += len(y)
        self.module.train()
        return Measured(seen, {name: total / seen for name, total in sums.items()})

    def moved(self) -> Tensors:
        """Give how far what is exchanged has moved since it came."""
        now = self.module.state_dict()
        return {name: moved(to_numpy(now[name]), before) for name, before in self.exchange.sent(self.sent).items()}

    def answer(self, tensors: Tensors | None = None, *, remember: Tensors | None = None, **metrics: float) -> Trained:
        """Make an answer.

        Args:
            tensors: what is sent, if it is not just how far the model has moved.
            remember: what to remember if the answer counts, besides this edge's own tensors.
            metrics: what was measured; `loss` is, anyway.
        """
        state = self.module.state_dict()
        own = {f"{_OWN} {name}": to_numpy(state[name]).copy() for name in sorted(self.exchange.of("own"))}
        return Trained(
            self.moved() if tensors is None else tensors,
            self.examples.count,
            {"loss": self.loss, **metrics},
            {**own, **(remember or {})},
        )

    def state(self, what: str) -> Tensors:
        """Give all that is trained or measured, as it is now: to be remembered under this name."""
        now = self.module.state_dict()
        trained = self.exchange.of("learn", "average", "own")
        return {f"{what} {name}": to_numpy(now[name]).copy() for name in self.exchange.rules if name in trained}

    def load(self, state: Tensors) -> None:
        """Put tensors into the module."""
        there = self.module.state_dict()
        with torch.no_grad():
            for name, array in state.items():
                there[name].copy_(to_torch(array))

    def load_state(self, what: str) -> None:
        """Put what `state` has given, and this edge has remembered, into the module, if there is any."""
        start = f"{what} "
        self.load({key.removeprefix(start): array for key, array in self.memory.items() if key.startswith(start)})

    def _keys(self, what: str) -> list[tuple[str, str]]:
        return [(name, f"{what} {name}") for name in self.received]

    @property
    def _device(self) -> torch.device:
        return next(self.module.parameters()).device

    def _there(self, array: Array) -> torch.Tensor:
        return to_torch(array).to(self._device)

    def _backward(self, loss: torch.Tensor) -> None:
        self.module.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it

    def _batches(self, size: int) -> Iterator[Batch]:
        """Give all examples once, in an order of the dice.

        Batch normalisation learns from no batch of one: such a rest joins the batch before it, and an edge that has no
        more uses the running statistics, and leaves them as they are. So do layers whose statistics are frozen.
        """
        least = 2 if self.exchange.norms else 1
        for path, layer in self.module.named_modules():
            if isinstance(layer, _BatchNorm) and (
                self.examples.count == 1 or self.exchange.rules.get(f"{path}.running_mean".lstrip(".")) == "frozen"
            ):
                layer.eval()
        for batch in self._on_device(self.examples.batches(size, self.dice, least=least)):
            if self.stop.is_set():
                raise GivenUp
            yield batch

    def _on_device(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for x, y in batches:
            yield x.to(self._device), y.to(self._device)


def named(what: str, weights: Weights) -> Tensors:
    """Give weights as they are sent beside the model, or remembered, under a name."""
    return {f"{what} {name}": to_numpy(tensor).copy() for name, tensor in weights.items()}
