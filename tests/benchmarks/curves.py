"""How well runs learn, held to what they must reach: `python -m tests.benchmarks.curves ROW ... --data FOLDER`.

A ROW is a name from `ROWS`, or a pattern like 'shards-*'. FOLDER has MNIST/raw; rows of digits need none. For each run
and each of the --seeds it prints the command, what came of it and what it must reach, and it ends with code 1 if a run
misses that. Most take less than a minute; `shards` and `fedsgd` take two, `cnn` ten.
"""

import argparse
import fnmatch
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import nan
from pathlib import Path

from tests.support.federation import events_of

ROOT = Path(__file__).parents[2]


def last(accuracies: list[float]) -> float:
    """Give the accuracy at the end: for a run with a target, the one that reached it."""
    return accuracies[-1]


@dataclass(frozen=True)
class Played:
    """What came of a run."""

    accuracies: list[float]
    """After each round that was measured."""
    seconds: float
    closing: str
    """Why the run ended, and what the command said of it."""


@dataclass(frozen=True)
class Row:
    """A run, and the accuracy that it must have."""

    flags: str
    """What is typed after `fedhub demo`; FOLDER stands for that of the data."""
    least: float = 0.0
    most: float = 1.0
    figure: Callable[[list[float]], float] = last
    """Makes one figure of the accuracies after each round."""

    @property
    def wanted(self) -> str:
        """What the figure must be, in words."""
        return f"at least {self.least:.1%}" if self.least else f"at most {self.most:.1%}"

    def command(self, *, data: str = "FOLDER", seed: int) -> list[str]:
        """Give the command line."""
        words = ("fedhub", "demo", *shlex.split(self.flags), "--seed", str(seed))
        return [word.replace("FOLDER", data) for word in words]

    def reached(self, played: Played) -> bool:
        """Tell whether a run is as good, or as bad, as it must be."""
        return self.least <= self.figure_of(played) <= self.most

    def figure_of(self, played: Played) -> float:
        """Give the one accuracy that counts; NaN where nothing was measured."""
        return self.figure(played.accuracies or [nan])


_ONE_STEP = "--epochs 1 --batch 10"
_MNIST = "mnist --set root=FOLDER --profile instant --deadline 60 --no-compare"
_MANY = f"{_MNIST} --edges 100 --fraction 0.1"
_SHARDS = f"{_MANY} --set partition=shards:2 {_ONE_STEP} --lr 0.05"
_SEVEN_OF_TEN = "--edges 10 --profile instant:7,hostile:3 --fraction 1 --rounds 10 --no-compare"
_HOSTILE = f"mnist --set root=FOLDER {_SEVEN_OF_TEN} --deadline 60 {_ONE_STEP} --lr 0.1"
_DIGITS = f"digits --set partition=iid {_SEVEN_OF_TEN} --deadline 30"


def _shards(algorithm: str, least: float) -> Row:
    return Row(f"{_SHARDS} --rounds 100 --algorithm {shlex.quote(algorithm)}", least, figure=max)


def _hostile(algorithm: str, least: float) -> Row:
    return Row(f"{_HOSTILE} --algorithm {shlex.quote(algorithm)}", least)


ROWS = {
    "softmax": Row(
        f"{_MNIST} --set net=linear --edges 10 --fraction 1 --epochs 1 --batch 64 --lr 0.01 --rounds 20", 0.91
    ),
    "2nn": Row(f"{_MANY} {_ONE_STEP} --lr 0.1 --rounds 35 --target 0.97", 0.97),
    "2nn-e5": Row(f"{_MANY} --epochs 5 --batch 10 --lr 0.1 --rounds 20 --target 0.97", 0.97),
    "fedsgd": Row(f"{_MANY} --algorithm fedsgd --lr 0.5 --rounds 600 --target 0.97", 0.97),
    "shards": Row(f"{_SHARDS} --rounds 320 --target 0.97", 0.97),
    "shards-fedavg": _shards("fedavg", 0.945),
    "shards-fedprox": _shards("fedprox(mu=0.1)", 0.942),
    "shards-scaffold": _shards("scaffold", 0.955),
    "shards-fedavgm": _shards("fedavgm(server_lr=0.5)", 0.957),
    "shards-fedadam": _shards("fedadam", 0.958),
    "shards-fedyogi": _shards("fedyogi", 0.958),
    "shards-fedadagrad": _shards("fedadagrad(server_lr=0.03, beta1=0.9)", 0.96),
    "cnn": Row(
        "mnist --set root=FOLDER --set net=cnn --profile instant --edges 100 --fraction 0.1 --deadline 600 "
        f"--evaluation-deadline 600 --no-compare {_ONE_STEP} --lr 0.1 --rounds 30 --target 0.99",
        0.99,
    ),
    "hostile-mean": Row(f"{_HOSTILE} --algorithm fedavg", most=0.3),
    "hostile-median": _hostile("median", 0.945),
    "hostile-trimmed": _hostile("trimmed_mean(f=3)", 0.945),
    "hostile-multikrum": _hostile("multi_krum(f=3)", 0.955),
    "hostile-geometric": _hostile("geometric_median", 0.945),
    "digits-mean": Row(f"{_DIGITS} --algorithm fedavg", most=0.3),
    "digits-trimmed": Row(f"{_DIGITS} --algorithm 'trimmed_mean(f=3)'", 0.9),
    "wisdm": Row(
        f"wisdm --set root=FOLDER --edges 36 --profile instant --deadline 60 --fraction 0.3 {_ONE_STEP}", 0.77
    ),
}


def play(row: Row, *, data: str = "FOLDER", seed: int) -> Played:
    """Run a row's command in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        # Where a run is kept says nothing about it, so it is no part of the command.
        kept = {"FEDHUB_RUNS": folder, "FEDHUB_NAME": "row", "PYTHONPATH": str(ROOT)}
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "hub", *row.command(data=data, seed=seed)[1:]],
            cwd=folder,
            env={**os.environ, **kept},
            capture_output=True,
            text=True,
            check=False,  # a model that is driven away may end its run: what was measured until then is the result
        )
        seconds = time.monotonic() - began
        facts = events_of(Path(folder, "row")) if Path(folder, "row", "events.jsonl").exists() else []
    measured = [fact["metrics"] for fact in facts if fact["event"] == "RoundClosed" and fact["metrics"]]
    ended = [str(fact["reason"]) for fact in facts if fact["event"] == "RunEnded"]
    said = [line for line in done.stderr.splitlines() if line.startswith(("federated", "fedhub: "))]
    return Played([float(metrics["accuracy"]) for metrics in measured], seconds, "; ".join(ended + said))


def main() -> int:
    """Play the rows one after the other; tell whether all reach what they must."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="+", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--data", default="FOLDER", help="folder with MNIST/raw")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    chosen = parser.parse_args()
    names = [name for pattern in chosen.rows for name in fnmatch.filter(ROWS, pattern) or [pattern]]
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"there is no row {unknown[0]!r}; there are {', '.join(ROWS)}")
    missed = 0
    for name in names:
        row = ROWS[name]
        for seed in chosen.seeds:
            print(shlex.join(row.command(data=chosen.data, seed=seed)), flush=True)
            played = play(row, data=str(Path(chosen.data).resolve()), seed=seed)
            missed += not row.reached(played)
            found = f"{row.figure_of(played):.2%} in {len(played.accuracies)} rounds, {row.wanted}"
            verdict = "reached" if row.reached(played) else "MISSED"
            print(f"{name}, seed {seed}: {found}: {verdict} ({played.seconds:.0f} s; {played.closing})\n", flush=True)
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
