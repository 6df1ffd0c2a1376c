"""Abuse a hub at full size and print what it cost: `python -m tests.abuse [name ...] [--scale 0.1]`."""

import argparse
import asyncio
import contextlib
import random
import resource
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from edge.agent import Patience
from shared.errors import LinkClosed, Unreachable
from shared.link import connect
from tests.abuse.attacks import (
    Attack,
    drips_a_header,
    drips_fragments,
    drips_in_a_frame,
    fleet,
    gone_after,
    is_silent,
    never_reads,
    running,
    says_too_much,
    stay,
)
from tests.abuse.hub import ENDLESS, PARAMETERS, HubProcess, hub_process


@dataclass
class Row:
    """One figure against its promise."""

    promise: str
    what: str
    figure: str
    bound: str
    kept: bool


@dataclass
class Sizes:
    """How large everything is."""

    scale: float

    def __call__(self, full: int) -> int:
        return max(2, round(full * self.scale))


async def joined(hub: HubProcess, count: int) -> None:
    """Wait until so many edges are here."""
    await hub.until(lambda: any(fact["here"] >= count for fact in hub.all("EdgeJoined")[-1:]))


async def strangers(of: Sizes) -> list[Row]:
    """C2."""
    rows = []
    attacks: list[Attack] = [is_silent, drips_a_header, says_too_much]
    async with hub_process(parameters=PARAMETERS, wait_for=4, **ENDLESS) as hub, fleet(hub.url, hub.spec, 4):
        await hub.rounds(3)
        for attack in attacks:
            quiet = await hub.rounds(20)
            attacking = asyncio.create_task(gone_after(attack, hub.url, of(1000)))
            loud: list[float] = []
            while not attacking.done():
                loud += await hub.rounds(1)
            seconds = max(await attacking)
            quiet += await hub.rounds(20)
            slower = 100 * (statistics.median(loud) / statistics.median(quiet) - 1)
            name = attack.__name__.replace("_", " ")
            rows += [
                Row("C2", f"{of(1000):,} x {name}: gone after", f"{seconds:.2f} s", "6 s", seconds <= 6),
                Row(
                    "C2",
                    f"{name}: honest round ({len(loud)} of them, median)",
                    f"{slower:+.1f} %",
                    "+5 %",
                    slower <= 5,
                ),
            ]
        rows.append(Row("C2", "facts on stderr that are none", str(len(hub.noise)), "0", not hub.noise))
    for attack in attacks:  # in a hub without rounds, whose own memory goes up and down by more than this
        async with hub_process(wait_for=10**6, **ENDLESS) as hub:
            await gone_after(says_too_much, hub.url, 20)  # what a hub needs once
            before, hub.peak = hub.rss, 0.0
            await gone_after(attack, hub.url, of(1000))
            more = hub.peak - before
            name = attack.__name__.replace("_", " ")
            rows.append(Row("C2", f"{name}: hub RSS", f"{more:+.1f} MiB", "+20 MiB", more <= 20))
    return rows


async def deaf(of: Sizes) -> list[Row]:
    """C3."""
    honest, stalled = of(150), of(50)
    share = {"fraction": honest / (honest + stalled), "over_selection": 2.0, "quorum": 0.5}
    settings = ENDLESS | {"deadline": 120.0}
    async with hub_process(parameters=PARAMETERS, wait_for=honest, **settings) as hub:
        async with fleet(hub.url, hub.spec, honest):
            quiet = await hub.rounds(10)
    async with hub_process(parameters=PARAMETERS, wait_for=honest + stalled, **settings | share) as hub:
        async with fleet(hub.url, hub.spec, honest), running(*(never_reads(hub.url, n) for n in range(stalled))):
            loud = await hub.rounds(10)
            began = time.monotonic()
            gone = lambda: [fact for fact in hub.all("EdgeLeft") if fact["edge"].startswith("deaf")]  # noqa: E731
            await hub.until(lambda: len(gone()) >= stalled)
            reasons = {fact["reason"] for fact in gone()}
            waited = time.monotonic() - began
    async with hub_process(parameters=PARAMETERS, wait_for=stalled + 1, **settings) as hub:
        async with running(*(never_reads(hub.url, n) for n in range(stalled))):
            await joined(hub, stalled)
            memory = hub.rss
            async with running(never_reads(hub.url, stalled)):  # with this one the round begins
                await hub.until(lambda: bool(hub.all("RoundStarted")))
                await asyncio.sleep(5)  # nothing tells that the kernel's buffers are full
                each = (hub.rss - memory) / (stalled + 1)
    slower = 100 * (statistics.median(loud) / statistics.median(quiet) - 1)
    return [
        Row("C3", f"{honest} edges, 6.64 MB: a round (median of 10)", f"{statistics.median(quiet):.2f} s", "", True),
        Row("C3", f"the same beside {stalled} that never read", f"{slower:+.1f} %", "+5 %", slower <= 5),
        Row("C3", "memory for each of those, in a round of their own", f"{each:.2f} MiB", "0.5 MiB", each <= 0.5),
        Row("C3", f"all cut ({', '.join(sorted(reasons))})", f"{waited:.0f} s later", "", len(reasons) == 1),
    ]


async def drip(of: Sizes) -> list[Row]:
    """C4."""
    rows = []
    async with hub_process(parameters=PARAMETERS, wait_for=10**6, **ENDLESS) as hub:
        for attack in (drips_in_a_frame, drips_fragments):
            seconds = await gone_after(attack, hub.url, of(100))
            name = attack.__name__.replace("_", " ")
            rows.append(
                Row(
                    "C4",
                    f"{of(100)} x {name}: cut after",
                    f"{min(seconds):.1f} to {max(seconds):.1f} s",
                    "20 s",
                    max(seconds) <= 20,
                )
            )
    return rows


async def uploads(of: Sizes) -> list[Row]:
    """F7: everybody uploads at once; what is not room stays in the sockets."""
    rows = []
    count = of(200)
    for budget in (512, 64):
        async with hub_process(
            parameters=PARAMETERS, wait_for=count, upload_budget=budget, **ENDLESS | {"deadline": 120.0}
        ) as hub:
            idle = hub.rss
            async with fleet(hub.url, hub.spec, count):
                await hub.until(lambda hub=hub: bool(hub.all("RoundClosed")))
                closed = hub.all("RoundClosed")[0]
            over = hub.peak - idle
            # Beside the budget: the model, its sum (8 bytes for 4), what is being added, 0.3 MiB for each edge.
            bound = budget + 60 + 0.6 * count
            rows.append(
                Row(
                    "F7",
                    f"{count} x 6.64 MB at once, budget {budget} MiB: {closed['answered']} answered, peak RSS",
                    f"+{over:.0f} MiB",
                    f"{bound:.0f} MiB",
                    over <= bound and closed["answered"] == count,
                )
            )
    return rows


async def noise(of: Sizes) -> list[Row]:
    """C12 and C1: many come, stay, and are cut at once."""
    count = of(5000)
    async with hub_process(wait_for=10**6, **ENDLESS) as hub:
        async with fleet(hub.url, hub.spec, 50, prefix="first"):  # what a hub needs once
            await joined(hub, 50)
        await hub.until(lambda: len(hub.all("EdgeLeft")) == 50)
        files, memory = hub.files, hub.rss
        began = time.monotonic()
        async with fleet(hub.url, hub.spec, count) as lives:
            await joined(hub, count)
            seconds = time.monotonic() - began
            for _ in range(20):  # until the driver's part of the loop is quiet
                await asyncio.sleep(0.05)
            each = 1024 * (hub.rss - memory) / count
            lag = await hub.lag()
            for life in lives:
                life.cancel()
        await hub.until(lambda: len(hub.all("EdgeLeft")) >= count + 50)
        p99, most = await hub.lag()
        left = hub.files - files
        lines = len(hub.all("EdgeLeft")) - 50 + len(hub.all("StrangerRefused"))
        again = hub.rss
    return [
        Row("C1", f"{count:,} edges join in", f"{seconds:.1f} s (lag p99 {lag[0]:.0f} ms)", "", True),
        Row("C1", "memory for an idle edge", f"{each:.1f} KiB", "17.6 KiB", each <= 17.6),
        Row("C1", "file descriptors left", str(left), "0", left <= 0),
        Row("C1", "RSS after all have gone", f"{again - memory:+.1f} MiB", "", True),
        Row("C12", f"{count:,} sockets cut at once: lines of facts", f"{lines:,}", f"{count:,}", lines <= count),
        Row("C12", "other lines on stderr", str(len(hub.noise)), "0", not hub.noise),
        Row("C12", "lag of the loop meanwhile (p99, max)", f"{p99:.0f}, {most:.0f} ms", "", True),
    ]


async def ticker(of: Sizes) -> list[Row]:
    """C10."""
    count = of(50)
    async with hub_process(parameters=PARAMETERS, wait_for=count, **ENDLESS | {"deadline": 60.0}) as hub:
        async with fleet(hub.url, hub.spec, count):
            await hub.rounds(1)
            await hub.lag()
            await hub.rounds(4)
            p99, most = await hub.lag()
    return [
        Row("C10", f"lag of the loop, {count} x 1.66 M parameters, 5 rounds: p99", f"{p99:.1f} ms", "50 ms", p99 <= 50),
        Row("C10", "the same: maximum", f"{most:.1f} ms", "250 ms", most <= 250),
    ]


async def drain(of: Sizes) -> list[Row]:
    """C9: the hub stops under edges that read and edges that do not."""
    honest, stalled = of(100), of(200)
    async with hub_process(parameters=PARAMETERS, wait_for=honest + stalled, **ENDLESS | {"deadline": 600.0}) as hub:
        stories = (stay(hub.url, f"edge-{n}", hub.spec, upload=False) for n in range(honest))
        async with running(*stories) as lives, running(*(never_reads(hub.url, n) for n in range(stalled))):
            await hub.until(lambda: bool(hub.all("RoundStarted")))
            seconds = await hub.stop()
            ends = await asyncio.gather(*lives)
    seen = sum(
        (isinstance(end, LinkClosed) and end.code == 1012) or getattr(end, "code", "") == "restarting" for end in ends
    )
    return [
        Row("C9", f"the hub stops under {stalled} edges that do not read", f"{seconds:.1f} s", "30 s", seconds <= 30),
        Row("C9", f"of {honest} that read, told to come back", str(seen), str(honest), seen == honest),
    ]


async def storm(of: Sizes) -> list[Row]:
    """C8: the hub is away for 30 s under a fleet; connections are real, the work is none."""
    count = of(2000)
    back: list[float] = []
    patience, dice = Patience(), random.Random(0)

    async def life(url: str, number: int, returned: asyncio.Event) -> None:
        met = 0
        while True:
            failures = 0
            while True:
                try:
                    link = await connect(url)
                    break
                except Unreachable:
                    failures += 1
                    await asyncio.sleep(patience.delay(failures, dice))
            met += 1
            if met == 2:
                back.append(asyncio.get_running_loop().time())
            link.abort()
            with contextlib.suppress(LinkClosed):
                await stay(url, f"edge-{number}", spec)
            await asyncio.sleep(patience.delay(1, dice))

    returned = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(hub_process(wait_for=10**6, **ENDLESS))
        url, spec = first.url, first.spec
        await stack.enter_async_context(running(*(life(url, n, returned) for n in range(count))))
        await joined(first, count)
        first.process.kill()
        await first.process.wait()
        await asyncio.sleep(30)
        port = int(url.rsplit(":", 1)[1])
        second = await stack.enter_async_context(hub_process(wait_for=10**6, **ENDLESS | {"port": port}))
        up = asyncio.get_running_loop().time()
        await joined(second, count)
        p99, most = await second.lag()
    times = sorted(at - up for at in back)
    most_a_second = max(sum(start <= at < start + 1 for at in times) for start in times)
    most_back = times[int(0.95 * (count - 1))]
    return [
        Row(
            "C8",
            f"{count:,} edges, hub away for 30 s: most in a second",
            f"{100 * most_a_second / count:.1f} %",
            "8 %",
            most_a_second <= 0.08 * count,
        ),
        Row("C8", "95 % are back after", f"{most_back:.1f} s", "45 s", most_back <= 45),
        Row("C8", "lag of the loop meanwhile (p99, max)", f"{p99:.0f}, {most:.0f} ms", "", True),
    ]


ALL: dict[str, Callable[[Sizes], Awaitable[list[Row]]]] = {
    "strangers": strangers,
    "deaf": deaf,
    "drip": drip,
    "uploads": uploads,
    "noise": noise,
    "ticker": ticker,
    "drain": drain,
    "storm": storm,
}


async def _run(names: list[str], of: Sizes) -> bool:
    kept = True
    for name in names:
        table = Table("promise", "what", "figure", "bound", "kept", title=name)
        for row in await ALL[name](of):
            table.add_row(row.promise, row.what, row.figure, row.bound, "yes" if row.kept else "NO")
            kept = kept and row.kept
        Console(width=140).print(table)
    return kept


def main() -> None:
    """Read the command line and do as it says."""
    parser = argparse.ArgumentParser(prog="python -m tests.abuse", description=__doc__)
    parser.add_argument("names", nargs="*", default=list(ALL), choices=[*ALL, []], metavar="name", help=", ".join(ALL))
    parser.add_argument("--scale", type=float, default=1.0, help="1 is full size")
    wanted = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    raise SystemExit(not asyncio.run(_run(wanted.names, Sizes(wanted.scale))))


if __name__ == "__main__":
    main()
