"""Flower beside Fedhub: the same rounds with Flower, in an environment and in processes of its own (Linux).

All clients take part in every round of FedAvg, nobody evaluates, the model is one float32 array, a client's training
adds one to it. A round lasts from the end of one aggregation to the end of the next.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.flower.within import gauge

VERSION = "1.42.0"
PATIENCE = 900.0  # seconds that one measurement may take, start and end included
WITHIN = Path(__file__).parent / "within"

APP = """\
[project]
name = "fedhub-benchmark"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "fedhub"

[tool.flwr.app.components]
serverapp = "app:server"
clientapp = "app:client"

[tool.flwr.app.config]
edges = {edges}
parameters = {parameters}
rounds = {rounds}
report = "{report}"
"""

CONNECTION = """\
[superlink]
default = "benchmark"

[superlink.benchmark]
address = "127.0.0.1:{port}"
insecure = true
"""


class FlowerFailed(RuntimeError):
    """Flower could not be installed or measured; the message says why in a plain sentence."""


@dataclass(frozen=True)
class Measured:
    """What a round cost Flower."""

    seconds: float  # median seconds a round, the first left out
    cpu: float  # CPU seconds of all of Flower's processes a round, server and clients, the first round left out
    peak: int  # peak resident bytes of the server above its start, the model included


def environment() -> Path:
    """Give the Python of a virtual environment with Flower, which the first call makes."""
    cache = os.environ.get("FEDHUB_BENCHMARKS") or Path.home() / ".cache" / "fedhub-benchmarks"
    folder = Path(cache).absolute() / f"flower-{VERSION}"
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists():
        return python
    try:
        shutil.rmtree(folder, ignore_errors=True)
        _run(sys.executable, "-m", "venv", folder)
        install = (python, "-m", "pip", "install", "--disable-pip-version-check")
        _run(*install, "--no-deps", f"flwr=={VERSION}")
        # Flower 1.42.0 asks for a release of certifi, the authorities that TLS trusts, that not every index has: the
        # newest there is replaces it, as nothing here uses TLS. All else is what Flower asks for.
        listing = _run(python, "-c", "from importlib.metadata import requires; print(*requires('flwr'), sep='\\n')")
        needs = [need for need in listing.splitlines() if "extra ==" not in need]
        _run(*install, *("certifi" if need.startswith("certifi") else need for need in needs))
        ready.touch()
    except (OSError, subprocess.SubprocessError) as error:
        said = (error.stderr if isinstance(error, subprocess.CalledProcessError) else "") or str(error)
        said = said.strip().splitlines()[-1]
        raise FlowerFailed(f"Flower {VERSION} could not be installed in {folder}: {said}") from error
    return python


def grpc(*, edges: int, parameters: int, rounds: int) -> Measured:
    """Measure the deprecated path, `start_server` and `start_client`: a server process, and one of all clients."""
    with _measuring("gRPC path", edges=edges, parameters=parameters, rounds=rounds) as flower:
        port, script = _free_ports(1)[0], WITHIN / "bidi.py"
        sizes = ("--edges", edges, "--parameters", parameters, "--rounds", rounds, "--report", flower.report)
        server = flower.start("python", script, "server", "--address", f"127.0.0.1:{port}", *sizes)
        flower.reachable(port, server)
        flower.start("python", script, "clients", "--address", f"127.0.0.1:{port}", *sizes)
        flower.wait(server)
        return flower.measured()


def deployment(*, edges: int, parameters: int, rounds: int) -> Measured:
    """Measure the current path as its guide runs it on one machine: a SuperLink, SuperNodes and `flwr run`.

    All defaults stay, polling and a process for each app included, but dependencies are not looked up at the start.
    The server is the SuperLink and the ServerApp: `peak` is the sum of theirs.
    """
    with _measuring("deployment path", edges=edges, parameters=parameters, rounds=rounds) as flower:
        port, *ports = _free_ports(1 + edges)
        shutil.copytree(WITHIN, flower.folder / "app", ignore=shutil.ignore_patterns("__pycache__", "bidi.py"))
        settings = APP.format(edges=edges, parameters=parameters, rounds=rounds, report=flower.report)
        (flower.folder / "app" / "pyproject.toml").write_text(settings)
        (flower.folder / "config.toml").write_text(CONNECTION.format(port=port))
        superlink = flower.start(
            "flower-superlink", "--insecure", "--port", port, "--disable-runtime-dependency-installation"
        )
        flower.reachable(port, superlink)
        start = gauge.memory("VmRSS", superlink.pid)
        for own in ports:
            flower.start("flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}", "--port", own)
        flower.wait(flower.start("flwr", "run", flower.folder / "app", "benchmark", "--stream"))
        return flower.measured(beside=gauge.memory("VmHWM", superlink.pid) - start)


class _Flower:
    """One measurement: its folder, its processes, and its deadline."""

    def __init__(self, what: str, folder: Path) -> None:
        self.what = what
        self.folder = folder
        self.report = folder / "report.json"
        self.log = folder / "log"
        self.mark = uuid.uuid4().hex
        self.bin = environment().parent
        self.deadline = time.monotonic() + PATIENCE
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, program: str, *arguments: object) -> subprocess.Popen[bytes]:
        """Start a program of Flower's environment, all it says going to the log."""
        given = {
            "FLWR_HOME": str(self.folder),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            gauge.MARK: self.mark,
        }
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [self.bin / program, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={key: value for key, value in os.environ.items() if not key.startswith("PYTHON")} | given,
            )
        self.processes.append(process)
        return process

    def reachable(self, port: int, process: subprocess.Popen[bytes]) -> None:
        """Wait until a process listens at its port."""
        while process.poll() is None and time.monotonic() < self.deadline:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise self.failed("its server did not start")

    def wait(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until a process ends, or another one fails before."""
        while process.poll() is None:
            if any(each.poll() for each in self.processes):
                raise self.failed("one of its processes ended early")
            if time.monotonic() > self.deadline:
                raise self.failed(f"it was not done within {PATIENCE:.0f} seconds")
            time.sleep(0.05)

    def measured(self, *, beside: int = 0) -> Measured:
        """Give what the server reported, with the peak of a second server process added."""
        if not self.report.exists():
            raise self.failed("it ended without a result")
        report = json.loads(self.report.read_text())
        return Measured(seconds=report["seconds"], cpu=report["cpu"], peak=report["peak"] + beside)

    def failed(self, why: str) -> FlowerFailed:
        """Give the error to raise, with the last that Flower said."""
        said = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return FlowerFailed("\n".join([f"Flower's {self.what} failed: {why}. Its last words:", *said[-12:]]))

    def end(self) -> None:
        """Kill whatever still runs, until nothing is left, and collect it."""
        while left := gauge.marked(self.mark):
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.05)
        for process in self.processes:
            process.wait()


@contextlib.contextmanager
def _measuring(path: str, *, edges: int, parameters: int, rounds: int) -> Iterator[_Flower]:
    if rounds < 2:
        raise ValueError("the first round is left out, so it takes two at least")
    with tempfile.TemporaryDirectory(prefix="fedhub-flower-") as folder:
        flower = _Flower(f"{path} with {edges} clients x {parameters:,} parameters", Path(folder))
        try:
            yield flower
        finally:
            flower.end()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout
