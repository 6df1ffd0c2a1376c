"""The commands as people type them: real processes, real ports, real signals."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

APP = """
import torch
from edge import App

app = App(rounds=3, deadline=20, batch=0, lr=0.1)

@app.model
def model():
    return torch.nn.Linear(2, 2)

@app.data
def data(edge):
    return torch.eye(2), torch.tensor([0, 1])

@app.test
def test():
    return torch.eye(2), torch.tensor([0, 1])
"""


def command(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@contextmanager
def started(*arguments: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a command in the background; its stderr can be read line by line."""
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line_with(process: subprocess.Popen[str], text: str) -> str:
    """Read the process's stderr up to a line that holds `text`."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if text in line:
            return line
    raise AssertionError(f"no line with {text!r} in:\n{''.join(seen)}")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """Give a folder with a small app in it, called app.py."""
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def test_serve_accepts_connections_at_once_and_stays_small_and_without_torch(app: Path) -> None:
    took = []
    for _ in range(3):
        began = time.perf_counter()
        with started("hub", "serve", "app.py", "--port", "0", "--no-evaluator", folder=app) as hub:
            port = int(re.search(r":(\d+)$", line_with(hub, "listening on").strip()).group(1))  # type: ignore[union-attr]
            socket.create_connection(("127.0.0.1", port)).close()
            took.append(time.perf_counter() - began)
            line_with(hub, "WaitingForEdges")  # the run has begun: everything that a hub needs is loaded
            status = Path(f"/proc/{hub.pid}/status")
            if status.exists():  # Linux
                resident = int(re.search(r"VmRSS:\s+(\d+) kB", status.read_text()).group(1))  # type: ignore[union-attr]
                assert resident < 80_000, f"{resident} kB resident"
                assert "torch" not in Path(f"/proc/{hub.pid}/maps").read_text()
    assert min(took) < 1.0, took


def test_importing_everything_of_the_hub_imports_no_torch_and_warns_of_nothing(tmp_path: Path) -> None:
    code = "import hub, edge, shared, hub.server, hub.__main__, edge.__main__, sys; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_hub_and_an_edge_from_two_commands(app: Path) -> None:
    with started("hub", "serve", "app.py", "--port", "0", "--json", folder=app) as hub:
        url = line_with(hub, "listening on").split()[-1]
        with started("edge", "join", url, "app.py", "--name", "laptop", folder=app) as edge:
            out, err = hub.communicate(timeout=60)
            assert edge.wait(20) == 0
    assert hub.returncode == 0
    assert json.loads(out)["rounds"] == 3
    assert '"role":"evaluator"' in err
    folder = next(path for path in (app / "runs").iterdir() if path.is_dir())
    assert {"config.json", "events.jsonl", "journal.sqlite", "model.safetensors", "snapshots"} <= {
        path.name for path in folder.iterdir()
    }


def test_the_page_about_data_shows_an_app_that_runs(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text("utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    there = re.sub(r"datasets.CIFAR10\(.*?transform", "datasets.FakeData(40, (3, 32, 32), 10, transform", code)
    there = there.replace("everything.targets", "[int(y) for _, y in everything]")  # CIFAR-10 would be downloaded
    assert "CIFAR" not in there
    (tmp_path / "app.py").write_text(there)
    settings = ("--profile", "instant", "--edges", "2", "--rounds", "1", "--deadline", "60", "--no-compare")
    done = command("hub", "demo", "app.py", *settings, "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"] is not None


def test_an_app_that_holds_nothing_out_can_be_shown_and_is_measured_by_its_edges(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP.partition("@app.test")[0])
    settings = ("--profile", "instant", "--edges", "2", "--rounds", "1", "--holdout", "0.5", "--no-compare")
    done = command("hub", "demo", "app.py", *settings, "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"] is not None


def test_demo_ends_with_one_line_of_json(tmp_path: Path) -> None:
    done = command("hub", "demo", "--rounds", "2", "--seed", "1", "--json", "--no-compare", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert set(json.loads(line)) == {
        "rounds", "accuracy", "loss", "bytes_down", "bytes_up", "late", "refused", "seconds", "model_sha256",
    }  # fmt: skip


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_the_first_signal_saves_and_says_how_to_go_on(app: Path, name: str) -> None:
    with started("hub", "serve", "app.py", "--port", "0", "--no-evaluator", folder=app) as hub:
        line_with(hub, "WaitingForEdges")
        hub.send_signal(getattr(signal, name))
        _, err = hub.communicate(timeout=20)
    assert hub.returncode == 0, err
    assert "go on with: fedhub serve --resume" in err
    assert "Traceback" not in err


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
def test_the_second_signal_ends_the_hub_at_once(app: Path) -> None:
    with started("hub", "serve", "app.py", "--port", "0", "--no-evaluator", "--wait-for", "1", folder=app) as hub:
        url = line_with(hub, "listening on").split()[-1]
        line_with(hub, "WaitingForEdges")
        # An edge that never reads makes the goodbye take its time, so there is something to interrupt.
        host, port = url.removeprefix("ws://").split(":")
        with socket.create_connection((host, int(port))) as deaf:
            key = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            deaf.sendall(key + b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n")
            assert deaf.recv(4096).startswith(b"HTTP/1.1 101")
            hub.send_signal(signal.SIGINT)
            line_with(hub, "StopRequested")
            hub.send_signal(signal.SIGINT)
            hub.communicate(timeout=20)
    assert hub.returncode == 130


def test_an_edge_that_cannot_reach_the_hub_says_so_in_a_sentence(app: Path) -> None:
    done = command("edge", "join", "ws://127.0.0.1:9", "app.py", folder=app)
    assert done.returncode == 1
    assert "cannot reach ws://127.0.0.1:9 (nothing listens there)" in done.stderr
    assert "Traceback" not in done.stderr


def _mistakes() -> dict[str, tuple[list[str], dict[str, str], int, str]]:
    return {
        "no app": (["serve"], {}, 2, "which app?"),
        "unknown app": (["serve", "digit", "--port", "0"], {}, 2, "did you mean 'digits'?"),
        "unknown flag": (["serve", "app.py", "--round", "3"], {}, 2, "Unknown option"),
        "impossible flag": (["serve", "app.py", "--rounds", "0"], {}, 2, "--rounds = 0 is impossible"),
        "not a number": (["serve", "app.py", "--rounds", "many"], {}, 2, "many"),
        "unknown variable": (["serve", "app.py"], {"FEDHUB_ROUNDZ": "3"}, 2, "did you mean 'rounds'?"),
        "impossible variable": (
            ["serve", "app.py"],
            {"FEDHUB_LR": "fast"},
            2,
            "FEDHUB_LR = 'fast' is impossible: expected a number",
        ),
        "unknown key in the file": (["serve", "app.py", "--config", "typo.toml"], {}, 2, "did you mean 'deadline'?"),
        "wrong type in the file": (["serve", "app.py", "--config", "type.toml"], {}, 2, "rounds"),
        "broken file": (["serve", "app.py", "--config", "broken.toml"], {}, 2, "is not TOML"),
        "no file": (["serve", "app.py", "--config", "none.toml"], {}, 2, "cannot read none.toml"),
        "unknown algorithm": (["serve", "app.py", "--algorithm", "fedavgg", "--port", "0"], {}, 2, "'fedavg'"),
        "app without a model": (["serve", "modelless.py", "--port", "0"], {}, 2, "no @app.model"),
        "app that fails": (["serve", "broken.py", "--port", "0"], {}, 2, "broken.py line 1"),
        "complex model": (["serve", "complex.py", "--port", "0"], {}, 2, "complex"),
        "no such run": (["serve", "--resume", "runs/none"], {}, 2, "is not a run folder"),
        "option without a value": (["serve", "app.py", "--set", "net"], {}, 2, "name=value"),
        "data set absent": (["check", "mnist", "--set", "root=nowhere"], {}, 2, "nowhere"),
        "not an address": (["watch", "ftp://x"], {}, 2, "not the address of a hub"),
        "no hub there": (["watch", "ws://127.0.0.1:9"], {}, 1, "nothing listens there"),
    }


@pytest.mark.parametrize("mistake", _mistakes())
def test_a_mistake_is_told_in_a_sentence_with_its_exit_code(app: Path, mistake: str) -> None:
    (app / "typo.toml").write_text("deadlin = 3\n")
    (app / "type.toml").write_text('rounds = "three"\n')
    (app / "broken.toml").write_text("rounds = = 3\n")
    (app / "modelless.py").write_text("from edge import App\napp = App()\n@app.data\ndef data(): ...\n")
    (app / "broken.py").write_text("import nothing_of_that_name\n")
    (app / "complex.py").write_text(APP.replace("torch.nn.Linear(2, 2)", "torch.nn.Linear(2, 2, dtype=torch.cfloat)"))
    arguments, environment, code, sentence = _mistakes()[mistake]
    done = command("hub", *arguments, folder=app, **environment)
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == "" or arguments[0] == "check"  # which says what it found until then
    assert len(done.stderr.strip().splitlines()) <= 8, done.stderr


def test_a_port_that_is_taken_is_named_with_another_to_try(app: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command("hub", "serve", "app.py", "--port", str(port), folder=app)
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert f"--port {port + 1}" in done.stderr
    assert not (app / "runs").exists()


def test_a_run_of_another_model_is_not_resumed_and_not_harmed(app: Path) -> None:
    with started("hub", "serve", "app.py", "--port", "0", "--name", "one", "--no-evaluator", folder=app) as hub:
        line_with(hub, "WaitingForEdges")
        hub.terminate()
        hub.communicate(timeout=20)
    before = {path: path.read_bytes() for path in (app / "runs" / "one").rglob("*") if path.is_file()}
    (app / "other.py").write_text(APP.replace("Linear(2, 2)", "Linear(2, 2, bias=False)"))
    done = command("hub", "serve", "other.py", "--port", "0", "--resume", "runs/one", folder=app)
    assert done.returncode == 2
    assert "is a run of another model" in done.stderr
    assert {path: path.read_bytes() for path in before} == before


def test_config_show_says_every_value_and_where_it_came_from(app: Path) -> None:
    (app / "fedhub.toml").write_text("rounds = 7\nlr = 0.5\n")
    done = command("hub", "config", "show", "--json", "--rounds", "9", folder=app, FEDHUB_BATCH="8")
    shown = json.loads(done.stdout)
    assert shown["rounds"] == {"value": 9, "from": "flag"}
    assert shown["lr"] == {"value": 0.5, "from": "fedhub.toml"}
    assert shown["batch"]["value"] == 8
    assert shown["deadline"]["from"] == "default"


def test_help_comes_fast() -> None:
    took = []
    for module in ("hub", "edge") * 3:
        began = time.perf_counter()
        done = command(module, "--help", folder=Path.cwd())
        took.append(time.perf_counter() - began)
        assert done.returncode == 0
    assert min(took) < 0.6, took


async def test_watch_follows_a_running_hub(app: Path) -> None:
    from tests.support.federation import Adder, agent, edges, running_hub

    async with running_hub(app, rounds=2) as hub:
        url = f"{hub.url}#{hub.hub.access.keys.guest}"
        watcher = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "hub", "watch", url, "--log", "pretty", stderr=asyncio.subprocess.PIPE
        )
        assert watcher.stderr is not None
        await watcher.stderr.readuntil(b"rounds")  # it has joined and shows the run
        async with edges(agent(hub.url, "a", Adder())):
            await hub.ended()
        rest = (await watcher.stderr.read()).decode()
        assert await watcher.wait() == 0
    assert "round   1" in rest
    assert "round   2" in rest


def test_a_watcher_whose_hub_is_killed_says_which_and_what_to_try(app: Path) -> None:
    with started("hub", "serve", "app.py", "--port", "0", "--no-evaluator", folder=app) as hub:
        url = line_with(hub, "listening on").split()[-1]
        line_with(hub, "WaitingForEdges")
        key = json.loads((app / "runs" / "keys.json").read_text())["guest"]
        with started("hub", "watch", f"{url}#{key}", "--log", "json", folder=app) as watcher:
            line_with(watcher, "WaitingForEdges")
            hub.kill()
            _, err = watcher.communicate(timeout=20)
    assert watcher.returncode == 1
    assert f"fedhub: lost the hub at {url} (the line was cut). Is it still running?" in err
    assert key not in err
