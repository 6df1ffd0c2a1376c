"""Shows what federating was worth: the same training on one edge's data alone, and on all data in one place."""

import threading
from dataclasses import dataclass

import msgspec
import torch

from edge.app import App, Edge, users_code
from edge.examples import Examples, joined
from edge.trainer import Trainer, pick_device, seed_of
from shared.errors import ConfigError
from shared.messages import Plan
from shared.tensors import Array

_MOST_ALONE = 10  # edges whose lonely models are averaged; more would only narrow the error of the mean


@dataclass(frozen=True)
class Comparison:
    """The metric on the app's test data, without federation."""

    metric: str
    alone: float
    """Mean over edges, each having trained on its own data alone."""
    centralised: float
    """After training on the data of all edges together."""


def compare(app: App, edge: Edge, *, plan: Plan, rounds: int, metric: str, device: str) -> Comparison:
    """Train `rounds * plan.epochs` epochs, as an edge does in a run, alone and centralised.

    Args:
        app: what to train.
        edge: `edge.count` edges share the data.
        plan: the run's; FedSGD is compared with the same number of SGD epochs.
        rounds: how many rounds the run had.
        metric: name of the measurement.
        device: where torch computes.

    Raises:
        ConfigError: the app has no test data, does not measure `metric`, or fails.
    """
    torch.set_num_threads(1)  # on a busy machine, two threads take ten times as long for small models
    plan = msgspec.structs.replace(plan, local="sgd", settings={}, holdout=0.0)
    trainer = Trainer(app, app.make_model(edge), pick_device(device))
    first = trainer.tensors
    held_out = Examples.of(app.find_data("test", edge), where=f"test() of {app.name}")
    parts = [
        Examples.of(
            app.find_data("data", Edge(index, edge.count, edge.seed, edge.options)), where=f"data() of {app.name}"
        )
        for index in range(edge.count)
    ]

    def metric_after(examples: Examples, name: str) -> float:
        model, memory = first, dict[str, Array]()
        for round in range(1, rounds + 1):
            seed = seed_of(plan, round=round, edge=name)
            trained = trainer.train(plan, model, examples, seed=seed, stop=threading.Event(), memory=memory)
            model = {key: _sum(array, trained.tensors[key]) for key, array in model.items()}
            memory = dict(trained.memory)
        found = trainer.evaluate(model, held_out, memory=memory).metrics
        if metric not in found:
            raise ConfigError(
                f"{app.name} does not measure {metric!r} but {', '.join(found)}; choose one as the metric"
            )
        return found[metric]

    step = max(1, len(parts) // _MOST_ALONE)
    chosen = range(0, len(parts), step)[:_MOST_ALONE]
    with users_code(f"training of {app.name}"):
        alone = [metric_after(parts[index], f"alone {index}") for index in chosen]
        return Comparison(metric, sum(alone) / len(alone), metric_after(joined(parts), "centralised"))


def _sum(array: Array, moved: Array) -> Array:
    """Add to floats how far they moved; integers and booleans are told as they are."""
    return moved if array.dtype.kind in "biu" else array + moved
