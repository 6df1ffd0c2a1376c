"""A real hub and real edges, in a process each, for the benchmarks: what a round takes, in time, memory and work."""

import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from edge.learner import Holdings, Measured, Trained
from hub.config import Layer
from hub.events import RoundClosed, RoundStarted, RunStarted, UpdateAccepted, UpdateRefused
from hub.runs import Contract, Wishes
from hub.server import Hub
from shared.budget import Store
from shared.codec import Frame, encode
from shared.link import connect
from shared.messages import Evaluate, Goodbye, Hello, Ready, Role, Train, Update, Welcome
from shared.snapshot import read_tensors
from shared.tensors import ModelSpec, Tensors
from tests.support.federation import agent

PARAMETERS = 1_663_370  # the CNN of McMahan et al. 2017


@dataclass(frozen=True)
class Seen:
    """What was seen of a run."""

    seconds: list[float]
    """Of each round but the first. Rounds follow each other without a pause, so one lasts from a close to the next."""
    start: int
    """Resident bytes of the hub when its run had begun, its model was in memory, and nobody was there."""
    peak: int
    """The most resident bytes it had from then on."""
    peak_out: int
    """The most it had until it heard the first answer."""
    cpu: float
    """Processor seconds of the hub a round."""
    loop: float
    """The part of them that its event loop took."""
    exact: bool
    """Whether the model is exactly what so many rounds of adding a constant make it."""
    asked: list[float]
    """When each round but the first was opened, on the clock that all processes share."""
    summed: list[list[float]]
    """When each update of these rounds was in the sum."""
    edges_cpu: float = 0.0
    """Processor seconds of all edges a round."""

    @property
    def median(self) -> float:
        """Seconds of a round."""
        return statistics.median(self.seconds)

    @property
    def above(self) -> float:
        """The peak above the start, in MB."""
        return (self.peak - self.start) / 1e6


@dataclass(frozen=True)
class Crowd:
    """What was seen of a run in which everybody waits for everybody."""

    hub: Seen
    out: list[float]
    """Seconds from the opening of each round until the last edge had the model."""
    back: list[float]
    """Seconds from the moment when all edges began to upload until the last update was in the sum."""
    others: list[float]
    """The same without the slow edges."""


def federation(*, edges: int, parameters: int, rounds: int, **settings: Any) -> Seen:
    """Play `rounds` rounds of `edges` edges that add 1 to `parameters` float32 numbers."""
    seen, far = _play("edges", edges, parameters, rounds + 1, settings)
    return replace(seen, edges_cpu=far["cpu"] / (rounds + 1))


def crowd(*, edges: int, parameters: int, rounds: int, answer: bool = True, slow: int = 0, **settings: Any) -> Crowd:
    """Play rounds in which all edges upload at the same moment, when all have the model.

    Args:
        edges, parameters, rounds: how many.
        answer: whether they upload updates; else all but one say in a few bytes that they have none.
        slow: how many edges have a line of 1 MB/s; they begin first, so that they are let in.
        settings: of the hub.
    """
    few = {} if answer else {"quorum": 0.5 / edges, "log": "json"}
    seen, far = _play("crowd", edges, parameters, rounds + 1, {**few, **settings}, str(int(answer)), str(slow))
    received, began = far["received"][1:], far["began"][1:]
    return Crowd(
        hub=replace(seen, edges_cpu=far["cpu"] / (rounds + 1)),
        out=[last - first for first, last in zip(seen.asked, received, strict=True)],
        back=[max(summed) - first for first, summed in zip(began, seen.summed, strict=True)],
        others=[sorted(summed)[-1 - slow] - first for first, summed in zip(began, seen.summed, strict=True)],
    )


def _play(
    part: str, edges: int, parameters: int, rounds: int, settings: dict[str, Any], *more: str
) -> tuple[Seen, dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        with hub(folder, parameters, rounds, wait_for=edges, **settings) as (url, process):
            arguments = [part, url, str(edges), str(parameters), *more]
            command = [sys.executable, "-m", "tests.benchmarks.stage", *arguments]
            far = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            assert process.stdout is not None
            return Seen(**json.loads(process.stdout.readline())), json.loads(far.stdout.splitlines()[-1])


@contextmanager
def hub(folder: str, parameters: int, rounds: int, **settings: Any) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start a hub in a process of its own; give its URL."""
    chosen = {
        "port": 0, "runs": folder, "name": "run", "log": "json", "rounds": rounds, "deadline": 3600.0,
        "durability": "round", **settings,
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.stage", "hub", json.dumps(chosen), str(parameters)],
        stdout=subprocess.PIPE,
        stderr=(Path(folder) / "log").open("wb"),
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError((Path(folder) / "log").read_text())
        yield json.loads(line)["url"], process
    finally:
        process.terminate()
        process.wait()


async def play_hub(settings: dict[str, Any], parameters: int) -> None:
    """Be the hub."""

    async def ask(wishes: Wishes) -> Contract:
        return Contract("benchmark", {}, has_test=False, model=model_of_zeros(parameters))

    wishes = Wishes(layers=(Layer("benchmark", settings),), app="benchmark", evaluator=False)
    server = Hub(wishes, ask=ask, now=time.monotonic)
    follower = server.feed.follow(room=1_000_000)
    life = asyncio.create_task(server.serve())
    asked, closed = list[float](), list[float]()
    summed: list[list[float]] = []
    start, peak_out, began, loop_began = 0, 0, 0.0, 0.0
    async for stamped in follower:
        match stamped.fact:
            case RunStarted():
                start = fresh_peak()
                print(json.dumps({"url": await server.url}), flush=True)
            case RoundStarted():
                asked.append(stamped.time)
                summed.append([])
            case UpdateRefused():
                peak_out = peak_out or peak()
            case UpdateAccepted():
                peak_out = peak_out or peak()
                summed[-1].append(stamped.time)
            case RoundClosed():
                closed.append(stamped.time)
                if len(closed) == 1:
                    began, loop_began = cpu(), thread_cpu()
    await life
    rounds = len(closed) - 1
    seen = Seen(
        seconds=[later - earlier for earlier, later in pairwise(closed)],
        start=start,
        peak=peak(),
        peak_out=peak_out,
        cpu=(cpu() - began) / rounds,
        loop=(thread_cpu() - loop_began) / rounds,
        exact=is_exact(Path(settings["runs"]) / "run" / "model.safetensors", len(closed)),
        asked=asked[1:],
        summed=summed[1:],
    )
    print(json.dumps(asdict(seen)), flush=True)


def model_of_zeros(parameters: int) -> Tensors:
    """Make a model of zeros that is in memory from the start, which `np.zeros` is not."""
    return {"w": np.full(parameters, 0.0, np.float32)}


def is_exact(path: Path, rounds: int) -> bool:
    """Tell whether every number of a model is the number of rounds."""
    return all(bool((array == np.float32(rounds)).all()) for array in read_tensors(path).values())


@dataclass
class Constant:
    """A learner whose training adds 1 to everything, and takes no time: all edges of a process share the answer."""

    answer: Tensors = field(default_factory=dict)

    async def prepare(self, welcome: Welcome) -> Holdings:
        return Holdings(1, 4)

    async def train(self, task: Train, model: Tensors) -> Trained:
        return Trained(self.answer, 1, {"loss": 1.0})

    async def evaluate(self, task: Evaluate, model: Tensors) -> Measured:
        return Measured(0, {})


async def play_edges(url: str, count: int, parameters: int) -> None:
    """Be all edges."""
    learner = Constant({"w": np.ones(parameters, np.float32)})
    began = cpu()
    lives = [agent(url, f"edge-{index}", learner, role=Role.TRAINER).live() for index in range(count)]  # type: ignore[arg-type]
    await asyncio.gather(*lives)
    print(json.dumps({"cpu": cpu() - began}))


class OneForAll(Store):
    """The same memory for all links at once: all receive the same bytes, and nobody keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self._memory = bytearray()

    def take(self, nbytes: int) -> memoryview:
        if len(self._memory) < nbytes:
            self._memory = bytearray(nbytes)
        return memoryview(self._memory)[:nbytes]


async def play_crowd(url: str, count: int, parameters: int, *, answer: bool, slow: int) -> None:
    """Be a crowd: bare links that read a task, wait for each other, and upload at the same moment."""
    spent, store = cpu(), OneForAll()
    spec = ModelSpec.of({"w": np.broadcast_to(np.float32(0), (parameters,))})
    tensors = [np.ones(parameters, np.float32)]
    barrier = asyncio.Barrier(count)
    received, began = list[float](), list[float]()
    encoded: dict[bool, tuple[int, Frame]] = {}

    def update(task: Train, honest: bool) -> Frame:
        """Give an update, encoded once for all; one with no examples is refused, whatever else is in it."""
        if honest not in encoded or encoded[honest][0] != task.round:
            message = Update(
                run=task.run, round=task.round, attempt=task.attempt, model=task.model, spec=spec.digest,
                examples=int(honest), metrics={"loss": 1.0}, seconds=0.0,
            )  # fmt: skip
            encoded[honest] = task.round, encode(message, tensors if honest else ())
        return encoded[honest][1]

    async def one(index: int) -> None:
        link = await connect(slow_url if index < slow else url, store=store)
        await link.send(Hello(versions=(1,), edge=f"edge-{index:04d}", role=Role.TRAINER))
        await link.receive()
        link.expect(spec)
        await link.send(Ready(examples=1, data_bytes=4))
        while True:
            message = (await link.receive()).message
            if isinstance(message, Goodbye):
                return
            if isinstance(message, Train):
                await barrier.wait()
                if index == 0:
                    received.append(time.monotonic())
                await barrier.wait()
                if slow and index >= slow:
                    await asyncio.sleep(0.2)
                if index == slow:
                    began.append(time.monotonic())
                if answer:
                    await link.send(update(message, True))
                    continue
                if index == 0:  # after all others, so that there is nothing but the model in the hub until then
                    await barrier.wait()
                await link.send(update(message, index == 0))
                if index > 0:
                    await barrier.wait()

    async with slow_line(url) as slow_url:
        await asyncio.gather(*(one(index) for index in range(count)))
    print(json.dumps({"cpu": cpu() - spent, "received": received, "began": began}))


@asynccontextmanager
async def slow_line(url: str, rate: float = 1e6) -> AsyncIterator[str]:
    """Give the URL of a line to `url` that carries `rate` bytes a second upwards."""
    parts = urlsplit(url)

    async def carry(source: asyncio.StreamReader, to: asyncio.StreamWriter, pause: float) -> None:
        with suppress(ConnectionError):
            while data := await source.read(16 * 1024):
                to.write(data)
                await to.drain()
                await asyncio.sleep(len(data) * pause)
        to.close()

    async def line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(parts.hostname, parts.port, limit=16 * 1024)
        with suppress(asyncio.CancelledError):  # the end of the measurement
            await asyncio.gather(carry(reader, there[1], 1 / rate), carry(there[0], writer, 0.0))

    server = await asyncio.start_server(line, "127.0.0.1", limit=16 * 1024)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def cpu() -> float:
    """Give this process's processor seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def thread_cpu() -> float:
    """Give this thread's processor seconds."""
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return usage.ru_utime + usage.ru_stime


def fresh_peak() -> int:
    """Have the system forget the peak of this process's memory; give the resident bytes it has now."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident()


def resident() -> int:
    """Give the resident bytes of this process."""
    return _status("VmRSS")


def peak() -> int:
    """Give the most resident bytes since `fresh_peak`."""
    return _status("VmHWM")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["hub", settings, parameters]:
            asyncio.run(play_hub(json.loads(settings), int(parameters)))
        case ["edges", url, count, parameters]:
            asyncio.run(play_edges(url, int(count), int(parameters)))
        case ["crowd", url, count, parameters, answer, slow]:
            asyncio.run(play_crowd(url, int(count), int(parameters), answer=answer == "1", slow=int(slow)))
