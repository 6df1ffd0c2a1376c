"""TensorBoard and MLflow get every round, under the same run when it is resumed; a broken one hurts nobody."""

import asyncio
import math
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hub.events import (
    Fact,
    RoundClosed,
    RoundCommitted,
    RoundStarted,
    RunEnded,
    RunStarted,
    Stamped,
    StrangerRefused,
)
from hub.feed import Follower
from hub.views import trackers as views
from hub.views.mlflow import MlflowClient
from hub.views.tensorboard import Event, SessionLog, masked_crc32c
from hub.views.trackers import Tracker, check_trackers, mlflow, tensorboard, trackers
from shared.errors import ConfigError

View = Callable[[Follower, Path], Awaitable[None]]


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a run."""
    run = tmp_path / "runs" / "1120-demo"
    run.mkdir(parents=True)
    return run


def started(*, round: int = 0, metric: str = "accuracy") -> RunStarted:
    return RunStarted(
        run="5f3a", name="1120-demo", algorithm="fedavg", parameters=2410, model_bytes=9640, model="", round=round,
        rounds=20, metric=metric, deadline=60.0,
    )  # fmt: skip


def round_of(number: int, **metrics: float) -> list[Fact]:
    return [
        RoundStarted(round=number, attempt=1, cohort=("a", "b"), goal=2, quorum=1, seconds=60.0),
        RoundCommitted(round=number, model="", listened=2.0, averaged=0.25, saved=0.25),
        RoundClosed(
            round=number, attempt=1, outcome="deadline-passed", asked=2, answered=1, late=("b",), left=(), refused={},
            loss=1 / number, metrics=metrics, evaluated="central", best=True, seconds=3.0, bytes_down=400, bytes_up=300,
            model="",
        ),
    ]  # fmt: skip


def ended(*, rounds: int, finished: bool = True) -> RunEnded:
    return RunEnded(reason="done", finished=finished, rounds=rounds, model="", seconds=9.0)


def tell(follower: Follower, facts: list[Fact], *, at: float) -> None:
    """Have `facts` happen a second apart."""
    for seq, fact in enumerate(facts):
        follower.offer(Stamped(seq, at + seq, fact))


async def follow(view: View, folder: Path, facts: list[Fact], *, at: float = 1000.0) -> None:
    """Have a view follow `facts` to their end."""
    follower = Follower(1000)
    tell(follower, facts, at=at)
    follower.end()
    await view(follower, folder)


def events(file: Path) -> Iterator[Event]:
    """Read a file of TFRecords; their checksums must be right."""
    rest = file.read_bytes()
    while rest:
        (length,), crc = struct.unpack("<Q", rest[:8]), struct.unpack("<I", rest[8:12])[0]
        assert crc == masked_crc32c(rest[:8])
        data, crc = rest[12 : 12 + length], struct.unpack("<I", rest[12 + length : 16 + length])[0]
        assert crc == masked_crc32c(data)
        yield Event.FromString(data)
        rest = rest[16 + length :]


def curves(folder: Path) -> dict[str, dict[int, float]]:
    """Read what TensorBoard shows: each tag's value at each step, void steps left out."""
    found: dict[str, dict[int, float]] = {}
    for file in sorted((folder / "tensorboard").iterdir()):
        for event in events(file):
            if event.session_log.status == SessionLog.START:
                found = {tag: {at: y for at, y in curve.items() if at < event.step} for tag, curve in found.items()}
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def runs(folder: Path) -> tuple[MlflowClient, list[Any]]:
    """Ask MLflow for the runs it has beside a run's folder."""
    client = MlflowClient((folder.parent / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("fedhub")
    assert experiment is not None
    return client, client.search_runs([experiment.experiment_id])


async def test_tensorboard_gets_the_numbers_of_each_round(folder: Path) -> None:
    facts = [started(), *round_of(1, accuracy=0.5, loss=0.75), *round_of(2, accuracy=0.625), ended(rounds=2)]
    await follow(tensorboard, folder, facts)
    assert curves(folder) == {
        "loss/training": {1: 1.0, 2: 0.5},
        "metric/accuracy": {1: 0.5, 2: 0.625},
        "metric/loss": {1: 0.75},
        "edges/asked": {1: 2, 2: 2},
        "edges/answered": {1: 1, 2: 1},
        "edges/late": {1: 1, 2: 1},
        "edges/left": {1: 0, 2: 0},
        "edges/refused": {1: 0, 2: 0},
        "seconds/round": {1: 3, 2: 3},
        "seconds/listening": {1: 2, 2: 2},
        "seconds/averaging": {1: 0.25, 2: 0.25},
        "seconds/saving": {1: 0.25, 2: 0.25},
        "seconds/measuring": {1: 0.5, 2: 0.5},
        "edge-seconds/waiting": {1: 4, 2: 4},
        "edge-seconds/wasted": {1: 0, 2: 0},
        "bytes/down": {1: 400, 2: 400},
        "bytes/up": {1: 300, 2: 300},
        "bytes/wasted": {1: 0, 2: 0},
    }


async def test_tensorboard_can_compare_runs_by_their_settings(folder: Path) -> None:
    await follow(tensorboard, folder, [started(), ended(rounds=0)])
    (file,) = (folder / "tensorboard").iterdir()
    written = list(events(file))
    assert written[0].file_version == "brain.Event:2"
    assert written[0].wall_time == 1000.0
    plugin = {value.tag: value.metadata.plugin_data.content for event in written for value in event.summary.value}
    assert list(plugin) == ["_hparams_/experiment", "_hparams_/session_start_info", "_hparams_/session_end_info"]
    assert b"metric/accuracy" in plugin["_hparams_/experiment"]
    assert b"fedavg" in plugin["_hparams_/session_start_info"]


async def test_tensorboard_sees_a_resumed_run_as_one(folder: Path) -> None:
    before = [started(), *round_of(1, accuracy=0.5), *round_of(2, accuracy=0.25), *round_of(3, accuracy=0.125)]
    await follow(tensorboard, folder, [*before, ended(rounds=3, finished=False)])
    await follow(tensorboard, folder, [started(round=2), *round_of(3, accuracy=0.75)], at=2000.0)
    assert len(list((folder / "tensorboard").iterdir())) == 2
    assert curves(folder)["metric/accuracy"] == {1: 0.5, 2: 0.25, 3: 0.75}


async def test_mlflow_gets_the_numbers_of_each_round(folder: Path) -> None:
    facts = [started(), *round_of(1, accuracy=0.5), *round_of(2, accuracy=0.625), ended(rounds=2)]
    await follow(mlflow, folder, facts)
    client, (run,) = runs(folder)
    assert run.info.run_name == "1120-demo"
    assert run.info.status == "FINISHED"
    assert run.data.params == {
        "algorithm": "fedavg",
        "rounds": "20",
        "deadline": "60.0",
        "parameters": "2410",
        "metric": "accuracy",
    }
    assert run.data.metrics["bytes/down"] == 400
    assert run.data.metrics["edges/late"] == 1
    history = client.get_metric_history(run.info.run_id, "metric/accuracy")
    assert [(one.step, one.value, one.timestamp) for one in history] == [(1, 0.5, 1003_000), (2, 0.625, 1006_000)]


async def test_mlflow_goes_on_with_the_run_that_is_resumed(folder: Path) -> None:
    await follow(mlflow, folder, [started(), *round_of(1, accuracy=0.5), ended(rounds=1, finished=False)])
    assert [run.info.status for run in runs(folder)[1]] == ["KILLED"]
    await follow(mlflow, folder, [started(round=1), *round_of(2, accuracy=0.75)], at=2000.0)
    client, (run,) = runs(folder)
    assert run.info.status == "RUNNING"
    assert [one.step for one in client.get_metric_history(run.info.run_id, "metric/accuracy")] == [1, 2]


async def test_mlflow_follows_its_own_environment(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "elsewhere").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "digits")
    await follow(mlflow, folder, [started(), ended(rounds=0)])
    assert MlflowClient((tmp_path / "elsewhere").as_uri()).get_experiment_by_name("digits") is not None
    assert not (folder.parent / "mlruns").exists()


@pytest.mark.parametrize("view", [tensorboard, mlflow])
@pytest.mark.parametrize("name", ["..", "/etc/passwd", "a b", 'q"uote', "new\nline", "\u202eevil", "", "x" * 4000])
async def test_whatever_edges_call_their_metrics_can_be_tracked(
    view: View, name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = [started(metric=name), *round_of(1, **{name: 0.5, "odd": math.nan}), ended(rounds=1)]
    await follow(view, folder, facts)
    assert capsys.readouterr().err == ""


async def test_a_tracker_that_cannot_be_reached_is_said_once_and_the_run_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    facts = [started(), *(fact for number in range(1, 50) for fact in round_of(number)), ended(rounds=49)]
    await follow(mlflow, folder, facts)
    assert capsys.readouterr().err.count("cannot tell MLflow of the run") == 1


async def test_a_tracker_that_recovers_is_told_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "tensorboard").write_text("in the way")
    follower = Follower(1000)
    following = asyncio.create_task(tensorboard(follower, folder))
    tell(follower, [started(), *round_of(1, accuracy=0.5)], at=1000.0)
    said = ""
    async with asyncio.timeout(10):
        while not said:
            await asyncio.wait([following], timeout=0.01)
            said = capsys.readouterr().err
    assert said.startswith("cannot tell TensorBoard of the run (FileExistsError: ")
    (folder / "tensorboard").unlink()
    tell(follower, round_of(2, accuracy=0.625), at=1010.0)
    tell(follower, round_of(3, accuracy=0.75), at=1100.0)
    follower.end()
    await following
    assert curves(folder)["metric/accuracy"] == {3: 0.75}
    assert capsys.readouterr().err == ""


async def test_a_tracker_that_hangs_is_left_behind_when_the_run_is_over_and_does_not_keep_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hang, opened = threading.Event(), threading.Event()

    def opener(*_: object) -> Tracker:
        opened.set()
        hang.wait()
        raise OSError

    monkeypatch.setattr(views, "_PATIENCE", 0.2)
    follower = Follower(1000)
    tell(follower, [started(), *(fact for number in range(1, 50) for fact in round_of(number))], at=1000.0)
    following = asyncio.create_task(views._track(follower, "MLflow", opener))
    try:
        assert await asyncio.to_thread(opened.wait, 10)
        assert all(thread.daemon for thread in threading.enumerate() if thread.name == "tracker")
        assert not following.done()
        follower.end()
        await asyncio.wait_for(following, 10)
        said = capsys.readouterr().err
        assert said.startswith("MLflow does not answer: it is left behind")
        assert said.count("\n") == 1
    finally:
        hang.set()


def test_a_server_that_never_answers_delays_the_end_by_seconds(folder: Path) -> None:
    code = """if True:
        import asyncio, sys
        from pathlib import Path
        from hub.views.mlflow import MlflowRun
        from hub.views.trackers import mlflow
        from tests.hub.views.test_trackers import follow, started
        print("ready", flush=True)
        asyncio.run(follow(mlflow, Path(sys.argv[1]), [started()]))
    """
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(folder)],
            env={**os.environ, "MLFLOW_TRACKING_URI": uri, "PYTHONPATH": str(Path.cwd())},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        began = time.monotonic()
        _, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 15
    assert process.returncode == 0
    assert err.startswith("MLflow does not answer"), err


async def test_what_happens_between_rounds_takes_no_memory(folder: Path) -> None:
    follower = Follower(100_000)
    following = asyncio.create_task(tensorboard(follower, folder))
    tell(follower, [started()], at=1000.0)
    refused = [StrangerRefused(peer="198.51.100.7:1", reason="it did not speak the protocol")] * 10_000
    before = 0
    tracemalloc.start()
    try:
        for turn in range(3):
            tell(follower, list(refused), at=1001.0)
            await asyncio.sleep(0.01)
            assert not follower._facts
            if turn == 0:
                before, _ = tracemalloc.get_traced_memory()
        assert tracemalloc.get_traced_memory()[0] - before < 200_000
    finally:
        tracemalloc.stop()
    tell(follower, [*round_of(1, accuracy=0.5), ended(rounds=1)], at=1002.0)
    follower.end()
    await following
    assert curves(folder)["metric/accuracy"] == {1: 0.5}


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboardX"), ("mlflow", "mlflow")])
def test_a_tracker_that_is_not_installed_is_refused_with_the_command_to_type(
    name: str, package: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(trackers([name, name], folder)) == 1
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"fedhub\[{name}\]"):
        check_trackers([name])
    with pytest.raises(ConfigError, match=rf"track: {name} .* pip install 'fedhub\[{name}\]'"):
        trackers([name], folder)


def test_no_tracker_brings_torch_into_the_hub() -> None:
    code = "import hub.views.tensorboard, hub.views.mlflow, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "error", "-c", code]).returncode == 0
