"""What a person types at `fededge`: every mistake ends with a sentence, an exit code, and nothing on stdout."""

import asyncio
import json
import os
import re
import shlex
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

import msgspec
import pytest

from edge.__main__ import cli
from edge.app import Edge, load_app
from edge.names import own_name
from edge.swarm.device import BUILT_IN
from hub.events import EdgeJoined, RoundClosed, StrangerRefused
from shared.console import run
from shared.messages import Plan
from shared.snapshot import read_tensors
from tests.support.federation import Running, running_hub
from tests.support.tiny import plan, tensors_of

APP = """
import torch
from edge import App

print("an app may say what it likes")
app = App(rounds=3, lr=0.5)

@app.model
def model():
    return torch.nn.Linear(2, 2)

@app.data
def data(edge):
    print("my data:", edge.option("file", "none"))
    return torch.eye(2).repeat(5, 1), torch.tensor([0, 1] * 5)
"""

TEST = """
@app.test
def test():
    return torch.eye(2), torch.tensor([0, 1])
"""

NOBODY = "ws://127.0.0.1:9"


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A small app, in the folder where the person is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("tested.py").write_text(APP + TEST)
    Path("my_app.py").write_text(APP)
    return "my_app.py"


@contextmanager
def hub_elsewhere(folder: Path, app: str, **settings: object) -> Iterator[tuple[str, "Queue[Running]"]]:
    """Run a hub in a thread, as a command lives in the main thread; give its URL, and at its end what became of it."""
    urls: Queue[str] = Queue()
    ends: Queue[Running] = Queue()

    async def live() -> None:
        async with running_hub(folder, model=tensors_of(load_app(app)), **settings) as hub:
            urls.put(hub.url)
            await hub.ended()
            ends.put(hub)

    thread = threading.Thread(target=lambda: asyncio.run(live()))
    thread.start()
    yield urls.get(timeout=20), ends
    thread.join()


# --- mistakes ---

MISTAKES = {
    "no such command": ("jion", 2, 'Unknown command "jion". Did you mean "join"?'),
    "no such option": ("join HUB my_app.py --nam a", 2, "Unknown option: --nam. Did you mean --name?"),
    "no app": ("join HUB", 2, 'Command "join" parameter --app requires an argument.'),
    "not a number": ("swarm HUB my_app.py -n many", 2, "unable to convert"),
    "no such built-in app": ("join HUB digit", 2, "there is no app file digit; did you mean 'digits'?"),
    "no such file": ("check my_ap.py", 2, "there is no app file my_ap.py; did you mean 'my_app.py'?"),
    "bad URL": ("join ftp://hub my_app.py", 2, "'ftp://hub' is not the address of a hub; write it like ws://"),
    "bad URL of a swarm": ("swarm ws:// my_app.py", 2, "'ws://' is not the address of a hub"),
    "hub not there": (
        "join HUB my_app.py",
        1,
        "cannot reach ws://127.0.0.1:9 (nothing listens there). Is the hub runn",
    ),
    "hub of a swarm not there": ("swarm HUB my_app.py", 1, "Is the hub running, and on that port?"),
    "name not found": ("join ws://hub.invalid:8765 my_app.py", 1, "cannot reach ws://hub.invalid:8765 ("),
    "bad --shard": ("join HUB my_app.py --shard 11/10", 2, "--shard '11/10' is not like 3/10 (part 3 of 10)"),
    "bad --shard, counted from 0": ("check my_app.py --shard 0/10", 2, "--shard '0/10' is not like 3/10"),
    "bad --shard, words": ("join HUB my_app.py --shard a/b", 2, "--shard 'a/b' is not like 3/10"),
    "bad --data": ("join HUB my_app.py --data file", 2, "--data 'file' is not like --data name=value"),
    "bad --data of a swarm": ("swarm HUB my_app.py --data =x", 2, "--data '=x' is not like --data name=value"),
    "unknown device": (
        "join HUB my_app.py --device tpu",
        2,
        "this machine has no device 'tpu'; choose one of auto, cpu",
    ),
    "unknown device of a swarm": (
        "swarm HUB my_app.py --device tpu",
        2,
        "this machine has no device 'tpu'; choose one",
    ),
    "unknown device to check": ("check my_app.py --device tpu", 2, "this machine has no device 'tpu'; choose one of"),
    "bad name": (
        "join HUB my_app.py --name 'my laptop'",
        2,
        "an edge cannot be called 'my laptop'; write up to 64 let",
    ),
    "bad prefix": ("swarm HUB my_app.py --prefix a/b", 2, "an edge cannot be called 'a/b-"),
    "nothing to evaluate with": (
        "join HUB my_app.py --evaluator",
        2,
        "my_app.py has no @app.test function, so it cannot",
    ),
    "no evaluator": ("swarm HUB my_app.py --evaluator", 2, "my_app.py has no @app.test function, so there can be no"),
    "no phones": ("swarm HUB my_app.py -n 0", 2, "-n 0: a swarm has at least one phone"),
    "bad seed": ("swarm HUB my_app.py --seed=-1", 2, "--seed -1: a seed is 0 or more"),
    "no such profile": (
        "swarm HUB my_app.py --profile phne",
        2,
        "there is no device profile 'phne'; there are instant, ",
    ),
    "no such profiles": (
        "swarm HUB my_app.py --profiles no.toml",
        2,
        "cannot read the profiles in no.toml: No such file",
    ),
    "an app that fails": ("check failing.py", 2, "failing.py failed at failing.py line 1: ZeroDivisionError: "),
    "a setting that is no number": (
        "contract odd.py --answer a.json --model m.safetensors --seed 0",
        2,
        "odd.py: settings of App(...) must be plain numbers and texts (Object of type Tensor is not JSON serializable)",
    ),
}


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_with_a_sentence_and_its_exit_code(mistake: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("failing.py").write_text("1 / 0")
    Path("odd.py").write_text(APP.replace("lr=0.5", "lr=torch.tensor(0.5)"))
    typed, code, sentence = MISTAKES[mistake]
    assert run(cli, shlex.split(typed.replace("HUB", NOBODY))) == code
    out, err = capsys.readouterr()
    assert out.replace("an app may say what it likes\n", "") == ""  # what an app prints is its own business
    assert sentence in err
    assert err.replace("an app may say what it likes\n", "").startswith("fededge: ")
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 3


def test_an_app_without_a_model_is_told_how_to_write_one(app: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bare.py").write_text("from edge import App\napp = App()\n")
    assert run(cli, ["join", NOBODY, "bare.py"]) == 2
    assert capsys.readouterr().err == (
        "fededge: bare.py has no @app.model function; write one:\n"
        "    @app.model\n    def model():\n        return torch.nn.Linear(64, 10)\n"
    )


async def test_an_edge_whose_data_set_cannot_be_had_ends_with_code_2_and_the_hub_says_why(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        nowhere = f"http://127.0.0.1:{server.getsockname()[1]}"  # nobody listens once it is closed
    environment = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    environment |= dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), nowhere)
    environment |= {"no_proxy": "127.0.0.1", "FEDHUB_DATA": ""}
    model = tensors_of(load_app("mnist"), Edge(options={"net": "linear"}))
    async with running_hub(tmp_path, model=model) as hub:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "edge", "join", hub.url, "mnist", "--name", "laptop"),
            *("--data", "root=/nonexistent", "--data", "net=linear"),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        refused = await hub.until(StrangerRefused)
    *log, last = err.decode().splitlines()
    assert (process.returncode, out) == (2, b"")
    assert last.startswith("fededge: MNIST is not in /nonexistent/MNIST/raw (train-images-idx3-ubyte.gz is missing or ")
    assert last.endswith("connect to the internet once, or set FEDHUB_DATA to a folder that holds MNIST/raw")
    assert len(log) == 1
    assert "joined run" in log[0]
    assert refused.reason == f"laptop left: {last.removeprefix('fededge: ')}"


# --- what works ---


@pytest.mark.parametrize("arguments", [["--help"], ["join", "--help"], ["swarm", "-h"], ["check", "--help"]])
def test_help_is_a_result_and_names_what_can_be_typed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, arguments) == 0
    out, err = capsys.readouterr()
    assert "Usage: fededge" in out
    assert err == ""


def test_help_shows_the_commands_for_people_and_hides_those_for_the_hub(capsys: pytest.CaptureFixture[str]) -> None:
    run(cli, ["--help"])
    out = capsys.readouterr().out
    assert all(re.search(rf"^\W*{name}\b", out, re.MULTILINE) for name in ("join", "swarm", "check"))
    assert not any(name in out for name in ("contract", "compare"))


async def test_help_needs_no_torch() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "importtime", "-m", "edge", "join", "--help"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0
    assert b"Usage: fededge join" in out
    imported = {line.rpartition("|")[2].strip() for line in err.decode().splitlines()}
    assert "edge.app" in imported
    assert not imported & {"torch", "torchvision", "scipy"}


def test_an_edge_joins_trains_and_ends_with_the_run(
    app: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with hub_elsewhere(tmp_path, app, rounds=2) as (url, ends):
        assert run(cli, ["join", url, app, "--name", "laptop", "--data", "file=mine", "--shard", "2/5"]) == 0
        hub = ends.get(timeout=20)
    out, err = capsys.readouterr()
    assert [fact.edge for fact in hub.all(EdgeJoined)] == ["laptop"]
    assert [fact.answered for fact in hub.all(RoundClosed)] == [1, 1]
    assert out.splitlines()[-1] == "my data: mine"
    lines = [line for line in err.splitlines() if line.startswith("laptop  ")]
    assert lines[0].startswith("laptop  joined run ")
    assert [line.partition(":")[0] for line in lines[1:]] == ["laptop  round 1", "laptop  round 2", "laptop  done"]


def test_a_swarm_with_an_evaluator_and_profiles_of_its_own_ends_with_the_run_and_can_be_quiet(
    app: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.toml").write_text("[quick]\ntrain = 0.01\n")
    with hub_elsewhere(tmp_path, app, rounds=2, wait_for=3) as (url, ends):
        arguments = ["swarm", url, "tested.py", "-n", "3", "--profile", "quick:2,instant", "--profiles", "mine.toml"]
        assert run(cli, [*arguments, "--evaluator", "--prefix", "p", "--quiet"]) == 0
        hub = ends.get(timeout=20)
    assert {fact.edge for fact in hub.all(EdgeJoined)} == {"p-01", "p-02", "p-03", "p-evaluator"}
    assert [fact.answered for fact in hub.all(RoundClosed)] == [3, 3]
    assert "p-01" not in "".join(line for line in capsys.readouterr().err.splitlines() if not line.startswith("{"))


def test_check_gives_its_findings_as_results(app: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["check", app, "--shard", "3/10"]) == 0
    out, err = capsys.readouterr()
    assert "data      10 examples, 160 B (edge 3 of 10)" in out
    assert out.splitlines()[-1] == "ok        now start a hub: fedhub serve my_app.py"
    assert err == ""


def test_the_contract_is_in_the_answers_file_whatever_the_app_prints(
    app: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "model.safetensors"
    answer = tmp_path / "answer.json"
    assert run(cli, ["contract", app, "--answer", str(answer), "--model", str(file), "--seed", "3"]) == 0
    assert "an app may say what it likes" in capsys.readouterr().out
    assert json.loads(answer.read_text()) == {
        "app": "my_app.py",
        "settings": {"rounds": 3, "lr": 0.5},
        "test": False,
        "exchange": {"rules": {"weight": "learn", "bias": "learn"}, "tied": {}, "norms": []},
    }
    expected = tensors_of(load_app(app), Edge(seed=3))
    assert {name: array.tolist() for name, array in read_tensors(file).items()} == {
        name: array.tolist() for name, array in expected.items()
    }


@pytest.mark.usefixtures("app")
def test_a_comparison_is_in_the_answers_file(tmp_path: Path) -> None:
    how = msgspec.json.encode(plan(lr=1.0)).decode()
    assert msgspec.json.decode(how, type=Plan) == plan(lr=1.0)
    arguments = ["--edges", "2", "--rounds", "20", "--metric", "accuracy", "--plan", how]
    answer = tmp_path / "answer.json"
    assert run(cli, ["compare", "tested.py", "--answer", str(answer), *arguments]) == 0
    assert json.loads(answer.read_text()) == {"alone": 1.0, "centralised": 1.0}


def test_an_edge_without_a_name_is_called_after_its_machine_and_never_twice_the_same() -> None:
    names = {own_name() for _ in range(20)}
    assert len(names) > 15
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,44}", name) for name in names)


def test_the_profiles_travel_with_the_package() -> None:
    assert BUILT_IN.is_file()
