"""What open pages cost a round: the same run with and without them, in turn: `python -m tests.benchmarks.pages`."""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from hub.keys import read_keys
from shared.messages import Goodbye
from tests.benchmarks.stage import PARAMETERS, hub
from tests.support.viewers import Viewer, viewer

_BLOCK = 4.0  # seconds with pages, and as many without
_CASES = ((10, PARAMETERS, 400), (50, PARAMETERS, 100), (10, 10_000, 3000), (300, 10_000, 300))


async def look(url: str, key: str, pages: int) -> None:
    """Be so many pages, for one block in two, until the hub stops; print when they were there."""
    spans = list[tuple[float, float]]()
    try:
        while True:
            await asyncio.sleep(_BLOCK)
            async with AsyncExitStack() as stack:
                open_ = [await stack.enter_async_context(viewer(url, key)) for _ in range(pages)]
                looking = [asyncio.create_task(_read(one)) for one in open_]
                began = time.monotonic()
                await asyncio.wait(looking, timeout=_BLOCK, return_when=asyncio.FIRST_EXCEPTION)
                spans.append((began, time.monotonic()))
                for task in looking:
                    task.cancel()
                ended = await asyncio.gather(*looking, return_exceptions=True)
            if not all(isinstance(one, asyncio.CancelledError) for one in ended):
                break
    except Exception:  # noqa: BLE001  # the hub has stopped, in whatever way this connection hears of it
        pass
    print(json.dumps(spans))


async def _read(one: Viewer) -> None:
    """Take what a page is shown and do nothing with it: a browser would be on another machine."""
    while not isinstance((await one.link.receive()).message, Goodbye):
        pass


def measure(edges: int, parameters: int, rounds: int, pages: int) -> tuple[list[float], list[float]]:
    """Play a run; give the seconds of its rounds without pages, and with them."""
    with tempfile.TemporaryDirectory() as folder:
        with hub(folder, parameters, rounds, wait_for=edges) as (url, process):
            while (keys := read_keys(Path(folder))) is None:
                time.sleep(0.05)
            this = [sys.executable, "-m", "tests.benchmarks.pages", "--look", url, keys.guest, "--pages", str(pages)]
            looking = subprocess.Popen(this, stdout=subprocess.PIPE)
            stage = [sys.executable, "-m", "tests.benchmarks.stage"]
            subprocess.run([*stage, "edges", url, str(edges), str(parameters)], stdout=subprocess.DEVNULL, check=True)
            assert process.stdout is not None
            seen = json.loads(process.stdout.readline())
        spans = json.loads(looking.communicate()[0])
    without, with_ = list[float](), list[float]()
    for asked, seconds in zip(seen["asked"], seen["seconds"], strict=True):
        if any(began + 0.5 <= asked and asked + seconds <= ended for began, ended in spans):
            with_.append(seconds)
        elif not any(began - 0.5 <= asked + seconds and asked <= ended + 0.5 for began, ended in spans):
            without.append(seconds)
    return without, with_


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--look", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.look:
        asyncio.run(look(*chosen.look, chosen.pages))
        return
    print(f"{'edges x float32':>20}{'no page':>12}{f'{chosen.pages} pages':>12}{'change':>9}")
    for edges, parameters, rounds in _CASES:
        runs = [measure(edges, parameters, rounds, chosen.pages) for _ in range(chosen.repeats)]
        pairs = [(statistics.median(without), statistics.median(with_)) for without, with_ in runs if without and with_]
        change = statistics.median(with_ / without - 1 for without, with_ in pairs)
        without, with_ = (statistics.median(side) for side in zip(*pairs, strict=True))
        print(
            f"{f'{edges} x {parameters:,}':>20}{without * 1e3:10.1f}ms{with_ * 1e3:10.1f}ms{change * 100:+8.1f}%",
            flush=True,
        )


if __name__ == "__main__":
    main()
