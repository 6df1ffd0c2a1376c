"""Tells a hub what it must know of an app, so that the hub itself never runs a user's code or imports torch."""

import json
from pathlib import Path

import msgspec

from edge.app import App, Edge
from edge.trainer import Trainer, pick_device
from shared.errors import ConfigError
from shared.snapshot import write_tensors


def write_contract(app: App, edge: Edge, *, model: Path) -> str:
    """Write the app's fresh model to the file `model`; give the rest as JSON.

    Returns:
        an object with `app` (its name), `settings` (what it recommends), `test` (whether it has held-out data) and
        `exchange` (what becomes of each tensor).

    Raises:
        ConfigError: the app has no model, or a setting that is no number or text.
    """
    trainer = Trainer(app, app.make_model(edge), pick_device("cpu"))
    write_tensors(model, trainer.first)
    exchange = msgspec.to_builtins(trainer.exchange)
    try:
        return json.dumps({"app": app.name, "settings": app.settings, "test": app.has("test"), "exchange": exchange})
    except TypeError as error:
        raise ConfigError(f"{app.name}: settings of App(...) must be plain numbers and texts ({error})") from None
