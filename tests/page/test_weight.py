"""The page stays as it is however long it is open: what it draws anew takes the place of the old."""

import pytest

from hub.events import StrangerRefused
from tests.support.facts import MadeUp
from tests.support.pages import Look, stage

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_memory_does_not_grow_with_the_rounds(look: Look) -> None:
    """Let the log and everything else that has room for so much be full, and count twice."""
    run = MadeUp(12)
    async with stage() as on, look(on.url, on.key) as tab:
        devtools = await tab.page.context.new_cdp_session(tab.page)
        await on.play(run.opening())
        await on.play(StrangerRefused(peer="127.0.0.1:1", reason="it knocked") for _ in range(300))
        counted = list[tuple[int, int]]()
        for number in range(1, 321):
            await on.play(fact for _, fact in run.round(number))
            if number % 20 == 0:  # each time the page draws what has come
                await tab.until(f"s.head.committed === {number}")
                await tab.settled()
                for _ in range(3):  # what hangs on what is collected goes with the next one
                    await devtools.send("HeapProfiler.collectGarbage")
                nodes = (await devtools.send("Memory.getDOMCounters"))["nodes"]
                heap = (await devtools.send("Runtime.getHeapUsage"))["usedSize"]
                counted.append((nodes, heap))
        # The 300 lines that stood there first may be kept until the last of them is gone, at round 140.
        (nodes, heap), (nodes_later, heap_later) = min(counted[7:10]), min(counted[-3:])
        assert nodes_later < nodes * 1.1, "elements that are not shown any more are kept"
        assert heap_later < heap + 1e6
