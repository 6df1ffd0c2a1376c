"""What federating was worth is told at the end of a run of anybody's app, or a sentence says why it is not."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.together.test_commands import command, line_with, started

APP = """
import os, signal, torch
from torch.utils.data import DataLoader, Dataset, TensorDataset
from edge import App

app = App(rounds=2, deadline=20, batch=8, lr=0.05, metric="mean_error", wait_for=3)
print("an app may print what it likes")

class Points(Dataset):
    def __init__(self, x, y):
        self.x, self.y = x, y
    def __len__(self):
        return len(self.x)
    def __getitem__(self, at):
        return self.x[at], self.y[at]

def points(seed, count):
    x = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    return x, x @ torch.tensor([[1.0], [-2.0], [0.5]])

@app.model
def model():
    return torch.nn.Linear(3, 1)

@app.data
def data(edge):
    x, y = points(edge.index, int(edge.option("count")))
    kind = edge.option("kind", "tensors")
    if kind == "dataset":
        return Points(x, y)
    return DataLoader(TensorDataset(x, y), batch_size=6) if kind == "loader" else (x, y)

@app.loss
def loss(output, target):
    return torch.nn.functional.mse_loss(output, target)

@app.metrics
def metrics(output, target):
    return {"mean_error": (output - target).abs().mean()}

@app.test
def test(edge):
    if pipe := edge.option("pipe", ""):
        os.write(os.open(pipe, os.O_WRONLY), b"comparing")
        signal.pause()
    return points(99, 64)
"""
WORTH = re.compile(r"federated ([\d.]+) · one edge alone ([\d.]+) · centralised ([\d.]+) · ")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with an app in it that learns a line, in a folder of its own, and not to classify."""
    (tmp_path / "apps").mkdir()
    (tmp_path / "apps" / "line.py").write_text(APP)
    return tmp_path


@contextmanager
def serving(*flags: str, folder: Path, edges: int = 3) -> Iterator[subprocess.Popen[str]]:
    """Serve the app to a swarm, to compare at the end."""
    arguments = ("serve", "apps/line.py", "--port", "0", "--compare", "--set", "count=24", *flags)
    with started("hub", *arguments, folder=folder) as hub:
        url = line_with(hub, "listening on").split()[-1]
        with started("edge", "swarm", url, "apps/line.py", "-n", str(edges), "--quiet", folder=folder):
            yield hub


def worth(err: str) -> tuple[float, float, float]:
    found = WORTH.search(err)
    assert found, err
    federated, alone, centralised = map(float, found.groups())
    return federated, alone, centralised


@pytest.mark.parametrize("kind", ["tensors", "dataset", "loader"])
def test_an_app_of_ones_own_is_compared_by_its_own_metric_with_its_own_options(folder: Path, kind: str) -> None:
    with serving("--set", f"kind={kind}", folder=folder) as hub:
        _, err = hub.communicate(timeout=60)
    assert hub.returncode == 0, err
    federated, alone, centralised = worth(err)
    assert centralised < federated < 3, "three times as many examples in one place lead further"
    assert centralised < alone < 3


def test_without_held_out_data_that_is_said_before_anything_is_played(folder: Path) -> None:
    app = folder / "apps" / "line.py"
    app.write_text(APP.replace("@app.test\n", ""))
    done = command("hub", "serve", "apps/line.py", "--port", "0", "--compare", folder=folder)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "fedhub: line.py has no @app.test function, so there is nothing to compare with; write one, or say --no-compare"
    )
    assert not [path for path in (folder / "runs").glob("*") if path.is_dir()]


def test_a_metric_that_the_app_does_not_measure_is_told_with_those_it_does(folder: Path) -> None:
    with serving("--metric", "accuracy", folder=folder) as hub:
        _, err = hub.communicate(timeout=60)
    assert hub.returncode == 0, err
    assert "nothing to compare with: line.py does not measure 'accuracy' but loss, mean_error; choose one" in err
    assert "Traceback" not in err


def test_a_run_that_goes_on_is_compared_with_all_edges_and_rounds_it_ever_had(folder: Path) -> None:
    with serving("--name", "one", folder=folder) as hub:
        _, err = hub.communicate(timeout=60)
    _, alone, centralised = worth(err)
    again = ("hub", "serve", "--resume", "runs/one", "--port", "0", "--compare")
    done = command(*again, folder=folder)
    assert done.returncode == 0, done.stderr
    assert f"one edge alone {alone:g} · centralised {centralised:g}" in done.stderr
    (folder / "runs" / "one" / "events.jsonl").unlink()
    done = command(*again, folder=folder)
    assert done.returncode == 0, done.stderr
    assert "nothing to compare with: its events.jsonl does not say how many edges there were" in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_comparison_can_be_left_out_while_it_is_made(folder: Path, number: signal.Signals) -> None:
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    with serving("--no-evaluator", "--set", f"pipe={pipe}", folder=folder) as hub:
        with pipe.open("rb") as end:
            assert end.read(9) == b"comparing"
            hub.send_signal(number)
            _, err = hub.communicate(timeout=20)
            assert end.read() == b"", "whoever held the other end is gone"
    assert hub.returncode == 0, err
    assert "one edge alone" not in err
    assert "model.safetensors" in err.splitlines()[-1]
