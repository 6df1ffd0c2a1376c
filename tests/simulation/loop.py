"""An event loop whose time is a number: when nothing is ready, the clock jumps to the next timer.

What is random here, and what is not: asyncio promises that `call_soon` is first in, first out, and websockets relies
on it (`connection_made` before `data_received`), so shuffling ready callbacks would report failures that cannot happen.
The seed decides what no loop promises: when each chunk of bytes arrives, when each thread ends its work, and whether
that work was done early or late. All interleavings that a real hub can see come from these. A turn of the loop takes
a little time too, so timers fall due in the middle of what is going on.
"""

import asyncio
import heapq
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from typing import Any

MACHINE: ContextVar["Machine | None"] = ContextVar("machine", default=None)
_STEP = 20e-6  # seconds that one turn of the loop takes
_EPSILON = 1e-6  # seconds between two jobs of one thread
_TURNS = 10_000_000  # a world that needs more of them is going round in circles


class Died(BaseException):
    """Raised inside a machine that has just lost its power, so that nothing after it happens."""


class Stuck(Exception):
    """Nothing is ready, and nothing ever will be."""


class Machine:
    """What dies as one: every callback, task and timer that began on it is dropped at its death, without cleanup."""

    def __init__(self, name: str, loop: "VirtualLoop") -> None:
        self.name = name
        self.host = name.split("#", maxsplit=1)[0]
        self.alive = True
        self.steps = 0
        self.dies_at: int | None = None
        """The step at which the machine dies, if it shall."""
        self.at_death: Callable[[], None] = lambda: None
        self.loop = loop
        self.context = copy_context()
        self.context.run(MACHINE.set, self)
        self._tasks: list[asyncio.Task[Any]] = []
        self._prune_at = 64

    def own(self, task: "asyncio.Task[Any]") -> None:
        """Keep `task`: one that is dropped must not be collected, for that would run its `finally` clauses."""
        self._tasks.append(task)
        if len(self._tasks) > self._prune_at:
            self._tasks = [one for one in self._tasks if not one.done()]
            self._prune_at = 2 * len(self._tasks) + 64

    def start(self, life: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run `life` on this machine."""
        return self.loop.create_task(life, context=self.context)

    def die(self) -> None:
        """Stop at once: not one callback of this machine runs any more."""
        if self.alive:
            self.alive = False
            self.at_death()

    def bury(self) -> None:
        """Let go of what the machine was doing, when it can do no harm any more."""
        while self._tasks:  # a `finally` may begin tasks
            task = self._tasks.pop(0)
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            self.context.run(_let_go, task.get_coro())


def _let_go(awaitable: Any) -> None:
    """Close what is suspended, again and again: a `finally` that awaits suspends it once more."""
    for _ in range(20):
        try:
            awaitable.close()
            return
        except BaseException:  # noqa: BLE001  # nobody is left to hear of it
            continue


class VirtualLoop(asyncio.BaseEventLoop):
    """See the top of this file. `network` is set by the world, and gives the sockets."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self.set_debug(False)
        self._now = 1000.0
        self._dice = dice
        self._clock_resolution = 1e-9
        self._turns = self._set = 0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._burying = False
        self._free: dict[int, tuple[object, float]] = {}
        self.network: Any = None
        self.slow_threads = 0.002
        """Mean time in seconds that a thread takes for its work."""
        self.complaints: list[str] = []
        self.set_exception_handler(self._complain)

    def _complain(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        machine = MACHINE.get()
        if machine is None or machine.alive:
            self.complaints.append(f"{context.get('message')}: {context.get('exception')!r}")

    # --- the clock ---

    def time(self) -> float:
        return self._now

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call at a time; of timers for the same time, the one that was set first comes first."""
        self._check_closed()
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._set += 1
        heapq.heappush(self._timers, (when, self._set, timer))
        return timer

    def _run_once(self) -> None:
        """Do one turn, as asyncio's own loop does, but without a selector, and only for machines that live."""
        timers, ready = self._timers, self._ready
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if ready or self._stopping:
            self._now += _STEP
        elif timers:
            self._now = max(self._now, timers[0][0])
        else:
            raise Stuck("nothing is ready, and no timer is set")
        while timers and timers[0][0] <= self._now:
            ready.append(heapq.heappop(timers)[2])
        self._turns += 1
        if self._turns > _TURNS:
            raise Stuck(f"{_TURNS} turns of the loop")
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            machine = handle._context.get(MACHINE)
            if machine is not None:
                if not machine.alive:
                    continue
                machine.steps += 1
                if machine.steps == machine.dies_at:
                    machine.die()
                    continue
            handle._run()

    # --- tasks and threads ---

    def create_task(
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None
    ) -> "asyncio.Task[Any]":
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        machine = MACHINE.get() if context is None else context.get(MACHINE)
        if machine is not None:
            machine.own(task)
        return task

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":
        """Do `func` in this thread, at its virtual beginning or end; what an executor of one's own does is in line."""
        if executor is not None and executor._shutdown:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future = self.create_future()
        begin, took = self._now, self._dice.expovariate(1 / self.slow_threads) + _EPSILON
        if executor is not None:
            begin = max(begin, self._free.get(id(executor), (executor, 0.0))[1] + _EPSILON)
            self._free[id(executor)] = executor, begin + took  # which also keeps it, and so its id, alive
        outcome: list[Any] = []

        def work() -> None:
            try:
                outcome[:] = [func(*args), None]
            except Died:
                outcome[:] = [None, None]
            except BaseException as error:  # noqa: BLE001  # a thread hands on whatever it meets
                outcome[:] = [None, error]

        def deliver() -> None:
            if not outcome:
                work()
            machine = MACHINE.get()
            if not future.cancelled() and (machine is None or machine.alive):
                if outcome[1] is None:
                    future.set_result(outcome[0])
                else:
                    future.set_exception(outcome[1])

        if self._dice.random() < 0.5:
            if begin <= self._now:
                work()
            else:
                self.call_at(begin, work)
        self.call_at(begin + took, deliver)
        return future

    def close(self) -> None:
        self._timers.clear()
        super().close()

    async def shutdown_default_executor(self) -> None:
        """There is none."""

    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:
        return self.call_soon(callback, *args, context=context)

    def bury(self, machines: list[Machine]) -> None:
        """Drop everything that `machines` were doing, as the last thing before `close`."""
        self._burying = True
        asyncio._set_running_loop(self)
        try:
            for machine in machines:
                machine.bury()
            for generator in list(self._asyncgens):
                self._asyncgen_finalizer_hook(generator)
        finally:
            asyncio._set_running_loop(None)

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        """End an asynchronous generator that nobody reads any more."""
        if not self._burying:
            super()._asyncgen_finalizer_hook(agen)  # type: ignore[misc]
            return
        self._asyncgens.discard(agen)
        _let_go(agen.ag_await)  # Python may count the generator as running, and then `aclose` refuses
        with suppress(BaseException):
            agen.aclose().send(None)

    # --- sockets ---

    async def getaddrinfo(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("the simulation has no name servers")

    async def create_server(self, factory: Callable[[], Any], host: Any = None, port: Any = None, **_: Any) -> Any:
        return self.network.listen(factory, host, port)

    async def create_connection(
        self, factory: Callable[[], Any], host: Any = None, port: Any = None, **_: Any
    ) -> tuple[Any, Any]:
        return await self.network.connect(factory, host, port)
