"""Tries an app on this machine before a federation does: one step of training, one evaluation, and what it weighs."""

import math
import threading
import time
from collections.abc import Iterator

from edge.app import App, Edge, users_code
from edge.examples import Examples
from edge.trainer import Trainer, pick_device, seed_of
from shared.codec import encode
from shared.console import size
from shared.errors import ConfigError
from shared.messages import Plan, Update
from shared.tensors import ModelSpec


def check(app: App, edge: Edge, *, device: str) -> Iterator[str]:
    """Try `app` as the edge `edge`; give what was found, line by line.

    Raises:
        ConfigError: it would not work in a federation; says where and why.
    """
    trainer = Trainer(app, app.make_model(edge), pick_device(device))
    model, spec = trainer.tensors, trainer.spec
    if not trainer.exchange.of("learn"):
        raise ConfigError("the app's rules leave nothing for edges to learn together")
    kept = ModelSpec.of({name: trainer.first[name] for name in trainer.exchange.of("own", "frozen")})
    wire = encode(_some_update(spec.digest), model.values()).nbytes
    yield f"model     {spec.parameters:,} parameters in {len(spec.tensors)} tensors, {size(wire)} each way a round"
    if kept.tensors:
        yield f"          {kept.parameters:,} more in {len(kept.tensors)} tensors stay here"
    examples = Examples.of(app.find_data("data", edge), where=f"data() of {app.name}")
    yield f"data      {examples.count:,} examples, {size(examples.nbytes)} (edge {edge.index + 1} of {edge.count})"
    lr, batch = app.settings.get("lr", 0.1), app.settings.get("batch", 32)
    plan = Plan(local="sgd", epochs=1, batch=batch, lr=lr, seed=edge.seed, holdout=0.0)
    seed = seed_of(plan, round=1, edge="check")
    with users_code(f"training of {app.name}"):
        before = trainer.evaluate(model, examples).metrics["loss"]
        began = time.perf_counter()
        trained = trainer.train(plan, model, examples, seed=seed, stop=threading.Event())
        seconds = time.perf_counter() - began
    loss = trained.metrics["loss"]
    if not math.isfinite(loss):
        raise ConfigError(f"the loss of {app.name} is {loss} after one epoch; a smaller lr than {lr} may help")
    yield f"training  one epoch took {seconds:.2f} s on {trainer.device}; loss {before:.4g} before, {loss:.4g} in it"
    if app.has("test"):
        held_out = Examples.of(app.find_data("test", edge), where=f"test() of {app.name}")
        with users_code(f"evaluation of {app.name}"):
            found = trainer.evaluate(model, held_out)
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in found.metrics.items())
        yield f"test      {found.examples:,} examples; the untrained model has {metrics}"
    else:
        yield "test      none: without @app.test or --holdout nobody measures the model"


def _some_update(spec: str) -> Update:
    return Update(
        run="check", round=1, attempt=1, model="0" * 64, spec=spec, examples=1, metrics={"loss": 0.0}, seconds=0.0
    )
