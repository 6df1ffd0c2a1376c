"""What edges cost that have nothing to do: `python -m tests.benchmarks.idle`."""

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time

from hub.config import Layer
from hub.events import EdgeJoined, RunStarted
from hub.runs import Contract, Wishes
from hub.server import Hub
from shared.errors import LinkClosed
from shared.link import Link, connect
from shared.messages import Hello, Ready, Role, ToEdge
from tests.benchmarks.stage import cpu, fresh_peak, model_of_zeros, peak, resident

_TICK = 0.005
_AT_A_TIME = 100


async def play_hub(count: int, seconds: float) -> None:
    """Be the hub: tell where it listens, and when all are here, what they cost."""

    async def ask(wishes: Wishes) -> Contract:
        return Contract("benchmark", {}, has_test=False, model=model_of_zeros(10))

    with tempfile.TemporaryDirectory() as folder:
        settings = {"port": 0, "runs": folder, "name": "run", "log": "json", "wait_for": count + 1}
        wishes = Wishes(layers=(Layer("benchmark", settings),), app="benchmark", evaluator=False)
        hub = Hub(wishes, ask=ask)
        follower = hub.feed.follow(room=100_000)
        life = asyncio.create_task(hub.serve())
        url = await hub.url
        async for stamped in follower:
            if isinstance(stamped.fact, RunStarted):
                break
        start = fresh_peak()
        print(json.dumps({"url": url}), flush=True)
        began = time.monotonic()
        async for stamped in follower:
            if isinstance(stamped.fact, EdgeJoined) and stamped.fact.here == count:
                break
        joined = time.monotonic() - began
        each = (resident() - start) / count
        spent = cpu()
        await asyncio.sleep(seconds)
        share = (cpu() - spent) / seconds
        worst = await worst_stall(seconds)  # after it: looking 200 times a second takes 1 % of a core itself
        print(
            json.dumps(
                {"joined": joined, "each": each, "peak": (peak() - start) / count, "share": share, "worst": worst}
            ),
            flush=True,
        )
        hub.stop()
        await life


async def worst_stall(seconds: float) -> float:
    """Tell how late the event loop was at worst with something that was due, in seconds."""
    clock = asyncio.get_running_loop().time
    end, worst = clock() + seconds, 0.0
    while (due := clock() + _TICK) < end:
        await asyncio.sleep(_TICK)
        worst = max(worst, clock() - due)
    return worst


async def play_edges(url: str, count: int) -> None:
    """Be edges that join and do nothing until the hub says goodbye."""

    async def join(index: int) -> Link[ToEdge]:
        link = await connect(url)
        await link.send(Hello(versions=(1,), edge=f"edge-{index:05d}", role=Role.TRAINER))
        await link.receive()
        await link.send(Ready(examples=1, data_bytes=4))
        return link

    links: list[Link[ToEdge]] = []
    for start in range(0, count, _AT_A_TIME):
        some = range(start, min(start + _AT_A_TIME, count))
        links += await asyncio.gather(*(join(index) for index in some))
    with contextlib.suppress(LinkClosed):  # whose goodbye comes first does not matter
        await links[0].receive()
    for link in links:
        link.abort()


def measure(count: int, seconds: float) -> dict[str, float]:
    """Have `count` edges idle for twice `seconds`."""
    command = [sys.executable, "-m", "tests.benchmarks.idle", "--edges", str(count)]
    with subprocess.Popen(
        [*command, "--seconds", str(seconds), "--play", "hub"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as hub:
        assert hub.stdout is not None
        url = json.loads(hub.stdout.readline())["url"]
        with subprocess.Popen([*command, "--play", url]) as edges:
            seen: dict[str, float] = json.loads(hub.stdout.readline())
            hub.wait()
            with contextlib.suppress(ProcessLookupError):
                edges.kill()
    return seen


def main() -> None:
    """Print what an idle edge costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edges", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--play", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.play:
        playing = (
            play_hub(chosen.edges, chosen.seconds) if chosen.play == "hub" else play_edges(chosen.play, chosen.edges)
        )
        asyncio.run(playing)
        return
    seen = measure(chosen.edges, chosen.seconds)
    print(f"{chosen.edges:,} idle edges, watched for {2 * chosen.seconds:g} s")
    print(f"memory             {seen['each'] / 1e3:8.1f} kB each ({seen['peak'] / 1e3:.1f} at most)")
    print(f"joined             {chosen.edges / seen['joined']:8.0f} a second")
    print(f"processor          {seen['share'] * 100:8.1f} % of a core")
    print(f"worst loop stall   {seen['worst'] * 1e3:8.1f} ms")


if __name__ == "__main__":
    main()
