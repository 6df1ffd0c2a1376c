"""Edges with torch at a real hub on loopback, which can be held back, killed, and come again with what they kept."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edge.agent import Agent, Patience
from edge.app import App, Edge
from edge.learner import Holdings, Measured, Trained
from edge.memory import Memory
from edge.torch_learner import TorchLearner, Workshop
from edge.trainer import Trainer
from hub.journal import Committed, Journal
from hub.runs import Contract
from shared.messages import Evaluate, Receipt, Role, Train, Welcome
from shared.tensors import Array, Tensors

_PATIENT = Patience(first=20.0, again=20.0, base=0.01, cap=0.05)


def points_app(rules: dict[str, str] | None = None, **functions: Callable[..., Any]) -> App:
    """Make an app that tells two classes of points apart; each edge has others. Its functions can be replaced."""
    app = App(rules=rules)
    app.name = "points.py"
    for name, function in {"model": normalised, "data": points, **functions}.items():
        getattr(app, name)(function)
    return app


def normalised() -> nn.Module:
    """Make a net with all that there can be in one: floats, running statistics, and a counter."""
    return nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def points(edge: Edge) -> tuple[Array, Array]:
    """Give an edge its points: around another place for each edge, more for each, and its own mix of classes."""
    dice = np.random.default_rng([7, edge.index])
    x = dice.normal(edge.index, 1.0, (12 + 4 * edge.index, 2)).astype(np.float32)
    return x, (x[:, 0] + 0.5 * edge.index > x[:, 1]).astype(np.int64)


def contract_of(app: App) -> Contract:
    """Tell what an app brings to a run, as `fededge contract` does."""
    trainer = Trainer(app, app.make_model(Edge()), torch.device("cpu"))
    return Contract(app.name, app.settings, app.has("test"), trainer.first, trainer.exchange)


@dataclass
class Held:
    """A learner whose answer to the first try at one round is not handed in before the gate opens."""

    learner: TorchLearner
    round: int
    gate: asyncio.Event

    async def prepare(self, welcome: Welcome) -> Holdings:
        return await self.learner.prepare(welcome)

    async def train(self, task: Train, model: Tensors) -> Trained:
        trained = await self.learner.train(task, model)
        if (task.round, task.attempt) == (self.round, 1):
            await self.gate.wait()
        return trained

    async def evaluate(self, task: Evaluate, model: Tensors) -> Measured:
        return await self.learner.evaluate(task, model)


@dataclass
class Attentive(Memory):
    """A memory of which a test can see what it has been told."""

    receipts: "asyncio.Queue[Receipt]" = field(default_factory=asyncio.Queue)

    def heard(self, receipt: Receipt) -> None:
        super().heard(receipt)
        self.receipts.put_nowait(receipt)


@dataclass
class Fleet:
    """Edges of one process.

    Args:
        workshop: where they learn.
        names: of all edges there are, here or elsewhere; the place says which data an edge has.
        keep: the folder of `--keep`, if any.
    """

    workshop: Workshop
    names: str
    keep: Path | None = None
    memories: dict[str, Attentive] = field(default_factory=dict)
    """What each edge remembers."""
    said: dict[str, list[str]] = field(default_factory=dict)
    """What each edge has told its log."""
    lives: "dict[str, asyncio.Task[None]]" = field(default_factory=dict)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def start(
        self, name: str, url: str, *, held: tuple[int, asyncio.Event] | None = None, role: Role = Role.TRAINER
    ) -> "asyncio.Task[None]":
        """Have an edge join; `held` names a round in whose first try it hands nothing in before an event."""
        memory = self.memories[name] = Attentive(self.keep, name)
        index = max(0, self.names.find(name))
        learner = TorchLearner(self.workshop, name, role, index, len(self.names), {}, memory)
        agent = Agent(
            url=url,
            edge=name,
            role=role,
            learner=Held(learner, *held) if held else learner,
            patience=_PATIENT,
            dice=random.Random(0),
            tell=lambda line: self._hears(name, line),
            memory=memory,
        )
        life = self.lives[name] = asyncio.create_task(agent.live())
        return life

    async def told(self, name: str, *, round: int, accepted: bool = True) -> Receipt:
        """Wait until an edge has heard what became of its answer of a round."""
        while True:
            receipt = await self.memories[name].receipts.get()
            if (receipt.round, receipt.accepted) == (round, accepted):
                return receipt

    async def says(self, name: str, text: str) -> str:
        """Wait until an edge has told its log a line that begins so."""
        while True:
            for line in self.said.get(name, []):
                if line.startswith(text):
                    return line
            self._news.clear()
            await self._news.wait()

    def _hears(self, name: str, line: str) -> None:
        self.said.setdefault(name, []).append(line)
        self._news.set()

    async def kill(self, *names: str) -> None:
        """End edges in the middle of whatever they do; all of them, if none is named."""
        lives = [self.lives.pop(name) for name in names or tuple(self.lives)]
        for life in lives:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)

    @property
    def remembered(self) -> dict[str, Tensors]:
        """What each edge remembers now."""
        return {name: memory.now for name, memory in self.memories.items()}


@asynccontextmanager
async def fleet(app: App, names: str = "ab", *, keep: Path | None = None) -> AsyncIterator[Fleet]:
    """Open a workshop for edges of one letter each; whoever is left at the end is killed."""
    with ThreadPoolExecutor(max_workers=1) as executor:
        crew = Fleet(Workshop(app, device="cpu", executor=executor), names, keep)
        try:
            yield crew
        finally:
            await crew.kill()


async def newest(folder: Path) -> Committed:
    """Give the last model and memory that a run's hub has committed."""
    async with Journal(folder) as journal:
        return (await journal.resume()).newest
