"""An algorithm is chosen the same way everywhere, its memory survives a crash to the bit, its divergence is told."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge import join
from hub.events import RoundCommitted, RunEnded, RunStarted, StrangerRefused, UpdateAccepted
from hub.journal import Committed, Journal
from hub.verify import verify
from shared.errors import ConfigError, ExitCode
from tests.support.algorithms import FORGETFUL, LONG_STEPS, PERSONAL, STEPS, WRITTEN
from tests.support.examples import same_tensors
from tests.support.federation import Adder, agent, edges, raw_edge, running_hub

ROOT = Path(__file__).parents[2]
SPELLED = "fedadam(server_lr=0.03, tau=0.0001)"
APP = """
import torch
from edge import App
app = App(rounds=3, algorithm="fedadam(tau=1e-4, server_lr=0.03)")
@app.model
def model():
    return torch.nn.Linear(2, 2)
@app.data
def data(edge):
    return torch.zeros(4, 2), torch.zeros(4, dtype=torch.long)
"""


def command(*arguments: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "hub", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


# --- one way to choose ---


@pytest.mark.parametrize("place", ["flag", "environment", "file", "app"])
def test_an_algorithm_with_settings_is_chosen_the_same_way_everywhere(tmp_path: Path, place: str) -> None:
    arguments, environment = ["config", "show", "--json"], {}
    match place:
        case "flag":
            arguments += ["--algorithm", SPELLED]
        case "environment":
            environment["FEDHUB_ALGORITHM"] = SPELLED
        case "file":
            (tmp_path / "fedhub.toml").write_text(f'algorithm = "{SPELLED}"\n')
        case "app":
            (tmp_path / "app.py").write_text(APP)
            arguments.insert(2, "app.py")
    done = command(*arguments, folder=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["algorithm"]
    source = {"file": "fedhub.toml", "app": "app.py"}.get(place, place)
    assert (told["value"].replace(" ", "").startswith("fedadam("), told["from"]) == (True, source)


@pytest.mark.parametrize("arguments", [("config", "show"), ("serve", "app.py", "--port", "0")], ids=" ".join)
def test_a_mistake_in_it_is_told_before_anything_is_begun(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = command(*arguments, "--algorithm", "fedadam(tua=1)", folder=tmp_path)
    assert done.returncode == 2
    assert "algorithm: fedadam has no setting 'tua'; did you mean 'tau'?" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_mistake_of_the_app_is_told_as_well(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP.replace("0.03", "-0.03"))
    done = command("serve", "app.py", "--port", "0", folder=tmp_path)
    assert done.returncode == 2
    assert "algorithm: fedadam's server_lr = '-0.03' is impossible: expected a number > 0.0" in done.stderr


NONE_THERE = "{} on the edges, but the model has none: its tensors are weight, bias"
NO_NORMS = NONE_THERE.format("fedbn keeps layers of batch normalisation")
NOT_MEASURED = (
    "with {} each edge has a model of its own, which only the edge can measure, on data that it keeps for that; "
    "say how much: holdout = 0.2 (--holdout 0.2)"
)


@pytest.mark.parametrize(
    ("name", "holdout", "sentence"),
    [
        ("fedbn", 0.2, f"{NO_NORMS}, steps"),
        ("fedper(own=head.*)", 0.2, NONE_THERE.format("fedper keeps head.*") + ", steps"),
        (
            "fedper(own=*)",
            0.2,
            "fedper keeps * on the edges, and nothing is left that edges could learn together",
        ),
        ("ditto", 0.0, NOT_MEASURED.format("ditto")),
        ("finetune(epochs=3)", 0.0, NOT_MEASURED.format("finetune(epochs=3)")),
        ("fedper(own=bias)", 0.0, NOT_MEASURED.format("fedper(own=bias)")),
    ],
)
async def test_what_makes_no_sense_with_a_model_is_refused_before_anything_is_begun(
    tmp_path: Path, name: str, holdout: float, sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        async with running_hub(tmp_path, algorithm=name, holdout=holdout) as hub:
            await hub.ended()
    assert str(caught.value) == sentence
    assert not hub.folder.exists()


def test_that_is_one_sentence_on_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    done = command("serve", "app.py", "--port", "0", "--algorithm", "fedbn", "--holdout", "0.2", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[1:] == [f"fedhub: {NO_NORMS}"]
    assert not [path for path in (tmp_path / "runs").iterdir() if path.is_dir()]


async def test_a_run_does_not_go_on_with_an_algorithm_that_exchanges_other_tensors(tmp_path: Path) -> None:
    async with running_hub(tmp_path, holdout=0.2) as hub:
        async with edges(agent(hub.url, "a", Adder())):
            await hub.ended()
    flags = ("--resume", "run", "--algorithm", "fedper(own=bias)", "--rounds", "2", "--port", "0")
    done = await asyncio.to_thread(command, "serve", *flags, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "fedhub: run is a run in which edges exchange other tensors than with fedper(own=bias); "
        "go on with its own algorithm, or start a new run"
    )
    assert (await newest(tmp_path / "run")).number == 1


async def test_a_script_is_told_that_it_cannot_do_what_the_algorithm_wants_of_edges(tmp_path: Path) -> None:
    sentence = (
        "scaffold has edges do more than train, which a script cannot do for it: join with an app (fededge join), "
        "or have the hub take fedavg or another algorithm of the hub alone"
    )
    async with running_hub(tmp_path, algorithm="scaffold") as hub:
        with pytest.raises(ConfigError) as caught:
            await asyncio.to_thread(list, join(hub.url, name="script", patience=5.0))
        refused = await hub.until(StrangerRefused)
    assert str(caught.value) == sentence
    assert refused.reason == f"script left: {sentence}"  # type: ignore[union-attr]


async def test_the_run_and_its_edges_are_told_the_exact_algorithm(tmp_path: Path) -> None:
    async with running_hub(tmp_path, algorithm="fedadam( tau=1e-4,server_lr=0.03, beta1=0.9 )") as hub:
        started = await hub.until(RunStarted)
        async with raw_edge(hub.url, "a") as edge:
            assert edge.welcome.algorithm == SPELLED
    assert started.algorithm == SPELLED  # type: ignore[union-attr]


# --- a memory that survives ---


async def newest(folder: Path) -> Committed:
    async with Journal(folder) as journal:
        return (await journal.resume()).newest


async def played(folder: Path, algorithm: str, *, name: str, killed: bool) -> Committed:
    """Play six rounds of two edges; kill the hub in the fourth, one answer of which it has, and resume it."""
    settings = {"rounds": 6, "wait_for": 2, "lr": 0.3, "algorithm": algorithm, "keep_updates": "all", "deadline": 60}
    settings["holdout"] = 0.5 if algorithm in PERSONAL.values() else 0.0
    gate = asyncio.Event()
    async with running_hub(folder, name=name, **settings) as hub:
        held = Adder(-0.3, examples=3, gate=gate)
        async with edges(agent(hub.url, "a", Adder(0.7, examples=2)), agent(hub.url, "b", held)):
            if killed:
                for number in range(1, 4):
                    gate.set()
                    await hub.until(RoundCommitted, round=number)
                    gate.clear()
                await hub.until(UpdateAccepted, round=4, edge="a")
                hub.die()
                await asyncio.gather(hub.life, return_exceptions=True)
            else:
                gate.set()
                await hub.ended()
    if killed:
        async with running_hub(folder, resume=folder / name, wait_for=2) as hub:
            last = (agent(hub.url, "a", Adder(0.7, examples=2)), agent(hub.url, "b", Adder(-0.3, examples=3)))
            async with edges(*last):
                await hub.ended()
    return await newest(folder / name)


@pytest.mark.parametrize("name", [name for name in WRITTEN if name != "fedbn"])  # which is for other models
async def test_a_run_that_is_killed_and_resumed_comes_to_the_same_model_and_memory(tmp_path: Path, name: str) -> None:
    undisturbed = await played(tmp_path, name, name="one", killed=False)
    resumed = await played(tmp_path, name, name="other", killed=True)
    assert undisturbed.number == resumed.number == 6
    assert same_tensors(resumed.model, undisturbed.model)
    assert same_tensors(resumed.memory, undisturbed.memory)
    assert bool(resumed.memory) == ((name in STEPS and name not in FORGETFUL) or "momentum" in name)
    for run in ("one", "other"):
        assert [verdict.updates async for verdict in verify(tmp_path / run)] == [0, 2, 2, 2, 2, 2, 2]


async def test_a_run_that_is_resumed_with_another_algorithm_begins_that_one_with_nothing_remembered(
    tmp_path: Path,
) -> None:
    for rounds, algorithm, kept in ((1, "fedadam", "fedadam"), (2, "fedyogi", "fedyogi"), (3, "fedavg", None)):
        resume = {"resume": tmp_path / "run"} if rounds > 1 else {}
        async with running_hub(tmp_path, rounds=rounds, algorithm=algorithm, **resume) as hub:  # type: ignore[arg-type]
            async with edges(agent(hub.url, "a", Adder())):
                await hub.ended()
        names = {name.split(" ")[0] for name in (await newest(tmp_path / "run")).memory}
        assert names == ({kept} if kept else set())


# --- divergence ---


@pytest.mark.parametrize("name", LONG_STEPS)
async def test_a_step_that_diverges_stops_the_run_with_a_sentence_and_keeps_the_last_model(
    tmp_path: Path, name: str
) -> None:
    model = {"w": np.zeros(2, np.float16)}
    async with running_hub(tmp_path, model=model, rounds=9, algorithm=f"{name}(server_lr=1e6)") as hub:
        async with edges(agent(hub.url, "a", Adder(1000.0))):
            ended = await hub.ended()
    (fact,) = hub.all(RunEnded)
    assert fact.reason == (  # type: ignore[union-attr]
        f"round 1 of {name}(server_lr=1000000.0) would make w infinite or NaN: training diverges, "
        "a smaller lr (or server_lr) may help. The model of round 0 is saved"
    )
    assert not fact.finished  # type: ignore[union-attr]
    assert ended.code is ExitCode.FAILURE
    assert (await newest(tmp_path / "run")).number == 0


async def test_a_run_that_diverged_goes_on_with_a_smaller_step(tmp_path: Path) -> None:
    model = {"w": np.zeros(2, np.float16)}
    folder = tmp_path / "run"
    async with running_hub(tmp_path, model=model, rounds=2, algorithm="fedavgm(server_lr=1e6)") as hub:
        async with edges(agent(hub.url, "a", Adder(1000.0))):
            await hub.ended()
    async with running_hub(tmp_path, resume=folder, algorithm="fedavgm(server_lr=1)", wait_for=1) as hub:
        async with edges(agent(hub.url, "a", Adder(1000.0))):
            assert (await hub.ended()).code is ExitCode.DONE
    assert (await newest(folder)).model["w"].tolist() == [2900.0, 2900.0]  # 1000 + (0.9 * 1000 + 1000)


async def test_a_rule_that_will_have_too_few_updates_for_its_promise_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with running_hub(tmp_path, algorithm="trimmed_mean(f=2)", wait_for=4) as hub:
        await hub.until(RunStarted)
    said = "trimmed_mean(f=2) keeps its promise with 5 updates or more in a round, and 4 are asked for"
    assert said in capfd.readouterr().err
