"""Local training on one edge's data, with torch: steps of SGD, one gradient, or a measurement."""

import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
import torch

from edge.app import App
from edge.examples import Examples
from edge.learner import GivenUp, Measured, Trained
from shared.errors import ConfigError
from shared.messages import Plan
from shared.tensors import Array, ModelSpec, Tensors

_CHUNK = 1024  # examples at a time where all are wanted and no step is taken in between


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

    It keeps nothing between calls, so the phones of a swarm share one.
    """

    app: App
    module: torch.nn.Module
    device: torch.device
    _buffers: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.module.to(self.device)
        self._buffers = frozenset(name for name, _ in self.module.named_buffers(remove_duplicate=False))

    @property
    def tensors(self) -> Tensors:
        """The module's parameters and buffers as they are now: copies, in the order of its state dict."""
        return {name: to_numpy(tensor).copy() for name, tensor in self._state()}

    @property
    def spec(self) -> ModelSpec:
        """What the module consists of."""
        return ModelSpec.of({name: to_numpy(tensor) for name, tensor in self._state()})

    def train(
        self, plan: Plan, model: Tensors, examples: Examples, *, seed: tuple[int, ...], stop: threading.Event
    ) -> Trained:
        """Train as `plan` says on `examples`, beginning with `model`.

        Args:
            plan: `sgd` takes E epochs of steps of B examples; `gradient` computes the mean gradient over all examples.
            model: where to begin.
            examples: this edge's own.
            seed: of the order of examples and the module's dice: run, round and edge.
            stop: set it to give up between two batches.

        Raises:
            GivenUp: `stop` was set.
        """
        self._load(model)
        self.module.train()
        dice = np.random.default_rng(seed)
        torch.manual_seed(int(dice.integers(2**63)))
        if plan.local == "gradient":
            loss = self._gradient(examples, dice, stop)
            tensors = {name: self._slope(name, tensor, model[name], plan.lr) for name, tensor in self._state()}
        else:
            loss = self._steps(plan, examples, dice, stop)
            tensors = {name: moved(to_numpy(tensor), model[name]) for name, tensor in self._state()}
        return Trained(tensors, examples.count, {"loss": loss})

    def evaluate(self, model: Tensors, examples: Examples) -> Measured:
        """Measure loss and the app's metrics of `model` on `examples`."""
        self._load(model)
        self.module.eval()
        sums: dict[str, float] = {}
        seen = 0
        with torch.no_grad():
            for x, y in self._on_device(examples.batches(_CHUNK)):
                output = self.module(x)
                found = {"loss": float(self.app.loss_of(output, y)), **self.app.metrics_of(output, y)}
                for name, value in found.items():
                    sums[name] = sums.get(name, 0.0) + value * len(y)
                seen += len(y)
        return Measured(seen, {name: total / seen for name, total in sums.items()})

    def _steps(self, plan: Plan, examples: Examples, dice: np.random.Generator, stop: threading.Event) -> float:
        """Take the local steps, w <- w - lr * g; give the mean loss of the last epoch."""
        # Not torch.optim.SGD: its first use imports the compiler, 1.4 s in which an edge would miss its first round.
        parameters = self._trainable()
        total, seen = 0.0, 0
        for _ in range(plan.epochs):
            total, seen = 0.0, 0
            for x, y in self._on_device(examples.batches(plan.batch, dice)):
                if stop.is_set():
                    raise GivenUp
                self.module.zero_grad()
                loss = self.app.loss_of(self.module(x), y)
                loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
                with torch.no_grad():
                    for parameter in parameters:
                        if parameter.grad is not None:
                            parameter.add_(parameter.grad, alpha=-plan.lr)
                total += float(loss.detach()) * len(y)
                seen += len(y)
        return total / seen

    def _gradient(self, examples: Examples, dice: np.random.Generator, stop: threading.Event) -> float:
        """Leave the mean gradient over all examples in the parameters; give the mean loss."""
        self.module.zero_grad()
        total = 0.0
        for x, y in self._on_device(examples.batches(_CHUNK, dice)):
            if stop.is_set():
                raise GivenUp
            loss = self.app.loss_of(self.module(x), y) * (len(y) / examples.count)
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
            total += float(loss.detach())
        return total

    def _slope(self, name: str, tensor: torch.Tensor, before: Array, lr: float) -> Array:
        """Give a parameter's gradient; for a buffer, what makes the hub's step move it as it moved here."""
        if name in self._buffers:
            return moved(to_numpy(tensor), before, -1.0 / lr)
        gradient = self.module.get_parameter(name).grad
        return np.zeros(before.shape, before.dtype) if gradient is None else to_numpy(gradient).copy()

    def _trainable(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.module.parameters() if parameter.requires_grad]

    def _state(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, value in self.module.state_dict().items():
            if not isinstance(value, torch.Tensor):
                raise ConfigError(
                    f"{self.app.name}: {name!r} of the model's state is a {type(value).__name__}, no tensor"
                )
            yield name, value

    def _load(self, model: Tensors) -> None:
        with torch.no_grad():
            for name, tensor in self._state():
                tensor.copy_(to_torch(model[name]))

    def _on_device(
        self, batches: Iterator[tuple[torch.Tensor, torch.Tensor]]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for x, y in batches:
            yield x.to(self.device), y.to(self.device)


def seed_of(plan: Plan, *, round: int, edge: str) -> tuple[int, ...]:
    """Give the seed of one edge's training in one round: another for every edge and round, the same in every try."""
    return plan.seed, round, zlib.crc32(edge.encode())


def to_numpy(tensor: torch.Tensor) -> Array:
    """Give a tensor's values as a numpy array; without a copy where it lives on the CPU."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype is torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    try:
        if tensor.is_complex():
            raise TypeError
        return tensor.numpy()
    except (TypeError, RuntimeError):  # numpy has no such numbers: quantised, 8 bit floats, ...
        raise ConfigError(f"tensors of {tensor.dtype} cannot be federated; convert the model to float32") from None


def to_torch(array: Array) -> torch.Tensor:
    """Give an array's values as a tensor: a copy, because what comes from the wire is read-only."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def moved(now: Array, before: Array, factor: float = 1.0) -> Array:
    """Give how far a float tensor moved, times `factor`; integers and booleans are told as they are."""
    if now.dtype.kind in "biu":
        return now.copy()
    return now - before if factor == 1.0 else ((now - before).astype("float64") * factor).astype(before.dtype)
