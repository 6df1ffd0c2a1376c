"""The command line of a hub: serve an app, show a demo, watch a hub that runs somewhere."""

import asyncio
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from cyclopts import Parameter
from rich.console import Console, RenderableType

from hub.config import FILE, HELP, Layer, Settings, from_app, from_environment, from_file, resolve
from shared import __version__
from shared.console import command_line, pairs, result, run, say, stop_signals, until_stopped
from shared.errors import ConfigError, ExitCode, FedhubError, LinkClosed

cli = command_line(
    "fedhub", version=__version__, help="A hub that trains one model on many edges' data, which never leaves them."
)


def _shown(default: object) -> str:
    """Write a setting's default for the help."""
    return "none" if default in (None, "") else f"{default:g}" if isinstance(default, float) else str(default)


# One flag for each setting: what an operator may choose is written down once, in hub/config.py.
Flags = make_dataclass(
    "Flags",
    [
        (name, Annotated[kind | None, Parameter(help=f"{HELP[name]} [{_shown(default)}]", show_default=False)], None)
        for name, kind, default in (
            (one.name, get_type_hints(Settings)[one.name], one.default) for one in fields(Settings)
        )
    ],
    frozen=True,
    kw_only=True,
)
Flags.__module__ = __name__  # Python 3.11 says "types", and cyclopts does not look into what is built in

Chosen = Annotated[Flags, Parameter(name="*", group="Settings")]  # type: ignore[valid-type]  # made above
_APPS = "your app file, or digits, mnist, fashion_mnist, wisdm, shakespeare"
AppName = Annotated[str, Parameter(help=_APPS, show_default=False)]
RunName = Annotated[
    str, Parameter(help="run folder, or its name in the folder of runs [the newest]", show_default=False)
]
Set = Annotated[
    list[str],
    Parameter(name="--set", negative="", show_default=False, help="text option for the app, like net=cnn; repeatable"),
]
Json = Annotated[
    bool, Parameter(name="--json", negative="", show_default=False, help="end with one line of JSON on stdout")
]
Compare = Annotated[
    bool, Parameter(help="at the end, train on one edge's data alone and on all data in one place, to compare")
]
ConfigFile = Annotated[
    Path | None, Parameter(name="--config", show_default=False, help=f"settings file [{FILE}, if there is one]")
]

RunsFolder = Annotated[
    Path | None, Parameter(show_default=False, help=f"{HELP['runs']} [{Settings.runs}, unless set elsewhere]")
]

_WIDE = 1000  # columns of what is not a terminal
_OTHER_VARIABLES = frozenset({"FEDHUB_DATA"})  # where data sets are kept; read by edges


@cli.command
def serve(
    app: AppName = "",
    *,
    resume: Annotated[Path | None, Parameter(help="run folder to go on with")] = None,
    set_: Set = [],  # noqa: B006  # cyclopts gives each call a list of its own
    evaluator: Annotated[bool, Parameter(help="measure the model here if the app has held-out data")] = True,
    compare: Compare = False,
    json_: Json = False,
    config: ConfigFile = None,
    flags: Chosen = Flags(),  # noqa: B008  # frozen
) -> ExitCode:
    """Open a hub for an app and play its rounds with whoever joins."""
    if not (app or resume):
        raise ConfigError("which app? Write fedhub serve my_app.py, or fedhub serve digits")

    from hub.runs import Wishes

    wishes = Wishes(
        layers=_layers(flags, config),
        app=app,
        options=pairs(set_, flag="--set"),
        resume=resume,
        evaluator=evaluator,
    )
    return _serve(wishes, compare=compare, json_=json_)


@cli.command
def demo(
    app: Annotated[str, Parameter(help=f"{_APPS} [digits]", show_default=False)] = "digits",
    *,
    edges: Annotated[int, Parameter(help="how many simulated edges")] = 10,
    profile: Annotated[str, Parameter(help="kinds of devices, in turn")] = "laptop:7,slow:2,flaky:1",
    set_: Set = [],  # noqa: B006  # cyclopts gives each call a list of its own
    compare: Compare = True,
    json_: Json = False,
    config: ConfigFile = None,
    flags: Chosen = Flags(),  # noqa: B008  # frozen
) -> ExitCode:
    """Show a federation on this machine: a hub, ten simulated edges, two of them slow, one flaky, and an evaluator."""
    from hub.companions import as_flags
    from hub.runs import Wishes

    options = pairs(set_, flag="--set")
    shown = Layer("demo", {"deadline": 1.0, "wait_for": edges, "port": 0})
    layers = (*_layers(flags, config), shown)
    seed = str(resolve(*layers).settings.seed)
    swarm = ("swarm", "{url}", app, "-n", str(edges), "--profile", profile, "--seed", seed)
    kinds = ", ".join(" ".join(reversed(part.partition(":")[::2])).strip() for part in profile.split(","))
    say(f"demo: {app} on {edges} simulated edges ({kinds}), all on this machine")
    wishes = Wishes(
        layers=layers,
        app=app,
        options=options,
        evaluator=False,
        swarm=(*swarm, "--evaluator-if-any", "--wait", "30", "--patience", "10", "--quiet", *as_flags(options)),
    )
    return _serve(wishes, compare=compare, json_=json_)


@cli.command
def watch(
    url: Annotated[str, Parameter(help="of the hub, with its key: like ws://192.168.1.20:8765#KEY")] = (
        f"ws://127.0.0.1:{Settings.port}"
    ),
    *,
    log: Annotated[Literal["auto", "pretty", "json"], Parameter(help="pretty or json: lines, and no board")] = "auto",
    runs: RunsFolder = None,
) -> None:
    """Follow a running hub from anywhere: its board on a terminal, else its log."""
    from hub.views.watch import key_for
    from hub.views.watch import watch as follow
    from shared.link import websocket_url

    try:
        asyncio.run(until_stopped(follow(url, key=key_for(url, _runs(runs)), log=log)))
    except LinkClosed as closed:
        why = f" ({closed.reason})" if closed.reason else ""
        raise FedhubError(
            f"lost the hub at {websocket_url(url)}{why}. Is it still running? Then try the same again"
        ) from None


@cli.command(name="runs")
def list_runs(
    *,
    runs: RunsFolder = None,
    json_: Annotated[bool, Parameter(name="--json", negative="", show_default=False, help="a line a run")] = False,
) -> None:
    """List the runs that are kept, newest first."""
    from hub.views.archive import runs as kept_runs
    from hub.views.report import table_of

    found = kept_runs(_runs(runs))
    if json_:
        for kept in found:
            result(msgspec.json.encode(kept).decode())
    elif found:
        _tell(lambda console: table_of(found, console.width))
    else:
        say(f"there is no run in {_runs(runs)} yet; fedhub demo makes one")


@cli.command(name="show")
def show_run(
    run: RunName = "",
    *,
    runs: RunsFolder = None,
    json_: Annotated[bool, Parameter(name="--json", negative="", show_default=False, help="all, in a line")] = False,
) -> None:
    """Show what came of a run: its rounds, its edges, where the time went."""
    from hub.views.archive import find, story_of
    from hub.views.report import report, to_json

    story = story_of(find(run, _runs(runs)))
    if json_:
        result(to_json(story))
    else:
        _tell(lambda console: report(story))


@cli.command(name="compare")
def compare_runs(
    *run: Annotated[str, Parameter(help="run folders, or their names in the folder of runs")],
    target: Annotated[
        float | None, Parameter(help="value of the metric to get to [the worst of the runs' bests]", show_default=False)
    ] = None,
    metric: Annotated[str, Parameter(help="measurement to compare by [the runs' own]", show_default=False)] = "",
    png: Annotated[
        Path | None, Parameter(name=["--png", "-o"], show_default=False, help="draw the curves into this PNG file")
    ] = None,
    band: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="there, draw runs of one algorithm as their mean and range"),
    ] = False,
    runs: RunsFolder = None,
    json_: Annotated[bool, Parameter(name="--json", negative="", show_default=False, help="all, in a line")] = False,
) -> None:
    """Put runs side by side: how good they got, and what it took to get as far as a target."""
    from hub.views.archive import find
    from hub.views.compare import compare, side_by_side

    if not run:
        raise ConfigError("which runs? Write fedhub compare RUN RUN; fedhub runs lists them")
    if band and not png:
        raise ConfigError("--band is about the picture; write --png FILE too")
    comparison = compare([find(one, _runs(runs)) for one in run], metric=metric, target=target)
    if png:
        from hub.views.plot import save_picture

        save_picture(comparison, png, band=band)
        say(f"drew {png}")
    if json_:
        result(msgspec.json.encode(comparison).decode())
    else:
        _tell(lambda console: side_by_side(comparison, console.width, chart=console.is_terminal))


@cli.command
def replay(
    run: RunName = "",
    *,
    speed: Annotated[
        float, Parameter(help="how many times as fast as it was; 0 goes to its end at once [1]", show_default=False)
    ] = 1.0,
    lan: Annotated[bool | None, Parameter(help=HELP["lan"], show_default=False)] = None,
    port: Annotated[int | None, Parameter(help=f"{HELP['port']} [0, unless set elsewhere]", show_default=False)] = None,
    runs: RunsFolder = None,
) -> None:
    """Open the live page on a run that is over, and let it happen again."""
    if not 0 <= speed < math.inf:
        raise ConfigError(f"--speed {speed:g} is impossible: write how many times as fast, or 0")
    from hub.replay import Replay
    from hub.views.archive import find

    flags = Flags(lan=lan, port=port, runs=str(runs) if runs else None)
    settings = resolve(*_layers(flags, None), Layer("replay", {"port": 0})).settings  # beside a hub, if there is one
    asyncio.run(until_stopped(Replay(find(run, Path(settings.runs)), settings, speed=speed).serve()))


@cli.command
def verify(run: Annotated[Path, Parameter(help="run folder, like runs/1120-digits")]) -> None:
    """Prove a run: recompute every round whose updates were kept (--keep-updates) and compare the models."""
    from hub.verify import verify as verdicts

    async def tell() -> None:
        rounds = recomputed = 0
        async for verdict in verdicts(run):
            rounds += 1
            if verdict.updates:
                recomputed += 1
                again = f"recomputed from {verdict.updates} updates: the same"
                result(f"round {verdict.round:>3}  {verdict.model[:12]}  {again}")
        result(f"{rounds - 1} rounds committed, their proofs hold; {recomputed} recomputed to the bit")

    asyncio.run(tell())


@cli.command
def check(app: AppName, *, set_: Set = []) -> ExitCode:  # noqa: B006  # cyclopts gives each call a list of its own
    """Try an app on this machine: train one epoch, measure once, and say what it weighs on the wire."""
    from hub.companions import as_flags

    command = [sys.executable, "-m", "edge", "check", app, *as_flags(pairs(set_, flag="--set"))]
    return ExitCode(subprocess.run(command, check=False).returncode)  # our own program


config_cli = command_line("config", version=__version__, help="Look at the settings.")
cli.command(config_cli)


@config_cli.command
def show(
    app: AppName = "",
    *,
    set_: Set = [],  # noqa: B006  # cyclopts gives each call a list of its own
    config: ConfigFile = None,
    json_: Json = False,
    flags: Chosen = Flags(),  # noqa: B008  # frozen
) -> None:
    """Show every setting, its value, and where it came from; with an app, also what the app says."""
    layers = _layers(flags, config)
    if app:
        from hub.runs import Wishes, ask_app

        contract = asyncio.run(ask_app(Wishes(layers=layers, app=app, options=pairs(set_, flag="--set"))))
        layers = (*layers, from_app(contract.settings, contract.app))
    resolved = resolve(*layers)
    from hub.aggregation.catalogue import algorithm

    algorithm(resolved.settings.algorithm, resolved.settings)  # it is text, and only this says whether it makes sense
    values = {one.name: getattr(resolved.settings, one.name) for one in fields(Settings)}
    if json_:
        result(json.dumps({name: {"value": values[name], "from": resolved.sources[name]} for name in values}))
        return
    for name, value in values.items():
        shown = "" if value is None else json.dumps(value)
        result(f"{name:<20} {shown:<14} {resolved.sources[name]:<24} {HELP[name]}")


def _layers(flags: Any, config: Path | None) -> tuple[Layer, ...]:
    """Give the sources of settings: flags win over the environment, that over the file."""
    said = {one.name: getattr(flags, one.name) for one in fields(flags)}
    layers = [
        Layer("flag", {name: value for name, value in said.items() if value is not None}),
        from_environment(os.environ, others=_OTHER_VARIABLES),
    ]
    if config or Path(FILE).is_file():
        layers.append(from_file(config or Path(FILE)))
    return tuple(layers)


def _runs(flag: Path | None) -> Path:
    """Give the folder of runs, from wherever that is set."""
    return Path(resolve(*_layers(Flags(runs=str(flag) if flag else None), None)).settings.runs)


def _tell(what: Callable[[Console], RenderableType]) -> None:
    """Write a result for people: in colours on a terminal, else plain and as wide as it is."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _WIDE
    console.print(what(console))


def _serve(wishes: Any, *, compare: bool, json_: bool) -> ExitCode:
    """Play a run, and say at its end what came of it."""
    from hub.runs import Contract, ask_app
    from hub.server import Ended, Hub

    if trackers := resolve(*wishes.layers).settings.trackers:
        from hub.views.trackers import check_trackers

        check_trackers(trackers)  # before anything is opened or made

    async def ask(app: Any) -> Contract:
        contract = await ask_app(app)
        if compare and not contract.has_test:  # said now, not when all rounds have been played
            raise ConfigError(
                f"{contract.app} has no @app.test function, so there is nothing to compare with; "
                "write one, or say --no-compare"
            )
        return contract

    async def life() -> Ended | None:
        hub = Hub(wishes, ask=ask)
        with stop_signals(hub.stop):
            return await hub.serve()

    ended = asyncio.run(life())
    if ended is None:
        say("stopped before the first round")
        return ExitCode.DONE
    from hub.views.summary import closing_words

    alone = _compare(ended) if compare and not ended.stopped and ended.code is ExitCode.DONE else {}
    for line in closing_words(
        ended.summary, ended.run.folder, compared=alone, finished=ended.code is ExitCode.DONE and not ended.stopped
    ):
        say(line)
    if json_:
        result(ended.summary.to_json())
    return ended.code


def _compare(ended: Any) -> Mapping[str, float]:
    """Have an edge process train without federation; nothing is compared if it cannot, or is told to stop."""
    from hub.companions import as_flags, edge_command
    from hub.events import EdgeJoined
    from hub.views.archive import read_facts

    settings, run = ended.run.settings, ended.run
    found: dict[str, float] = {}

    async def measure() -> None:
        say("comparing with training alone and centralised (Ctrl-C leaves it out) ...")
        joined = (stamped.fact for stamped in read_facts(run.folder / "events.jsonl", only=(EdgeJoined,)))
        # Not how many names: an edge that comes back may have a new one.
        edges = max((fact.here for fact in joined if isinstance(fact, EdgeJoined)), default=0)
        if not edges:
            raise ConfigError("its events.jsonl does not say how many edges there were")
        arguments = ["compare", run.app, "--edges", str(edges), "--rounds", str(ended.summary.rounds)]
        arguments += ["--metric", settings.metric, "--plan", msgspec.json.encode(ended.plan).decode()]
        found.update(await edge_command(*arguments, *as_flags(run.options)))

    try:
        asyncio.run(until_stopped(measure()))
    except FedhubError as error:
        say(f"nothing to compare with: {error}")
    return found


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(cli))


if __name__ == "__main__":
    main()
