"""Kills a real hub at random instants, again and again: nothing may be lost: `python -m tests.crash`."""

import argparse
import asyncio
import math
import random
import signal
import socket
import sqlite3
import sys
import tempfile
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from edge.learner import Holdings, Measured, Trained
from hub.aggregation.algorithm import Aggregate
from hub.aggregation.catalogue import algorithm
from hub.config import Settings
from hub.journal import Journal
from hub.verify import verify
from shared.exchange import Exchange
from shared.messages import Evaluate, Train, Welcome
from shared.tensors import Tensors, sha256
from tests.support.federation import agent, edges

NAMES = ("ada", "bob", "cyd", "dan", "eve")
FIRST: Tensors = {"w": np.linspace(-1, 1, 5000, dtype=np.float32).reshape(50, 100), "b": np.zeros(7, np.float32)}
SETTINGS = {"rounds": 10**9, "deadline": 3600.0, "wait_for": len(NAMES), "keep_updates": 3}


def difference(edge: str, round: int, model: Tensors) -> Tensors:
    """Give what `edge` learns in `round`: a function of its arguments alone, different for each."""
    dice = np.random.default_rng([round, zlib.crc32(edge.encode())])
    return {
        name: (dice.normal(size=array.shape).astype(np.float32) - array) * np.float32(0.1)
        for name, array in model.items()
    }


@dataclass
class Pure:
    """A learner whose answer can be computed again by anybody."""

    edge: str
    trained: Counter[tuple[int, int]] = field(default_factory=Counter)

    async def prepare(self, welcome: Welcome) -> Holdings:
        return Holdings(10, 0)

    async def train(self, task: Train, model: Tensors) -> Trained:
        self.trained[task.round, task.attempt] += 1
        await asyncio.sleep(random.random() * 0.01)
        return Trained(difference(self.edge, task.round, model), 10 + NAMES.index(self.edge), {"loss": 1.0})

    async def evaluate(self, task: Evaluate, model: Tensors) -> Measured:
        return Measured(0, {})


def undisturbed(rounds: int) -> str:
    """Give the hash of the model after `rounds` rounds in which everybody answered and nothing happened."""
    chosen, model, memory = algorithm("fedavg", Settings()), FIRST, {}
    for round in range(1, rounds + 1):
        state = chosen.aggregation.init(model)
        for weight, edge in enumerate(NAMES, start=10):
            moved = difference(edge, round, model)
            state = chosen.aggregation.accumulate(state, moved, weight, largest=math.inf)  # by the other of two ways
        model, memory = chosen.step(memory, model, Aggregate(chosen.aggregation.finalize(state, model)))
    return sha256(model)


def committed(folder: Path) -> tuple[int, str]:
    """Read the newest committed round and its model's hash from a journal that nobody has open."""
    database = sqlite3.connect(folder / "journal.sqlite")
    try:
        row = database.execute("SELECT number, model FROM round ORDER BY number DESC").fetchone()
    finally:
        database.close()
    return int(row[0]), str(row[1])


@dataclass
class Report:
    """What came of a kill loop."""

    kills: int
    rounds: int
    lost: int
    """Committed rounds that were gone after a restart."""
    trained_twice: int
    same_model: bool
    mid_round: int
    """Kills that hit a round with acknowledged updates in it, which the next hub went on with."""
    proved: int
    """Rounds that `fedhub verify` recomputed at the end."""
    slowest_exit: float
    """Seconds between the signal and the end of the process."""


async def kill_loop(folder: Path, *, kills: int, seed: int, number: signal.Signals = signal.SIGKILL) -> Report:
    """Start a hub and kill it at a random instant, `kills` times and once more; then look at what it left.

    Args:
        folder: for the run.
        kills: how many.
        seed: of the instants.
        number: the signal to send.
    """
    run = folder / "run"
    async with Journal(run) as journal:
        exchange = msgspec.to_builtins(Exchange.plain(FIRST))
        kept = {"app": "", "options": {}, "test": False, "settings": SETTINGS, "exchange": exchange}
        await journal.begin(run="crash", settings=kept, model=FIRST)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    dice, learners = random.Random(seed), [Pure(name) for name in NAMES]
    report = Report(0, 0, 0, 0, same_model=False, mid_round=0, proved=0, slowest_exit=0.0)
    newest, output = 0, ""
    agents = [agent(f"ws://127.0.0.1:{port}", learner.edge, learner) for learner in learners]  # type: ignore[arg-type]
    for one in agents:
        one.patience = type(one.patience)(first=60, again=60, base=0.01, cap=0.05)
    async with edges(*agents) as lives:
        for life in range(kills + 1):
            hub = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "hub", "serve", "--resume", str(run), "--port", str(port)),
                *("--no-evaluator", "--log", "json"),
                stderr=asyncio.subprocess.PIPE,
            )
            reading = asyncio.create_task(hub.communicate())
            # A hub takes a third of a second to begin; the instants lie on both sides of that.
            await asyncio.wait([reading], timeout=dice.uniform(0.2, 1.0) if life < kills else 2.0)
            assert not reading.done(), f"the hub ended by itself:\n{reading.result()[1].decode()}"
            began = time.perf_counter()
            hub.send_signal(number)
            output = (await reading)[1].decode()
            report.slowest_exit = max(report.slowest_exit, time.perf_counter() - began)
            # SIGTERM before the hub has said a word ends Python as it ends any process.
            polite = number is signal.SIGTERM and output != ""
            assert hub.returncode == (0 if polite else -number), output
            assert "Traceback" not in output, output
            report.mid_round += '"event":"RoundReopened"' in output and '"answered":[]' not in output
            found, model = committed(run)
            report.lost += max(0, newest - found)
            newest = found
        assert not any(life.done() for life in lives)
    report.kills, report.rounds = kills, newest
    report.trained_twice = sum(times > 1 for learner in learners for times in learner.trained.values())
    # SIGTERM closes a round with what is in, so only after SIGKILL everybody's answer is in every round.
    report.same_model = number is signal.SIGTERM or model == undisturbed(newest)
    report.proved = sum([verdict.updates > 0 async for verdict in verify(run)])
    return report


def main() -> None:
    """Run the loop and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", default="KILL", choices=["KILL", "TERM"])
    chosen = parser.parse_args()
    number = signal.Signals[f"SIG{chosen.signal}"]
    with tempfile.TemporaryDirectory() as folder:
        report = asyncio.run(kill_loop(Path(folder), kills=chosen.kills, seed=chosen.seed, number=number))
    for name, value in vars(report).items():
        print(f"{name:<14} {value}")
    sys.exit(report.lost > 0 or report.trained_twice > 0 or not report.same_model)


if __name__ == "__main__":
    main()
