"""What a user writes: one file with a model, its data, and how to train it."""

import difflib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edge.learner import GivenUp
from shared.errors import ConfigError, FedhubError

if TYPE_CHECKING:
    import torch

F = TypeVar("F", bound=Callable[..., Any])

BUILT_IN = Path(__file__).parent / "apps"


@dataclass(frozen=True)
class Edge:
    """What an app's functions are told about the edge they run on.

    Args:
        index: this is edge number `index`, counted from 0, ...
        count: ... of `count`: together they say which part of a shared data set is this edge's own.
        seed: the run's seed, the same on all edges.
        options: text options: those of the operator (`--set`), and on top those of this edge (`--data`).
    """

    index: int = 0
    count: int = 1
    seed: int = 0
    options: Mapping[str, str] = field(default_factory=dict)

    def option(self, name: str, default: str | None = None) -> str:
        """Give a text option.

        Raises:
            ConfigError: it was not set and has no default.
        """
        value = self.options.get(name, default)
        if value is None:
            raise ConfigError(
                f"this app needs the option {name!r}; set it with --data {name}=... (fedhub: --set {name}=...)"
            )
        return value


class App:
    """A model, its data and its settings. Functions are registered with the decorators below.

    Settings left out keep the hub's defaults, and the operator's flags, environment and file win over all of them.

    Args:
        algorithm: how updates become a model: a name like `fedavg`, or one with settings, `fedadam(server_lr=0.03)`.
        rounds: how many rounds to play.
        deadline: seconds an edge has to answer in a round.
        fraction: share of the edges that a round wants answers from (C).
        epochs: passes over an edge's data in a round (E).
        batch: examples in a training step (B); 0 means all.
        lr: learning rate.
        metric: name of the measurement that counts.
        target: stop when the metric is this good.
        patience: stop after this many rounds without improvement.
        wait_for: how many edges must be here before the first round.
        over_selection: ask this many times as many edges as answers are wanted.
        quorum: share of the wanted answers that a round needs to count.
        holdout: share of its data that an edge keeps for evaluation, where there is no evaluator.
        rules: what becomes of tensors, by patterns of their names, where that is not the usual: `{"head.*": "own"}`
            keeps the head on each edge, `{"*lora*": "learn", "*": "frozen"}` learns and sends the adapters alone. See
            `shared.exchange.TensorRule`; the first pattern that matches counts.
    """

    def __init__(
        self,
        *,
        algorithm: str | None = None,
        rounds: int | None = None,
        deadline: float | None = None,
        fraction: float | None = None,
        epochs: int | None = None,
        batch: int | None = None,
        lr: float | None = None,
        metric: str | None = None,
        target: float | None = None,
        patience: int | None = None,
        wait_for: int | None = None,
        over_selection: float | None = None,
        quorum: float | None = None,
        holdout: float | None = None,
        rules: Mapping[str, str] | None = None,
    ) -> None:
        said = {
            "algorithm": algorithm,
            "rounds": rounds,
            "deadline": deadline,
            "fraction": fraction,
            "epochs": epochs,
            "batch": batch,
            "lr": lr,
            "metric": metric,
            "target": target,
            "patience": patience,
            "wait_for": wait_for,
            "over_selection": over_selection,
            "quorum": quorum,
            "holdout": holdout,
        }
        self.settings: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
        self.rules = dict(rules or {})
        self.name = ""
        self._functions: dict[str, Callable[..., Any]] = {}

    def model(self, function: F) -> F:
        """Register the function that makes the model: `model()` or `model(edge)` -> `torch.nn.Module`."""
        return self._register("model", function)

    def data(self, function: F) -> F:
        """Register the function that finds an edge's own data: a Dataset, a DataLoader, or tensors `(x, y)`."""
        return self._register("data", function)

    def test(self, function: F) -> F:
        """Register the function that finds the held-out data an evaluator measures with: types as for `data`."""
        return self._register("test", function)

    def loss(self, function: F) -> F:
        """Register `loss(output, target)` -> scalar tensor, the mean over the batch; cross entropy if there is none."""
        return self._register("loss", function)

    def metrics(self, function: F) -> F:
        """Register `metrics(output, target)` -> dict of means over the batch; accuracy if there is none."""
        return self._register("metrics", function)

    def has(self, what: str) -> bool:
        """Tell whether a function is registered, such as `test`."""
        return what in self._functions

    def make_model(self, edge: Edge) -> "torch.nn.Module":
        """Make the model, with fresh weights that are the same for the same seed.

        Raises:
            ConfigError: the app's function did not give one.
        """
        import torch

        torch.manual_seed(edge.seed)
        made = self._call("model", edge)
        if not isinstance(made, torch.nn.Module):
            raise ConfigError(f"{self.name}: model() must return a torch.nn.Module, it returned {_kind(made)}")
        if any(torch.nn.parameter.is_lazy(parameter) for parameter in made.parameters()):
            raise ConfigError(f"{self.name}: model() returned lazy layers, whose shapes are not known yet; write them")
        if not any(parameter.requires_grad for parameter in made.parameters()):
            raise ConfigError(
                f"{self.name}: model() returned a model with nothing to learn: no parameter needs a gradient"
            )
        return made

    def find_data(self, what: str, edge: Edge) -> Any:
        """Find the data an edge trains on (`data`) or an evaluator measures with (`test`).

        Raises:
            ConfigError: the app has no such function, or its function failed.
        """
        return self._call(what, edge)

    def loss_of(self, output: "torch.Tensor", target: "torch.Tensor") -> "torch.Tensor":
        """Give the mean loss of a batch: the app's own, or cross entropy."""
        if function := self._functions.get("loss"):
            loss: torch.Tensor = function(output, target)
            return loss
        from torch.nn.functional import cross_entropy

        return cross_entropy(output, target)

    def metrics_of(self, output: "torch.Tensor", target: "torch.Tensor") -> dict[str, float]:
        """Give the means of a batch's measurements: the app's own, or accuracy where targets are classes."""
        if function := self._functions.get("metrics"):
            return {name: float(value) for name, value in function(output, target).items()}
        if target.is_floating_point() or output.ndim < 2:
            return {}
        return {"accuracy": float((output.argmax(1) == target).float().mean())}

    def _register(self, what: str, function: F) -> F:
        if what in self._functions:
            raise ConfigError(f"this app has two functions for @app.{what}; which one is meant?")
        self._functions[what] = function
        return function

    def _call(self, what: str, edge: Edge) -> Any:
        function = self._functions.get(what)
        if function is None:
            raise ConfigError(f"{self.name} has no @app.{what} function; write one:\n{_EXAMPLE[what]}")
        with users_code(f"{what}() of {self.name}"):
            parameters = inspect.signature(function).parameters.values()
            # A parameter with a default is the user's own, like model(width=32), unless it is called edge.
            takes_edge = any(one.name == "edge" or one.default is one.empty for one in parameters)
            return function(edge) if takes_edge else function()


_EXAMPLE = {
    "model": "    @app.model\n    def model():\n        return torch.nn.Linear(64, 10)",
    "data": "    @app.data\n    def data(edge):\n        return x, y  # tensors, or a Dataset or DataLoader",
    "test": "    @app.test\n    def test(edge):\n        return x, y  # what no edge trains on",
}


def load_app(name: str) -> App:
    """Load a built-in app by name (`digits`), or a user's by the path of its file.

    Raises:
        ConfigError: there is no such app, its file fails, or it is not an app; says which line and what to write.
    """
    built_in = {path.stem: path for path in sorted(BUILT_IN.glob("*.py")) if not path.stem.startswith("_")}
    path = built_in.get(name, Path(name))
    if not path.is_file():
        close = difflib.get_close_matches(name, [*built_in, *map(str, Path(name).parent.glob("*.py"))], n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"built in are {', '.join(built_in)}"
        raise ConfigError(f"there is no app file {name}; {hint}")
    spec = importlib.util.spec_from_file_location(f"fedhub_app_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # so that the app's own classes can be found by name
    if name not in built_in:
        sys.path.insert(0, str(path.parent.resolve()))  # as for any script, so that it can import its neighbours
    with users_code(name):
        spec.loader.exec_module(module)
    apps = [value for value in vars(module).values() if isinstance(value, App)]
    if not apps:
        raise ConfigError(f"{name} has no app; write:\n    from edge import App\n    app = App(rounds=20)")
    app = apps[-1]
    app.name = path.name
    for what in ("model", "data"):
        if not app.has(what):
            raise ConfigError(f"{name} has no @app.{what} function; write one:\n{_EXAMPLE[what]}")
    return app


@contextmanager
def users_code(what: str) -> Iterator[None]:
    """Run a user's code: whatever it raises becomes one sentence, with the line it came from.

    Raises:
        ConfigError: it failed.
    """
    try:
        yield
    except (FedhubError, GivenUp):
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{what} failed{_where(error)}") from error


def _where(error: BaseException) -> str:
    """Say in one line where a user's code failed and how: the last line that is theirs, not one deep inside torch."""
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    message = str(error)
    if isinstance(error, SyntaxError) and error.filename:
        places, message = [(error.filename, error.lineno)], error.msg
    theirs = [f" at {Path(file).name} line {line}" for file, line in places if line and _is_theirs(file)]
    said = " ".join(message.split())
    return f"{theirs[-1] if theirs else ''}: {type(error).__name__}{': ' if said else ''}{said}"


def _is_theirs(file: str) -> bool:
    path, ours = Path(file), BUILT_IN.parent
    return not (
        file.startswith("<")
        or (path.is_relative_to(ours) and not path.is_relative_to(BUILT_IN))
        or path.is_relative_to(sysconfig.get_path("stdlib"))
        or {"site-packages", "dist-packages"} & set(path.parts)
    )


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
