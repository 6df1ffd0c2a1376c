"""Learns with an app's torch model, off the event loop, so that the hub's pings are answered while it trains."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import TypeVar

from edge.app import App, Edge, users_code
from edge.examples import Examples
from edge.learner import IN_TIME, GivenUp, Holdings, Measured, Trained
from edge.local.catalogue import local_of
from edge.memory import Memory
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
        self._made: tuple[object, Trainer] | None = None

    async def work(self, job: Callable[[], T]) -> T:
        """Run a job in the thread; if the caller is cancelled before it begins, it never does."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, job)

    def trainer(self, edge: Edge, own: tuple[str, ...]) -> Trainer:
        """Give the one trainer; it is made anew for a run with other options. To be called in the thread.

        Args:
            edge: for whom.
            own: tensors that edges keep, as the run wants it.
        """
        key = (edge.seed, dict(edge.options), own)
        if self._made is None or self._made[0] != key:
            import torch

            torch.set_num_threads(1)
            trainer = Trainer(self.app, self.app.make_model(edge), self._device)
            trainer.with_own(own)
            self._made = key, trainer
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
        memory: what this edge remembers from round to round.
    """

    workshop: Workshop
    name: str
    role: Role
    index: int
    count: int
    options: dict[str, str]
    memory: Memory = field(default_factory=Memory)
    _edge: Edge = field(default_factory=Edge)
    _trainer: Trainer | None = None
    _own: Examples | None = None
    _held_out: Examples | None = None
    _prepared: tuple[object, ...] | None = None

    async def prepare(self, welcome: Welcome) -> Holdings:
        """Build the model, find the data, and see that the model is the run's."""
        holdings = await self.workshop.work(partial(self._prepare, welcome))
        assert holdings is not None
        return holdings

    async def train(self, task: Train, model: Tensors, *, share: float = 1.0) -> Trained:
        """Train in the thread; when cancelled, training ends with the next batch."""
        late = monotonic() + IN_TIME * task.seconds
        memory = self.memory.at(task.round)
        with _stopping() as stop:
            trained = await self.workshop.work(partial(self._train, task, model, memory, stop, late, share))
        await self.memory.aside(partial(self.memory.propose, task, trained.memory))
        return trained

    async def evaluate(self, task: Evaluate, model: Tensors) -> Measured:
        """Measure in the thread: an evaluator on the test data, a trainer on what it held out."""
        held_out = self._held_out
        if held_out is None:
            return Measured(0, {})
        with _stopping() as stop:
            return await self.workshop.work(partial(self._evaluate, task, model, held_out, stop))

    # --- below: in the workshop's thread ---

    def _prepare(self, welcome: Welcome) -> Holdings:
        wanted = (welcome.plan, welcome.options, welcome.spec, welcome.own, welcome.frozen)
        self.memory.open(welcome.run)
        self.memory.at(welcome.round + 1)  # a round that is open yet counts again with its receipt, which is said again
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
        local_of(plan)  # what this edge cannot do is told before a round depends on it
        trainer = self._trainer = self.workshop.trainer(edge, welcome.own)
        of_the_model = welcome.spec[: len(welcome.spec) - welcome.carried]
        difference = ModelSpec(of_the_model).difference(trainer.spec)
        if not difference and trainer.frozen != welcome.frozen:
            difference = "other values in what is not trained"
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

    def _train(
        self, task: Train, model: Tensors, memory: Tensors, stop: threading.Event, late: float, share: float
    ) -> Trained:
        assert self._own is not None
        assert self._trainer is not None
        if stop.is_set():
            raise GivenUp
        seed = seed_of(task.plan, round=task.round, edge=self.name)
        with users_code(f"training of {self.workshop.app.name}"):
            return self._trainer.train(
                task.plan,
                model,
                self._own,
                seed=seed,
                stop=stop,
                memory=memory,
                late=lambda: monotonic() > late,
                share=share,
            )

    def _evaluate(self, task: Evaluate, model: Tensors, held_out: Examples, stop: threading.Event) -> Measured:
        assert self._trainer is not None
        seed = seed_of(task.plan, round=task.round, edge=self.name)
        with users_code(f"evaluation of {self.workshop.app.name}"):
            return self._trainer.evaluate(
                model, held_out, plan=task.plan, own=self._own, memory=self.memory.now, seed=seed, stop=stop
            )


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """Give what tells the thread to give up; it is set when nobody waits any more."""
    stop = threading.Event()
    try:
        yield stop
    except GivenUp:
        raise asyncio.CancelledError from None
    finally:
        stop.set()
