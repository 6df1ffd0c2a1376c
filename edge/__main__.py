"""The command line of an edge: join a hub, run a swarm of simulated phones, look at an app."""

import asyncio
import json
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from edge.app import Edge, load_app
from edge.names import own_name
from shared import __version__
from shared.console import command_line, pairs, result, run, say, until_stopped
from shared.errors import ConfigError

cli = command_line("fededge", version=__version__, help="Join a federation with your own data, which stays with you.")

Options = Annotated[
    list[str],
    Parameter(
        name="--data", negative="", show_default=False, help="text option for the app, like file=mine.pt; repeatable"
    ),
]
Device = Annotated[str, Parameter(help="where torch computes: auto, cpu, cuda or mps")]
Wait = Annotated[float, Parameter(help="seconds to wait for a hub that is not there yet")]
Again = Annotated[float, Parameter(name="--patience", help="seconds to wait for a hub that went away")]
Keep = Annotated[
    Path | None,
    Parameter(
        help="folder for what it remembers from round to round (control variates, layers of its own), "
        "so that it can be stopped and started again under the same name"
    ),
]
Quiet = Annotated[bool, Parameter(negative="", help="say nothing unless it fails")]

_WIDE = 1000  # columns of what is not a terminal


@cli.command
def join(
    url: Annotated[str, Parameter(help="of the hub, like ws://192.168.1.20:8765")],
    app: Annotated[str, Parameter(help="your app file, or digits, mnist, fashion_mnist, wisdm, shakespeare")],
    *,
    name: Annotated[str, Parameter(help="what this edge is called")] = "",
    data: Options = [],  # noqa: B006  # cyclopts gives each call a list of its own
    shard: Annotated[str, Parameter(help="take part 3 of 10 of a shared data set: 3/10")] = "1/1",
    evaluator: Annotated[bool, Parameter(negative="", help="only measure, with the app's held-out data")] = False,
    device: Device = "auto",
    wait: Wait = 0.0,
    patience: Again = 600.0,
    keep: Keep = None,
    quiet: Quiet = False,
) -> None:
    """Join a hub and train whenever it asks, until the run is over."""
    loaded, options = load_app(app), pairs(data, flag="--data")
    index, count = _part(shard)
    if evaluator and not loaded.has("test"):
        raise ConfigError(f"{app} has no @app.test function, so it cannot be an evaluator")

    from edge.agent import Agent, Patience
    from edge.memory import Memory
    from edge.torch_learner import TorchLearner, Workshop
    from shared.messages import Role

    edge = name or own_name()
    memory = Memory(keep, edge)
    role = Role.EVALUATOR if evaluator else Role.TRAINER
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="training") as executor:
        workshop = Workshop(loaded, device=device, executor=executor)
        agent = Agent(
            url=url,
            edge=edge,
            role=role,
            learner=TorchLearner(workshop, edge, role, index, count, options, memory),
            memory=memory,
            patience=Patience(first=wait, again=patience),
            dice=random.Random(),
            tell=(lambda line: None) if quiet else (lambda line: say(f"{edge}  {line}")),
        )
        asyncio.run(until_stopped(agent.live()))


@cli.command
def swarm(
    url: Annotated[str, Parameter(help="of the hub, like ws://127.0.0.1:8765")],
    app: Annotated[str, Parameter(help="your app file, or digits, mnist, fashion_mnist, wisdm, shakespeare")],
    *,
    n: Annotated[int, Parameter(name=["-n", "--phones"], help="how many phones")] = 10,
    profile: Annotated[str, Parameter(help="kinds of devices, like phone or laptop:7,slow:2,flaky:1")] = "instant",
    profiles: Annotated[Path | None, Parameter(help="TOML file with profiles of your own")] = None,
    prefix: Annotated[str, Parameter(help="what the phones are called")] = "edge",
    seed: Annotated[int, Parameter(help="of the devices' dice")] = 0,
    evaluator: Annotated[bool, Parameter(negative="", help="one more edge measures with the held-out data")] = False,
    evaluator_if_any: Annotated[bool, Parameter(negative="", show=False)] = False,
    data: Options = [],  # noqa: B006  # cyclopts gives each call a list of its own
    device: Device = "auto",
    wait: Wait = 0.0,
    patience: Again = 600.0,
    keep: Keep = None,
    quiet: Quiet = False,
) -> None:
    """Simulate many phones in this process: each its own connection, data and device."""
    if n < 1:
        raise ConfigError(f"-n {n}: a swarm has at least one phone")
    if seed < 0:
        raise ConfigError(f"--seed {seed}: a seed is 0 or more")
    loaded, options = load_app(app), pairs(data, flag="--data")
    if evaluator and not loaded.has("test"):
        raise ConfigError(f"{app} has no @app.test function, so there can be no evaluator")
    evaluator = evaluator or (evaluator_if_any and loaded.has("test"))

    from edge.agent import Patience
    from edge.swarm.device import BUILT_IN, assign, read_profiles
    from edge.swarm.phones import Swarm

    known = read_profiles(BUILT_IN) | (read_profiles(profiles) if profiles else {})
    phones = Swarm(
        url=url,
        app=loaded,
        devices=assign(profile, known, n),
        prefix=prefix,
        seed=seed,
        evaluator=evaluator,
        device=device,
        options=options,
        patience=Patience(first=wait, again=patience),
        keep=keep,
        tell=(lambda line: None) if quiet else say,
    )
    asyncio.run(until_stopped(phones.live()))


@cli.command
def check(
    app: Annotated[str, Parameter(help="your app file, or digits, mnist, fashion_mnist, wisdm, shakespeare")],
    *,
    data: Options = [],  # noqa: B006  # cyclopts gives each call a list of its own
    shard: Annotated[str, Parameter(help="try part 3 of 10 of a shared data set: 3/10")] = "1/10",
    device: Device = "auto",
) -> None:
    """Try an app here: train one epoch, measure once, and say what it weighs on the wire."""
    loaded, options = load_app(app), pairs(data, flag="--data")
    index, count = _part(shard)

    from edge.check import check as findings

    for line in findings(loaded, Edge(index=index, count=count, options=options), device=device):
        result(line)
    result(f"ok        now start a hub: fedhub serve {app}")


data_cli = command_line("data", version=__version__, help="Look at how an app's data lie on its edges.")
cli.command(data_cli)
AppName = Annotated[str, Parameter(help="your app file, or digits, mnist, fashion_mnist, wisdm, shakespeare")]
Edges = Annotated[int, Parameter(name=["-n", "--edges"], help="how many edges share the data")]
Seed = Annotated[int, Parameter(help="of the run whose data these are")]


@data_cli.command(name="show")
def show_data(
    app: AppName,
    *,
    n: Edges = 10,
    data: Options = [],  # noqa: B006  # cyclopts gives each call a list of its own
    seed: Seed = 0,
    all_: Annotated[bool, Parameter(name="--all", negative="", help="show every edge, however many there are")] = False,
    json_: Annotated[bool, Parameter(name="--json", negative="", help="all, in a line")] = False,
) -> None:
    """Count the examples and labels of each edge."""
    loaded, options = load_app(app), pairs(data, flag="--data")

    from rich.console import Console

    from edge.census.count import take, to_json
    from edge.census.table import table_of

    census = take(loaded, edges=n, seed=seed, options=options)
    if json_:
        return result(to_json(census))
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _WIDE
    return console.print(table_of(census, width=console.width, every=all_))


@data_cli.command(name="plot")
def plot_data(
    app: AppName,
    *,
    n: Edges = 10,
    data: Options = [],  # noqa: B006  # cyclopts gives each call a list of its own
    seed: Seed = 0,
    output: Annotated[Path, Parameter(name=["-o", "--output"], help="picture to write: .png, .svg or .pdf")] = Path(
        "partition.png"
    ),
) -> None:
    """Draw the labels of each edge into a picture; needs matplotlib: pip install 'fedhub[plot]'."""
    loaded, options = load_app(app), pairs(data, flag="--data")

    from edge.census.count import take
    from edge.census.plot import check as check_picture
    from edge.census.plot import plot

    check_picture(output)
    census = take(loaded, edges=n, seed=seed, options=options)
    plot(census, output)
    result(f"{output}: {census.in_short}")


@cli.command(show=False)
def contract(app: str, *, answer: Path, model: Path, seed: int, data: Options = []) -> None:  # noqa: B006
    """For the hub: write the app's first model and its settings to files; an app may print what it likes."""
    loaded, options = load_app(app), pairs(data, flag="--data")

    from edge.contract import write_contract

    answer.write_text(write_contract(loaded, Edge(seed=seed, options=options), model=model), "utf-8")


@cli.command(show=False)
def compare(
    app: str,
    *,
    answer: Path,
    edges: int,
    rounds: int,
    metric: str,
    plan: str,
    data: Options = [],  # noqa: B006  # cyclopts gives each call a list of its own
) -> None:
    """For the hub: train alone and centralised, as a federation of `edges` did, and write the metrics to a file."""
    loaded, options = load_app(app), pairs(data, flag="--data")

    import msgspec

    from edge.compare import compare as measure
    from shared.messages import Plan

    how = msgspec.json.decode(plan, type=Plan)
    edge = Edge(count=edges, seed=how.seed, options=options)
    found = measure(loaded, edge, plan=how, rounds=rounds, metric=metric, device="cpu")
    answer.write_text(json.dumps({"alone": found.alone, "centralised": found.centralised}), "utf-8")


def _part(text: str) -> tuple[int, int]:
    """Read `3/10` as number 2 (counted from 0) of 10."""
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ConfigError(f"--shard {text!r} is not like 3/10 (part 3 of 10)")
    return int(number) - 1, int(count)


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(cli))


if __name__ == "__main__":
    main()
