"""A hub in a process of its own, so that its memory, files and event loop can be measured while it is abused."""

import asyncio
import json
import logging
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from shared.tensors import ModelSpec, Tensors
from shared.watch import OF_A_HUB
from tests.support.federation import running_hub

PARAMETERS = 1_660_000
"""Of the CNN of McMahan et al. 2017: 6.64 MB."""

ENDLESS: dict[str, Any] = {"rounds": 10**6, "retries": 10**6, "quorum": 0.01, "deadline": 5.0, "durability": "round"}
"""Settings of a hub that plays on whoever comes and goes."""


def model_of(parameters: int) -> Tensors:
    """Give a model of so many float32."""
    return {"w": np.zeros(parameters, np.float32)}


@dataclass
class HubProcess:
    """What the parent knows of the hub."""

    url: str
    pid: int
    spec: ModelSpec
    process: asyncio.subprocess.Process
    facts: list[dict[str, Any]] = field(default_factory=list)
    noise: list[str] = field(default_factory=list)
    """Lines on stderr that are no facts."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    peak: float = 0.0

    @property
    def rss(self) -> float:
        """Resident memory in MiB."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise ProcessLookupError(self.pid)

    @property
    def files(self) -> int:
        """Open file descriptors."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    async def lag(self) -> tuple[float, float]:
        """Give p99 and maximum of the event loop's lag in milliseconds, since this was asked last."""
        assert self.process.stdin is not None
        before = len(self.all("Lag"))
        self.process.stdin.write(b"lag\n")
        await self.until(lambda: len(self.all("Lag")) > before)
        fact = self.all("Lag")[-1]
        return fact["p99"], fact["max"]

    async def stop(self) -> float:
        """Stop the hub; give the seconds it took."""
        assert self.process.stdin is not None
        began = asyncio.get_running_loop().time()
        self.process.stdin.write(b"stop\n")
        await self.process.wait()
        return asyncio.get_running_loop().time() - began

    def all(self, event: str) -> list[dict[str, Any]]:
        """Give the facts of one kind so far."""
        return [fact for fact in self.facts if fact["event"] == event]

    async def until(self, happened: Callable[[], bool]) -> None:
        """Wait for facts until something has happened."""
        while not happened():
            self.news.clear()
            await self.news.wait()

    async def rounds(self, count: int) -> list[float]:
        """Wait for so many more rounds; give the seconds each took. The one that is open now does not count."""
        before = len(self.all("RoundClosed")) + 1
        await self.until(lambda: len(self.all("RoundClosed")) >= before + count)
        return [fact["seconds"] for fact in self.all("RoundClosed")[before : before + count]]

    async def watch_memory(self) -> None:
        """Note the peak of the resident memory, until cancelled."""
        while True:
            self.peak = max(self.peak, self.rss)
            await asyncio.sleep(0.05)

    async def listen(self) -> None:
        """Take in what the hub says."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            text = line.decode().rstrip()
            if text.startswith("{"):
                told = json.loads(text)
                self.facts.append(told.get("fact", told))
            elif not text.startswith(("fedhub ", "  page", "  join", "  watch")):
                self.noise.append(text)
            self.news.set()


@asynccontextmanager
async def hub_process(
    *, parameters: int = 10, limits: dict[str, float] | None = None, **settings: object
) -> AsyncIterator[HubProcess]:
    """Run a hub; it is killed at the end if it still runs."""
    chosen = json.dumps({"parameters": parameters, "limits": limits or {}, "settings": settings})
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.abuse.hub",
        chosen,
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    hub = HubProcess("", process.pid, ModelSpec.of(model_of(parameters)), process)
    listening = asyncio.create_task(hub.listen())
    watching = asyncio.create_task(hub.watch_memory())
    try:
        await hub.until(lambda: bool(hub.all("Listening")) or process.returncode is not None)
        hub.url = hub.all("Listening")[0]["url"]
        yield hub
    finally:
        watching.cancel()
        if process.returncode is None:
            process.kill()
        await process.wait()
        await listening


async def _serve(chosen: dict[str, Any]) -> None:
    """Be the hub."""
    lags: list[float] = []
    loop = asyncio.get_running_loop()

    async def tick() -> None:
        while True:
            before = loop.time()
            await asyncio.sleep(0.005)
            lags.append(1000 * (loop.time() - before - 0.005))

    # Whatever the library holds for an internal error is one here, also what a hub keeps quiet about.
    of_websockets = logging.getLogger("fedhub.websockets")
    of_websockets.filters.clear()
    of_websockets.setLevel(logging.WARNING)

    def say(**told: object) -> None:
        print(json.dumps(told), file=sys.stderr, flush=True)

    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    ticking = asyncio.create_task(tick())
    limits = replace(OF_A_HUB, **chosen["limits"])
    with tempfile.TemporaryDirectory() as folder:
        async with running_hub(
            Path(folder), model=model_of(chosen["parameters"]), limits=limits, **chosen["settings"]
        ) as hub:
            hub.hub.feed.forget(hub._follower)  # nobody reads it: it would grow
            say(event="Listening", url=hub.url)
            async for command in reader:
                if command == b"lag\n":
                    p99, most = np.percentile(lags, [99, 100])
                    say(event="Lag", p99=float(p99), max=float(most))
                    lags.clear()
                else:
                    hub.hub.stop()
                    await hub.ended()
                    break
    ticking.cancel()


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.argv[1])))
