"""What the page costs a browser, in size, time, tasks and memory: `python -m tests.benchmarks.browser`."""

import argparse
import asyncio
import gzip
import json
import os
import statistics
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, Page

from hub.views.page import BUILT
from tests.support.facts import MadeUp
from tests.support.pages import TALL, Look, chromium, looks, stage

_LONG = 50.0  # ms: a task that is longer is felt
_WIDE = {"width": 1440, "height": 900}
_WATCHED = 15.0  # seconds
_RATE = 150.0  # facts a second

# Notes when the page is ready, each task that is felt, and how long each press of a button or key took to be seen.
_WATCH = """
    window.seen = { ready: null, tasks: [], events: [] };
    new MutationObserver((_, self) => {
        if (!("ready" in document.documentElement.dataset)) return;
        window.seen.ready = performance.now();
        self.disconnect();
    }).observe(document, { subtree: true, attributes: true, childList: true });
    const note = (to) => (list) => {
        for (const { startTime, duration, interactionId } of list.getEntries())
            window.seen[to].push([startTime, duration, interactionId ?? 0]);
    };
    new PerformanceObserver(note("tasks")).observe({ type: "longtask", buffered: true });
    new PerformanceObserver(note("events")).observe({ type: "event", durationThreshold: 16, buffered: true });
"""


@asynccontextmanager
async def feeding(edges: int, *, every: float = 0.0, warm: int = 0) -> AsyncIterator[tuple[str, str]]:
    """Have another process feed a page; give its URL and key."""
    arguments = ("--feed", str(edges), "--every", str(every), "--warm", str(warm))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks.browser", *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout
        at = json.loads(await process.stdout.readline())
        yield at["url"], at["key"]
    finally:
        process.kill()
        await process.wait()


async def feed(edges: int, every: float, warm: int) -> None:
    """Be that process: `warm` rounds at once, then rounds of 150 facts a second, or one `every` so many seconds."""
    run = MadeUp(edges, rounds=100_000, deadline=edges / (_RATE - 20))  # there are up to 20 facts a second on moves
    async with stage() as on:
        await on.play(run.opening())
        for number in range(1, warm + 1):
            await on.play(fact for _, fact in run.round(number))
        print(json.dumps({"url": on.url, "key": on.key}), flush=True)
        clock = asyncio.get_running_loop().time
        began = clock()
        for number in range(warm + 1, 1_000_000):
            facts = run.round(number)
            for at, fact in facts:
                if not every and (wait := began + at - clock()) > 0:
                    await asyncio.sleep(wait)
                on.feed.publish(fact)
            began += every or facts[-1][0]
            await asyncio.sleep(max(0.0, began - clock()))


async def ready(look: Look, edges: int) -> list[float]:
    """Give the milliseconds from going to the page until it is ready, five times."""
    times = []
    async with feeding(edges, warm=50) as (url, key):
        for _ in range(5):
            async with look(url, key, start=_WATCH, viewport=_WIDE) as tab:
                await tab.page.wait_for_function("() => window.seen.ready")
                times.append(float(await tab.page.evaluate("window.seen.ready")))
    return times


async def tasks(browser: Browser, look: Look, edges: int, viewport: dict[str, int]) -> None:
    """Print how long the page's tasks take while facts come."""
    kinds = ["-*", "disabled-by-default-devtools.timeline", "devtools.timeline", "toplevel"]
    async with feeding(edges, warm=50) as (url, key):
        await browser.start_tracing(categories=kinds)
        async with look(url, key, start=_WATCH, viewport=viewport) as tab:
            await tab.page.wait_for_function("() => window.seen.ready")
            await asyncio.sleep(2)
            loading = json.loads(await browser.stop_tracing())
            felt_loading = await felt(tab.page)
            begun = await tab.page.evaluate("performance.now()")
            before = len((await tab.state()).rows)
            await browser.start_tracing(page=tab.page, categories=kinds)
            await asyncio.sleep(_WATCHED)
            lasting = json.loads(await browser.stop_tracing())
            rounds = len((await tab.state()).rows) - before
            felt_lasting = [task for task in await felt(tab.page) if task not in felt_loading and task[0] > begun]
    print(f"{edges:6} edges {viewport['width']}x{viewport['height']}, {rounds} rounds in {_WATCHED:.0f} s")
    for what, trace, long in (("loading", loading, felt_loading), ("then", lasting, felt_lasting)):
        wall, own = of_the_page(trace["traceEvents"])
        each = ", ".join(f"{duration:.0f}" for _, duration, _ in long) or "none"
        print(
            f"{what:>14}: tasks over {_LONG:.0f} ms: {each}; longest {wall[-1]:.0f} ms, of processor {own[-1]:.0f};"
            f" 99 in 100 below {wall[int(0.99 * len(wall))]:.1f} ms; in all {sum(own):.0f} ms of processor",
            flush=True,
        )


async def felt(page: Page) -> list[list[float]]:
    """Give the page's tasks over 50 ms: when, how long."""
    return await page.evaluate("window.seen.tasks")


def of_the_page(events: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Give the milliseconds of each task of the page's main thread, by the wall's clock and by the processor's."""
    runs = [event for event in events if event["name"] == "RunTask" and event.get("ph") == "X"]
    threads = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    busiest: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for run in runs:
        if (run["pid"], run["tid"]) in threads:
            busiest.setdefault((run["pid"], run["tid"]), []).append(run)
    ours = max(busiest.values(), key=lambda some: sum(run["dur"] for run in some))
    return sorted(run["dur"] / 1e3 for run in ours), sorted(run.get("tdur", run["dur"]) / 1e3 for run in ours)


async def interactions(look: Look, edges: int) -> None:
    """Print how long it takes until what one does on the page is seen."""
    async with feeding(edges, warm=50) as (url, key), look(url, key, start=_WATCH, viewport=TALL) as tab:
        await tab.page.wait_for_function("() => window.seen.ready")
        await asyncio.sleep(2)

        async def timed(what: str, *doings: Any) -> None:
            times = []
            for doing in doings:
                await tab.page.evaluate("window.seen.events.length = 0")
                await doing()
                await asyncio.sleep(0.5)
                entries = await tab.page.evaluate("window.seen.events")
                times.append(max((duration for _, duration, of in entries if of), default=16.0))
            print(
                f"{edges:6} edges  {what:<16} {statistics.median(times):5.0f} ms, at most {max(times):.0f} ms",
                flush=True,
            )

        def press(target: Any) -> Any:
            return lambda: target.click()

        column = tab.page.get_by_role("button", name="weight")
        await timed("sort", *[press(column)] * 6)
        await tab.get("edges-filter").focus()
        await timed("filter", *[lambda key=key: tab.page.keyboard.press(key) for key in "edge-1"])
        await timed("back in time", *[press(tab.get("earlier"))] * 6)
        await timed("live", press(tab.get("live")))
        await timed("lanes, dots", *[press(tab.get(mode)) for mode in ("mode-lanes", "mode-dots") * 3])
        await timed("pause", press(tab.get("pause")))


async def memory(look: Look, edges: int, every: float) -> None:
    """Print the page's memory in the course of 1,000 rounds."""
    async with feeding(edges, every=every) as (url, key), look(url, key, viewport=TALL) as tab:
        session = await tab.page.context.new_cdp_session(tab.page)
        for number in range(100, 1001, 100):
            await tab.page.wait_for_function(f"() => window.fedhub?.state?.head.committed >= {number}", timeout=600_000)
            for _ in range(2):
                await session.send("HeapProfiler.collectGarbage")
            heap = (await session.send("Runtime.getHeapUsage"))["usedSize"] / 1e6
            there = await session.send("Memory.getDOMCounters")
            rounds = (await tab.state()).head.committed
            print(
                f"{edges:6} edges  round {rounds:5}  heap {heap:6.2f} MB  "
                f"nodes {there['nodes']:6}  listeners {there['jsEventListeners']:5}",
                flush=True,
            )


def load() -> str:
    """Say how busy the machine is."""
    return "load " + " ".join(f"{load:.1f}" for load in os.getloadavg())


async def main(chosen: argparse.Namespace) -> None:
    """Print everything that is asked for."""
    if "size" in chosen.what:
        files = [file for file in BUILT.rglob("*") if file.is_file()]
        packed = {file.name: len(gzip.compress(file.read_bytes())) for file in files}
        parts = ", ".join(f"{name} {size}" for name, size in packed.items())
        print(f"size: {sum(packed.values()) / 1e3:.1f} kB ({parts})")
    async with chromium() as browser:
        look = looks(browser)
        if "ready" in chosen.what:
            print(f"ready, median of 5 ({load()})")
            for edges in (10, 300, 1000):
                times = await ready(look, edges)
                print(
                    f"{edges:6} edges  {statistics.median(times):.0f} ms ({', '.join(f'{time:.0f}' for time in times)})"
                )
        if "tasks" in chosen.what:
            for edges in (300, 1000):
                for viewport in (_WIDE, TALL):
                    print(f"tasks at {_RATE:.0f} facts a second ({load()})")
                    await tasks(browser, look, edges, viewport)
        if "hands" in chosen.what:
            print(f"from a click to what comes of it ({load()})")
            for edges in (300, 1000):
                await interactions(look, edges)
        if "memory" in chosen.what:
            print(f"memory over 1,000 rounds ({load()})")
            for edges, every in ((100, 0.1), (1000, 0.25)):
                await memory(look, edges, every)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["size", "ready", "tasks", "hands", "memory"])
    parser.add_argument("--feed", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--every", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--warm", type=int, default=0, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    asyncio.run(feed(chosen.feed, chosen.every, chosen.warm) if chosen.feed else main(chosen))
