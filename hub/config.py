"""Everything an operator may choose, with its unit and its default, and where each value came from."""

import difflib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from shared.errors import ConfigError

ENVIRONMENT = "FEDHUB_"
FILE = "fedhub.toml"

Share = Annotated[float, Meta(gt=0, le=1)]
Seconds = Annotated[float, Meta(gt=0, le=30 * 24 * 3600)]
Positive = Annotated[int, Meta(ge=1, le=2**53)]  # edges written in JavaScript know no larger whole numbers
NotNegative = Annotated[int, Meta(ge=0, le=2**53)]


def _say(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an operator may choose. Flags win over the environment, that over the file, the file over the app."""

    host: str = _say("127.0.0.1", "address to listen on; 0.0.0.0 opens the hub to the network")
    lan: bool = field(
        default=False,
        metadata={"help": "open the hub to the network, for whoever shows the key that is printed"},
    )
    hosts: str = _say("", "other host names that the hub is reached by, as behind a proxy; commas between")
    port: Annotated[int, Meta(ge=0, le=65535)] = _say(8765, "TCP port to listen on; 0 takes a free one")
    runs: str = _say("runs", "folder that holds the run folders")
    name: str = _say("", "name of the run and its folder; by default date, time and app")
    log: str = _say("auto", "log lines on stderr: auto, pretty or json")
    track: str = _say("", "trackers to tell, commas between: tensorboard, mlflow")

    rounds: Positive = _say(20, "how many rounds to play")
    deadline: Seconds = _say(60.0, "seconds an edge has to answer in a round")
    wait_for: Positive = _say(1, "how many edges must be here before the first round")
    fraction: Share = _say(1.0, "share of the edges that a round wants answers from (C)")
    over_selection: Annotated[float, Meta(ge=1, le=1000)] = _say(
        1.0, "ask this many times as many edges as answers are wanted"
    )
    quorum: Share = _say(0.5, "share of the wanted answers that a round needs to count")
    retries: NotNegative = _say(5, "how often in a row a round may be asked again before the run stops")
    target: float | None = _say(None, "stop when the metric is this good")
    patience: NotNegative = _say(0, "stop after this many rounds without improvement; 0 never does")
    metric: str = _say(
        "accuracy", "the measurement that counts; one named like a loss (error, mse, mae, ...) is better when smaller"
    )

    algorithm: str = _say(
        "fedavg", "how updates become a model: a name, or one with settings like fedadam(server_lr=0.03)"
    )
    epochs: Positive = _say(1, "passes over an edge's data in a round (E)")
    batch: NotNegative = _say(32, "examples in a training step (B); 0 means all")
    lr: Annotated[float, Meta(gt=0, le=1e6)] = _say(0.1, "learning rate")
    seed: NotNegative = _say(0, "of selection, training and simulation")

    evaluate_every: Positive = _say(1, "measure the model after every so many rounds")
    evaluation_deadline: Seconds = _say(30.0, "seconds an evaluation may take")
    holdout: Annotated[float, Meta(ge=0, lt=1)] = _say(
        0.0, "share of its data that an edge keeps for evaluation (used where there is no evaluator)"
    )
    durability: str = _say(
        "update", "what survives a crash of the hub: every accepted update, or every committed round"
    )
    keep_updates: int | str = _say(0, "of how many rounds updates are kept for fedhub verify: a number, or all")
    max_examples: Positive = _say(10_000_000, "most examples that an edge may claim")
    upload_budget: Annotated[int, Meta(ge=1, le=2**20)] = _say(
        512, "MiB of memory for updates that come in at the same time; what does not fit waits in its socket"
    )

    @property
    def address(self) -> str:
        """What to bind to."""
        return "0.0.0.0" if self.lan else self.host  # the operator asks for it

    @property
    def trackers(self) -> list[str]:
        """The names in `track`."""
        return [name.strip() for name in self.track.split(",") if name.strip()]

    @property
    def rounds_kept(self) -> int:
        """Of how many rounds updates are kept.

        Raises:
            ConfigError: `keep_updates` is neither a number nor `all`.
        """
        if self.keep_updates == "all":
            return 2**53
        if str(self.keep_updates).isdecimal():
            return int(self.keep_updates)
        raise ConfigError(f"keep_updates: {self.keep_updates!r} is neither a number of rounds nor all")


HELP: dict[str, str] = {one.name: one.metadata["help"] for one in fields(Settings)}
OPERATORS_ALONE = ("host", "lan", "hosts", "port", "runs", "name", "log", "track", "seed")
"""Settings that an app file cannot make: where the hub listens and writes is not the app's business."""


@dataclass(frozen=True)
class Layer:
    """Settings from one source."""

    source: str
    values: Mapping[str, Any]
    text: bool = False
    """Whether the values are text that must be read first (environment variables)."""

    def spell(self, name: str) -> str:
        """Write a setting as it is written in this source."""
        match self.source:
            case "flag":
                return f"--{name.replace('_', '-')}"
            case "environment":
                return ENVIRONMENT + name.upper()
        return f"{self.source}: {name}"


@dataclass(frozen=True)
class Resolved:
    """Settings, and the source of each."""

    settings: Settings
    sources: Mapping[str, str]


def resolve(*layers: Layer) -> Resolved:
    """Put settings together: an earlier layer wins over a later one.

    Raises:
        ConfigError: a setting is unknown or has an impossible value; names it, its source, and what to write.
    """
    chosen: dict[str, Any] = {}
    sources: dict[str, str] = {one.name: "default" for one in fields(Settings)}
    for layer in reversed(layers):
        for name, value in layer.values.items():
            if name not in sources:
                raise ConfigError(f"{layer.spell(name)}: there is no such setting{did_you_mean(name, sources)}")
            chosen[name] = _checked(name, value, layer)
            sources[name] = layer.source
    settings = Settings(**chosen)
    if settings.target is not None and not math.isfinite(settings.target):
        raise ConfigError(f"target: {settings.target} cannot be reached")
    if settings.name.startswith(".") or Path(settings.name).name != settings.name:
        raise ConfigError(f"name: {settings.name!r} must be a plain name; the folder above it is the setting runs")
    if settings.durability not in ("update", "round"):
        raise ConfigError(f"durability: {settings.durability!r} is neither update nor round")
    if settings.rounds_kept and settings.durability != "update":
        raise ConfigError("keep_updates: only durability = update writes updates down, so that they can be kept")
    if settings.lan and settings.host != Settings.host:
        raise ConfigError(f"lan: listens on all addresses, and host = {settings.host!r} says another; choose one")
    if unknown := set(settings.trackers) - {"tensorboard", "mlflow"}:
        raise ConfigError(f"track: {min(unknown)!r} is neither tensorboard nor mlflow")
    if settings.log not in ("auto", "pretty", "json"):
        raise ConfigError(f"log: {settings.log!r} is not one of auto, pretty, json")
    return Resolved(settings, sources)


def did_you_mean(name: str, known: Mapping[str, Any] | list[str]) -> str:
    """Suggest the known name that was probably meant, as the end of a sentence."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(sorted(known))}"


def from_environment(environment: Mapping[str, str], *, others: frozenset[str] = frozenset()) -> Layer:
    """Read settings from variables like FEDHUB_PORT; `others` have our prefix and mean something else."""
    values = {
        name.removeprefix(ENVIRONMENT).lower(): value
        for name, value in environment.items()
        if name.startswith(ENVIRONMENT) and name not in others
    }
    return Layer("environment", values, text=True)


def from_file(path: Path) -> Layer:
    """Read settings from a TOML file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return Layer(str(path), tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None


def from_app(values: Mapping[str, Any], app: str) -> Layer:
    """Take the settings that an app file recommends.

    Raises:
        ConfigError: the app sets what is the operator's alone.
    """
    for name in values:
        if name in OPERATORS_ALONE:
            raise ConfigError(f"{app}: an app cannot set {name!r}; use the flag or {FILE}")
    return Layer(app, values)


_WORDS = {
    "`bool`": "true or false",
    "`int`": "a whole number",
    "`float`": "a number",
    "`str`": "text",
    "`float | null`": "a number",
}


def _checked(name: str, value: Any, layer: Layer) -> Any:
    """Read one value as its setting's type."""
    kind = Settings.__annotations__[name]
    try:
        return msgspec.convert(value, kind, strict=not layer.text)
    except msgspec.ValidationError as error:
        wanted = str(error).lower()
        for term, words in _WORDS.items():
            wanted = wanted.replace(term, words)
        raise ConfigError(f"{layer.spell(name)} = {value!r} is impossible: {wanted}") from None
