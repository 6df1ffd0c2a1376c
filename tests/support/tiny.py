"""A torch app of six numbers, for tests of edges that learn with torch."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from edge.app import App, Edge
from edge.learner import Holdings
from edge.torch_learner import TorchLearner, Workshop
from edge.trainer import Trainer
from shared.messages import Plan, Role, Welcome
from shared.tensors import Tensors

X = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
Y = torch.tensor([0, 1, 1, 0, 1, 0])


def tiny_app(**functions: Callable[..., Any]) -> App:
    """Make an app that tells two classes of points apart; its functions can be replaced by name."""
    app = App()
    app.name = "tiny.py"
    parts = {"model": lambda: nn.Linear(2, 2), "data": lambda: (X, Y), **functions}
    for name, function in parts.items():
        getattr(app, name)(function)
    return app


def tensors_of(app: App, edge: Edge = Edge()) -> Tensors:  # noqa: B008  # frozen
    """Give the app's first model, as `fededge contract` would."""
    return trainer_of(app, edge).tensors


def trainer_of(app: App, edge: Edge = Edge()) -> Trainer:  # noqa: B008  # frozen
    """Make a trainer on the CPU."""
    return Trainer(app, app.make_model(edge), torch.device("cpu"))


def plan(**changes: object) -> Plan:
    """Make a plan of one epoch of one step over everything, unless told otherwise."""
    said = {"local": "sgd", "epochs": 1, "batch": 0, "lr": 0.1, "seed": 0, "holdout": 0.0, **changes}
    return Plan(**said)


@contextmanager
def workshop_of(app: App) -> Iterator[Workshop]:
    """Open a workshop with its one thread."""
    with ThreadPoolExecutor(max_workers=1) as executor:
        yield Workshop(app, device="cpu", executor=executor)


def learner_of(
    workshop: Workshop, name: str, *, role: Role = Role.TRAINER, options: dict[str, str] | None = None
) -> TorchLearner:
    """Make a learner with all of the data."""
    return TorchLearner(workshop, name, role, 0, 1, options or {})


async def prepared(learner: TorchLearner, welcome: Welcome) -> Holdings:
    """Prepare a learner, within seconds."""
    async with asyncio.timeout(10):
        return await learner.prepare(welcome)
