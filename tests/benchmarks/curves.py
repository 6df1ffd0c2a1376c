"""How good each algorithm gets on edges of unlike data: `python -m tests.benchmarks.curves --data FOLDER`.

The 2NN of McMahan et al. 2017 on MNIST, 100 edges with two shards each, a tenth of them asked in a round, E = 1,
B = 10, lr 0.05; the best accuracy in 100 rounds. FOLDER has MNIST/raw. Half a minute for each algorithm and seed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

TO_REACH = {
    "fedavg": 0.945,
    "fedavgm(server_lr=0.5)": 0.957,
    "fedadam": 0.958,
    "fedyogi": 0.958,
    "fedadagrad(server_lr=0.03, beta1=0.9)": 0.96,
}
"""What is run if nothing else is said, and the least that is expected of it."""


def best(algorithm: str, *, data: str, seed: int, rounds: int) -> float:
    """Play a run; give its best accuracy."""
    with tempfile.TemporaryDirectory() as folder:
        command = (
            *("demo", "mnist", "--set", f"root={data}", "--set", "partition=shards:2", "--edges", "100"),
            *("--profile", "instant", "--deadline", "60", "--rounds", str(rounds), "--lr", "0.05", "--seed", str(seed)),
            *("--no-compare", "--algorithm", algorithm, "--runs", folder, "--name", "curve"),
        )
        subprocess.run([sys.executable, "-m", "hub", *command], check=True, stderr=subprocess.PIPE)
        facts = [json.loads(line)["fact"] for line in (Path(folder) / "curve" / "events.jsonl").open(encoding="utf-8")]
    return max(float(fact["metrics"]["accuracy"]) for fact in facts if fact["event"] == "RoundClosed")


def main() -> None:
    """Run them one after the other, and print a row as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("algorithms", nargs="*", default=list(TO_REACH))
    parser.add_argument("--data", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rounds", type=int, default=100)
    chosen = parser.parse_args()
    for algorithm in chosen.algorithms:
        found = [best(algorithm, data=chosen.data, seed=seed, rounds=chosen.rounds) for seed in chosen.seeds]
        least = f"   at least {TO_REACH[algorithm]:.1%}" if algorithm in TO_REACH else ""
        print(f"{algorithm:<40} {'  '.join(f'{one:.2%}' for one in found)}{least}", flush=True)


if __name__ == "__main__":
    main()
