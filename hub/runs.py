"""Begins a run or takes one up again: its folder, its settings, and the model it goes on from."""

import asyncio
import json
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from hub.aggregation.algorithm import Algorithm
from hub.aggregation.catalogue import algorithm
from hub.companions import as_flags, edge_command
from hub.config import Layer, Settings, from_app, resolve
from hub.journal import Committed, Counted, Journal
from hub.spool import Spooled
from shared.disk import Disk
from shared.errors import ConfigError, JournalError
from shared.exchange import Exchange
from shared.snapshot import read_tensors, write_tensors
from shared.tensors import ModelSpec, Tensors, sha256

_OF_THE_HOUR = ("host", "lan", "hosts", "port", "runs", "name", "log", "track")
"""Settings of one start of a hub, which a resumed run does not inherit."""
_FROZEN = "frozen.safetensors"
"""Name of the file in a run's folder with the tensors that nobody trains, if there are any."""


@dataclass(frozen=True)
class Wishes:
    """What a command line asks of a hub.

    Args:
        layers: sources of settings, the strongest first.
        app: name or path of the app; may be empty when resuming.
        options: text options for the app.
        resume: run folder to go on with, if any.
        evaluator: whether to start an evaluator beside the hub if the app has held-out data.
        swarm: arguments of a `fededge swarm` to start beside the hub and to end with it, if any.
    """

    layers: tuple[Layer, ...]
    app: str = ""
    options: dict[str, str] = field(default_factory=dict)
    resume: Path | None = None
    evaluator: bool = True
    swarm: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contract:
    """What an app brings to a run."""

    app: str
    settings: dict[str, Any]
    """Settings it recommends."""
    has_test: bool
    """Whether it has held-out data, so that an evaluator can measure the model."""
    model: Tensors
    """Its first model, with all that is not sent to anybody."""
    exchange: Exchange | None = None
    """What becomes of the model's tensors, if it is not the same for all."""


@dataclass(frozen=True)
class Start:
    """Where a run goes on from."""

    newest: Committed
    open: Spooled | None = None
    """The round that was open when the hub was stopped or crashed, if any."""
    counted: Counted | None = None
    """Whose updates have counted, if rounds were played already."""


@dataclass
class Run:
    """A run that is ready to be played, new or taken up again."""

    id: str
    folder: Path
    app: str
    options: dict[str, str]
    has_test: bool
    settings: Settings
    algorithm: Algorithm
    exchange: Exchange
    frozen: str | None
    """Hash of the tensors that nobody trains, if there are any."""
    evaluations: dict[int, dict[str, float]]
    journal: Journal
    start: Start | None

    def take_start(self) -> Start:
        """Give the start to whoever plays the run, once: a model that nobody else holds goes when the next one comes.

        A hub that held its first model to the end would need the memory of one more.
        """
        start, self.start = self.start, None
        assert start is not None, "it was taken already"
        return start

    def whole(self, model: Tensors) -> Tensors:
        """Give the model as the app knows it, out of what is exchanged and what nobody trains.

        Raises:
            JournalError: the file of the latter cannot be read, or is damaged.
        """
        return self.exchange.whole({**model, **_frozen_in(self.folder, self.frozen)})


async def ask_app(wishes: Wishes) -> Contract:
    """Have an edge process load the app and tell what it brings.

    Raises:
        ConfigError: the app cannot be used; the sentence is the edge's own.
    """
    with tempfile.TemporaryDirectory(prefix="fedhub-") as folder:
        file = Path(folder) / "model.safetensors"
        seed = str(resolve(*wishes.layers).settings.seed)  # which an app cannot choose
        said = await edge_command(
            "contract", wishes.app, "--model", str(file), "--seed", seed, *as_flags(wishes.options)
        )
        exchange = msgspec.convert(said["exchange"], Exchange)
        return Contract(said["app"], said["settings"], said["test"], read_tensors(file), exchange)


@asynccontextmanager
async def begin_run(
    wishes: Wishes, contract: Contract, *, disk: Disk, trouble: Callable[[str], None]
) -> AsyncIterator[Run]:
    """Begin a run with an app's first model, in a folder of its own.

    Args:
        wishes: of the operator.
        contract: of the app.
        disk: what the folder is on.
        trouble: called with a sentence when the disk is full.

    Raises:
        ConfigError: a setting is impossible, or the folder holds a run already.
    """
    settings = resolve(*wishes.layers, from_app(contract.settings, contract.app)).settings
    everything = contract.exchange or Exchange.plain(contract.model)
    chosen, exchange = _agreed(settings, everything)
    folder = _new_folder(settings, contract.app)
    frozen = exchange.frozen(contract.model)
    async with Journal(folder, disk=disk, full=trouble) as journal:
        await journal.retain(settings.rounds_kept)
        kept = {
            "app": _lasting(wishes.app),
            "options": wishes.options,
            "test": contract.has_test,
            "settings": {name: value for name, value in asdict(settings).items() if name not in _OF_THE_HOUR},
        }
        model = {"exchange": msgspec.to_builtins(everything), "frozen": sha256(frozen) if frozen else None}
        run = secrets.token_hex(4)
        if frozen:
            await asyncio.to_thread(write_tensors, folder / _FROZEN, frozen, disk)
        newest = await journal.begin(run=run, settings=kept | model, model=exchange.sent(contract.model))
        try:
            (folder / "config.json").write_text(json.dumps({"run": run, **kept}, indent=2) + "\n", "utf-8")
        except OSError as error:  # it is for people; the journal has the same
            trouble(f"cannot write {folder / 'config.json'} ({error.strerror})")
        begun = Run(
            id=run,
            folder=folder,
            app=wishes.app,
            options=wishes.options,
            has_test=contract.has_test,
            settings=settings,
            algorithm=chosen,
            exchange=exchange,
            frozen=model["frozen"],
            evaluations={},
            journal=journal,
            start=Start(newest),
        )
        del contract, newest, frozen  # see take_start
        yield begun


@asynccontextmanager
async def resume_run(
    wishes: Wishes, folder: Path, contract: Contract | None, *, disk: Disk, trouble: Callable[[str], None]
) -> AsyncIterator[Run]:
    """Take up the run in `folder` after its last committed round, with its settings unless the operator has others.

    Args:
        wishes: of the operator; their settings win over the run's own.
        folder: the run's.
        contract: of an app that was named again, to see that it is the run's.
        disk: what the folder is on.
        trouble: called with a sentence when the disk is full or damaged.

    Raises:
        ConfigError: there is no run, it is of another version, or it is of another model.
        JournalError: it is damaged.
    """
    if not (folder / "journal.sqlite").is_file():
        raise ConfigError(f"{folder} is not a run folder; those that can be resumed are in the folder runs")
    async with Journal(folder, disk=disk, full=trouble) as journal:
        run = await journal.resume()
        if run.fell_back:
            trouble(run.fell_back)
        kept = run.settings
        settings = resolve(*wishes.layers, Layer(str(folder), kept["settings"])).settings
        everything = msgspec.convert(kept["exchange"], Exchange)
        chosen, exchange = _agreed(settings, everything)
        if set(run.newest.model) != exchange.of("learn", "average"):
            raise ConfigError(
                f"{folder} is a run in which edges exchange other tensors than with {chosen.name}; "
                "go on with its own algorithm, or start a new run"
            )
        if contract:
            _, theirs = _agreed(settings, contract.exchange or Exchange.plain(contract.model))
            difference = ModelSpec.of(run.newest.model).difference(ModelSpec.of(theirs.sent(contract.model)))
            if difference:
                raise ConfigError(
                    f"{folder} is a run of another model: {contract.app} has {difference}. "
                    "Resume it without naming an app, or start a new run without --resume"
                )
        if not wishes.resume and run.newest.number >= settings.rounds:
            raise ConfigError(
                f"{folder} holds a run already; go on with --resume {folder} and more --rounds, or take another --name"
            )
        await asyncio.to_thread(_frozen_in, folder, kept.get("frozen"))  # not only when all rounds are done
        await journal.retain(settings.rounds_kept)
        resumed = Run(
            id=run.run,
            folder=folder,
            app=wishes.app or kept["app"],
            options={**kept["options"], **wishes.options},
            has_test=kept["test"],
            settings=settings,
            algorithm=chosen,
            exchange=exchange,
            frozen=kept.get("frozen"),
            evaluations=run.evaluations,
            journal=journal,
            start=Start(run.newest, run.open, run.counted),
        )
        del contract, run  # see take_start
        yield resumed


def _agreed(settings: Settings, exchange: Exchange) -> tuple[Algorithm, Exchange]:
    """Give the algorithm, and what edges exchange with it.

    Raises:
        ConfigError: they make no sense together.
    """
    chosen = algorithm(settings.algorithm, settings)
    exchange = chosen.narrow(exchange)
    if not exchange.of("learn"):
        raise ConfigError("the app's rules leave nothing for edges to learn together")
    personal = chosen.personal or bool(exchange.of("own"))
    if personal and not settings.holdout:
        who = f"with {chosen.name}" if chosen.personal else "by the app's rules"
        raise ConfigError(
            f"{who} each edge has a model of its own, which only the edge can measure, on data that it "
            "keeps for that; say how much: holdout = 0.2 (--holdout 0.2)"
        )
    return replace(chosen, personal=personal), exchange


def _frozen_in(folder: Path, digest: str | None) -> Tensors:
    """Read what nobody trains, if there is any: a model must not end with other numbers than its edges had."""
    if not digest:
        return {}
    file = folder / _FROZEN
    tensors = read_tensors(file)
    if sha256(tensors) != digest:
        raise JournalError(f"{file} is damaged: it is not what the run began with. Put back a copy, or start a new run")
    return tensors


def _lasting(app: str) -> str:
    """Write an app's path so that a resume from another folder finds it; a built-in app's name is left alone."""
    path = Path(app)
    return str(path.resolve()) if path.is_file() else app


def open_run_of(settings: Settings) -> Path | None:
    """Give the folder of the run of the name that the operator gave, if there is one."""
    folder = Path(settings.runs) / settings.name
    return folder if settings.name and (folder / "journal.sqlite").is_file() else None


def _new_folder(settings: Settings, app: str) -> Path:
    """Make a folder for a new run: the operator's name for it, or date, time and app."""
    parent = Path(settings.runs)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        if settings.name:
            folder = parent / settings.name
            folder.mkdir(exist_ok=True)
            return folder
        stem = f"{datetime.now().astimezone():%m%d-%H%M}-{Path(app).stem}"
        for number in range(1, 1000):
            folder = parent / (stem if number == 1 else f"{stem}-{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        raise ConfigError(f"runs: cannot make a run folder in {parent} ({error.strerror})") from None
    raise ConfigError(f"runs: {parent} is full of runs called {stem}; choose a --name")
