"""A swarm of real phones' worth: a hundred connections, of which some are lost in every round."""

import asyncio
import gc
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hub.events import EdgeLeft, RoundAbandoned, RoundClosed
from shared.errors import ExitCode
from tests.support.federation import running_hub

DATA = Path(__file__).parents[3] / "shared" / "data"


@asynccontextmanager
async def fededge(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `fededge` as a process of its own."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "edge", *arguments)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def longest_stall() -> AsyncIterator[list[float]]:
    """Measure how long this event loop was busy at the longest, in seconds: by the wall's clock, and by its own.

    The first counts the turns that other processes take on a busy machine, so only the second can be asserted.
    """
    longest = [0.0, 0.0]

    async def tick() -> None:
        while True:
            wall, own = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0.005)
            longest[0] = max(longest[0], time.perf_counter() - wall - 0.005)
            longest[1] = max(longest[1], time.thread_time() - own)

    # In a process that has run a thousand tests, a full garbage collection takes 0.3 s. A hub has a process of its own,
    # so what is there before it begins is left out of its collections.
    gc.collect()
    gc.freeze()
    ticking = asyncio.create_task(tick())
    try:
        yield longest
    finally:
        ticking.cancel()
        gc.unfreeze()


async def test_a_hundred_phones_of_which_a_tenth_drops_out_each_round_lose_no_round(tmp_path: Path) -> None:
    async with running_hub(tmp_path, app="digits", rounds=30, wait_for=100, epochs=1) as hub:
        swarm = ("swarm", hub.url, "digits", "-n", "100", "--profile", "dropping", "--seed", "3", "--quiet")
        async with fededge(*swarm) as process:
            await hub.until(RoundClosed, round=1)  # everybody has joined
            async with longest_stall() as stall:
                ended = await hub.ended()
            assert await process.wait() == 0
    rounds = hub.all(RoundClosed)
    assert [fact.round for fact in rounds] == list(range(1, 31))
    assert not hub.all(RoundAbandoned)
    assert ended.code is ExitCode.DONE
    drops = sum(fact.reason != "the run is over" for fact in hub.all(EdgeLeft))
    assert drops > 150, "one in ten of a hundred, thirty times"
    wall, own = (seconds * 1e3 for seconds in stall)
    print(f"longest stall {wall:.0f} ms ({own:.0f} ms of its own), {drops} drops, {ended.summary.seconds:.1f} s")
    assert stall[1] < 0.25, f"the hub's event loop was busy for {stall[1]:.3f} s without a pause"


@pytest.mark.skipif(not (DATA / "MNIST" / "raw").is_dir(), reason=f"needs the MNIST files in {DATA / 'MNIST' / 'raw'}")
async def test_the_2nn_of_mcmahan_2017_reaches_97_percent_on_mnist(tmp_path: Path) -> None:
    options = {"root": str(DATA)}
    async with running_hub(
        tmp_path, app="mnist", options=options, rounds=45, wait_for=100, fraction=0.1, target=0.97, lr=0.1, batch=10
    ) as hub:
        flags = ("-n", "100", "--evaluator", "--data", f"root={DATA}", "--quiet")
        async with fededge("swarm", hub.url, "mnist", *flags) as process:
            ended = await hub.ended()
            assert await process.wait() == 0
    assert ended.summary.metrics["accuracy"] >= 0.97, ended.summary
    assert ended.summary.rounds <= 40
