"""What open pages cost a round: the same run with and without them, in turn: `python -m tests.benchmarks.pages`."""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from hub.keys import read_keys
from shared.errors import FedhubError
from shared.messages import Goodbye
from tests.benchmarks.stage import PARAMETERS, hub
from tests.support.viewers import Viewer, viewer

_BLOCK = 3.0  # seconds with pages, and as many without
_CASES = ((10, PARAMETERS, 500), (50, PARAMETERS, 120), (10, 10_000, 4000), (300, 10_000, 400))


@dataclass(frozen=True)
class Block:
    """A while in which all pages were open, or none was."""

    pages: bool
    began: float
    ended: float
    cpu: float
    """Processor seconds that the hub took meanwhile."""


@dataclass(frozen=True)
class Cost:
    """What a round took."""

    seconds: float
    cpu: float


async def look(url: str, key: str, hub: int, pages: int) -> list[Block]:
    """Be so many pages, for one block in two, until the hub stops."""
    blocks = list[Block]()
    try:
        while True:
            async with AsyncExitStack() as stack:
                count = pages if len(blocks) % 2 else 0
                open_ = [await stack.enter_async_context(viewer(url, key)) for _ in range(count)]
                reading = [asyncio.create_task(_read(one)) for one in open_]
                await asyncio.sleep(0.5)  # they are shown the whole board first
                began, spent = time.monotonic(), _cpu(hub)
                await asyncio.sleep(_BLOCK)
                blocks.append(Block(count > 0, began, time.monotonic(), _cpu(hub) - spent))
                for task in reading:
                    task.cancel()
                await asyncio.gather(*reading, return_exceptions=True)
    except (FedhubError, OSError):
        return blocks  # the hub has stopped


async def _read(one: Viewer) -> None:
    """Take what a page is shown and do nothing with it: a browser would be on another machine."""
    with suppress(FedhubError):
        while not isinstance((await one.link.receive()).message, Goodbye):
            pass


def _cpu(process: int) -> float:
    """Give the processor seconds of a process."""
    user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def measure(edges: int, parameters: int, rounds: int, pages: int) -> tuple[Cost, Cost]:
    """Play a run; give what its rounds took without pages, and with them."""
    with tempfile.TemporaryDirectory() as folder:
        with hub(folder, parameters, rounds, wait_for=edges) as (url, process):
            while (keys := read_keys(Path(folder))) is None:
                time.sleep(0.05)
            this = [sys.executable, "-m", "tests.benchmarks.pages", "--look", url, keys.guest, str(process.pid)]
            looking = subprocess.Popen([*this, "--pages", str(pages)], stdout=subprocess.PIPE)
            stage = [sys.executable, "-m", "tests.benchmarks.stage"]
            subprocess.run([*stage, "edges", url, str(edges), str(parameters)], stdout=subprocess.DEVNULL, check=True)
            assert process.stdout is not None
            seen = json.loads(process.stdout.readline())
            process.wait()
        blocks = [Block(*one) for one in json.loads(looking.communicate()[0])]
    return _cost(seen, blocks, pages=False), _cost(seen, blocks, pages=True)


def _cost(seen: dict[str, list[float]], blocks: list[Block], *, pages: bool) -> Cost:
    """Give what a round took in the blocks of one kind: the median, and the processor's mean."""
    chosen = [block for block in blocks if block.pages is pages]
    ends = [asked + seconds for asked, seconds in zip(seen["asked"], seen["seconds"], strict=True)]
    inside = [
        seconds
        for seconds, end in zip(seen["seconds"], ends, strict=True)
        if any(block.began <= end - seconds and end <= block.ended for block in chosen)
    ]
    share = sum(block.began <= end <= block.ended for block in chosen for end in ends)
    return Cost(statistics.median(inside), sum(block.cpu for block in chosen) / share)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--look", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.look:
        url, key, process = chosen.look
        blocks = asyncio.run(look(url, key, int(process), chosen.pages))
        print(json.dumps([[one.pages, one.began, one.ended, one.cpu] for one in blocks]))
        return
    print(
        f"{'edges x float32':>20}{'no page':>12}{f'{chosen.pages} pages':>12}{'change':>9}{'hub CPU':>12}{'change':>9}"
    )
    for edges, parameters, rounds in _CASES:
        pairs = [measure(edges, parameters, rounds, chosen.pages) for _ in range(chosen.repeats)]
        time_ = statistics.median(with_.seconds / without.seconds - 1 for without, with_ in pairs)
        work = statistics.median(with_.cpu / without.cpu - 1 for without, with_ in pairs)
        without, with_ = (statistics.median(one.seconds for one in side) for side in zip(*pairs, strict=True))
        cpu = statistics.median(one.cpu for one, _ in pairs)
        print(
            f"{f'{edges} x {parameters:,}':>20}{without * 1e3:10.1f}ms{with_ * 1e3:10.1f}ms{time_ * 100:+8.1f}%"
            f"{cpu * 1e3:10.2f}ms{work * 100:+8.1f}%",
            flush=True,
        )


if __name__ == "__main__":
    main()
