"""What keeping accepted updates on disk costs: `python -m tests.benchmarks.durability`."""

import argparse
import asyncio
import statistics
import tempfile
from pathlib import Path

import numpy as np

from hub.events import RoundClosed
from tests.support.federation import Adder, agent, edges, running_hub


async def seconds(folder: Path, *, durability: str, count: int, parameters: int, rounds: int) -> float:
    """Give the median seconds of a round of `count` edges that add a constant to a model of `parameters`."""
    model = {"w": np.zeros(parameters, np.float32)}
    settings = {"durability": durability, "name": durability, "rounds": rounds, "wait_for": count, "deadline": 600.0}
    async with running_hub(folder, model=model, **settings) as hub:
        async with edges(*(agent(hub.url, f"edge-{index}", Adder()) for index in range(count))):
            await hub.ended()
    return statistics.median(fact.seconds for fact in hub.all(RoundClosed))


async def compare(*, count: int, parameters: int, rounds: int, repeats: int) -> None:
    """Measure both in turn, and print a table."""
    took: dict[str, list[float]] = {"round": [], "update": []}
    for _ in range(repeats):
        for durability in took:
            with tempfile.TemporaryDirectory() as folder:
                took[durability].append(
                    await seconds(
                        Path(folder), durability=durability, count=count, parameters=parameters, rounds=rounds
                    )
                )
    base, safe = statistics.median(took["round"]), statistics.median(took["update"])
    print(f"{count} edges x {parameters:,} float32, {repeats} runs of {rounds} rounds, hub and edges in one process")
    print(f"durability round    {base * 1e3:8.1f} ms a round")
    print(f"durability update   {safe * 1e3:8.1f} ms a round   {safe / base:.2f} x")


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edges", type=int, default=10)
    parser.add_argument("--parameters", type=int, default=1_663_370)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    asyncio.run(compare(count=chosen.edges, parameters=chosen.parameters, rounds=chosen.rounds, repeats=chosen.repeats))


if __name__ == "__main__":
    main()
