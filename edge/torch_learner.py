"""Learns with an app's torch model, off the event loop, so that the hub's pings are answered while it trains."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from edge.app import App, Edge, users_code
from edge.examples import Examples
from edge.learner import GivenUp, Holdings, Measured, Trained
from edge.trainer import Trainer, pick_device, seed_of
from shared.errors import ConfigError
from shared.messages import Evaluate, Role, Train, Welcome
from shared.tensors import ModelSpec, Tensors

T = TypeVar("T")


class Workshop:
    """One app, one module and one thread to work in, shared by all edges of a process.

    Two threads of torch on two busy cores are slower than one (2NN: 1.4 s against 0.26 s a round), so there is one.
    """

    def __init__(self, app: App, *, device: str, executor: Executor) -> None:
        """Get ready.

        Args:
            app: what is learnt.
            device: where torch computes: auto, cpu, cuda or mps.
            executor: of one thread.

        Raises:
            ConfigError: there is no such device.
        """
        self.app = app
        self._device = pick_device(device)
        self._executor = executor
        self._made: tuple[dict[str, str], Trainer] | None = None

    async def work(self, job: Callable[[], T]) -> T:
        """Run a job in the thread; if the caller is cancelled before it begins, it never does."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, job)

    def trainer(self, edge: Edge) -> Trainer:
        """Give the one trainer; it is made anew for a run with other options. To be called in the thread."""
        options = dict(edge.options)
        if self._made is None or self._made[0] != options:
            import torch

            torch.set_num_threads(1)
            self._made = options, Trainer(self.app, self.app.make_model(edge), self._device)
        return self._made[1]


@dataclass
class TorchLearner:
    """One edge's learner: its data, and the workshop's model.

    Args:
        workshop: where the work is done.
        name: the edge's id, for the seed of its dice.
        role: an evaluator uses the app's test data, a trainer its own.
        index, count: which part of a shared data set is this edge's.
        options: text options of this edge, over those of the hub.
    """

    workshop: Workshop
    name: str
    role: Role
    index: int
    count: int
    options: dict[str, str]
    _edge: Edge = field(default_factory=Edge)
    _own: Examples | None = None
    _held_out: Examples | None = None
    _prepared: tuple[object, ...] | None = None

    async def prepare(self, welcome: Welcome) -> Holdings:
        """Build the model, find the data, and see that the model is the run's."""
        holdings = await self.workshop.work(partial(self._prepare, welcome))
        assert holdings is not None
        return holdings

    async def train(self, task: Train, model: Tensors) -> Trained:
        """Train in the thread; when cancelled, training ends with the next batch."""
        stop = threading.Event()
        try:
            return await self.workshop.work(partial(self._train, task, model, stop))
        except GivenUp:
            raise asyncio.CancelledError from None
        finally:
            stop.set()

    async def evaluate(self, task: Evaluate, model: Tensors) -> Measured:
        """Measure in the thread: an evaluator on the test data, a trainer on what it held out."""
        held_out = self._held_out
        if held_out is None:
            return Measured(0, {})
        return await self.workshop.work(partial(self._evaluate, model, held_out))

    # --- below: in the workshop's thread ---

    def _prepare(self, welcome: Welcome) -> Holdings:
        wanted = (welcome.plan.seed, welcome.plan.holdout, welcome.options, welcome.spec)
        if self._prepared != wanted:
            self._find(welcome)
            self._prepared = wanted
        mine = self._own if self.role is Role.TRAINER else self._held_out
        assert mine is not None
        with users_code(f"data of {self.workshop.app.name}"):
            return Holdings(mine.count, mine.nbytes)

    def _find(self, welcome: Welcome) -> None:
        app, plan = self.workshop.app, welcome.plan
        self._edge = edge = Edge(
            index=self.index, count=self.count, seed=plan.seed, options={**welcome.options, **self.options}
        )
        difference = ModelSpec(welcome.spec).difference(self.workshop.trainer(edge).spec)
        if difference:
            raise ConfigError(
                f"the model of {app.name} is not the hub's: here it has {difference}. "
                "Start hub and edges with the same app file and options"
            )
        if self.role is Role.EVALUATOR:
            self._held_out = Examples.of(app.find_data("test", edge), where=f"test() of {app.name}")
            return
        everything = Examples.of(app.find_data("data", edge), where=f"data() of {app.name}")
        import numpy as np

        self._own, self._held_out = everything.split(
            plan.holdout, np.random.default_rng(seed_of(plan, round=0, edge=self.name))
        )

    def _train(self, task: Train, model: Tensors, stop: threading.Event) -> Trained:
        assert self._own is not None
        if stop.is_set():
            raise GivenUp
        seed = seed_of(task.plan, round=task.round, edge=self.name)
        with users_code(f"training of {self.workshop.app.name}"):
            return self.workshop.trainer(self._edge).train(task.plan, model, self._own, seed=seed, stop=stop)

    def _evaluate(self, model: Tensors, held_out: Examples) -> Measured:
        with users_code(f"evaluation of {self.workshop.app.name}"):
            return self.workshop.trainer(self._edge).evaluate(model, held_out)
