"""One whole federation from one seed: a real hub, real agents, hostile edges, and everything that can befall them."""

import asyncio
import gc
import hashlib
import logging
import random
import shutil
import sqlite3
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import edge.agent
from edge.agent import Agent, Patience
from edge.memory import Memory
from hub.config import Layer
from hub.events import Fact, Stamped, to_line
from hub.runs import Contract, Wishes
from hub.server import Ended, Hub
from shared.errors import ExitCode, FedhubError, TurnedAway
from shared.link import Link, connect
from shared.messages import Role, ToEdge
from tests.simulation.chance import under_the_seed
from tests.simulation.disk import Platters, SimulatedDisk
from tests.simulation.edges import DEEDS, HostileEdge, PureLearner, knock, watched
from tests.simulation.loop import MACHINE, Died, Machine, Stuck, VirtualLoop
from tests.simulation.network import HUB, Network, Weather, crc
from tests.simulation.referee import Referee, Violation
from tests.support.federation import MODEL

_URL = "ws://127.0.0.1:8765"
_EPOCH = 1_700_000_000.0
_STOP_WITHIN = 30.0
_SHM = Path("/dev/shm")  # SQLite syncs after each commit; in memory that costs nothing
_FOREVER = Patience(first=1e9, again=1e9, base=0.5, cap=8.0)

FAULTS = (
    "hub-killed", "hub-killed", "hub-power-cut", "hub-power-cut", "hub-stopped",
    "edge-killed", "edge-power-cut", "edge-left", "edge-twin",
    "link-reset", "link-reset", "link-clogged", "link-half-closed",
    "stranger",
)  # fmt: skip

KINDS = (
    *sorted(set(FAULTS)), "hub-outage", "hub-died-writing", "hub-died-at-a-step", "edge-slow", "link-split",
    *sorted({f"hostile-{deed}" for deed in DEEDS} - {"hostile-honest"}), "hostile-unasked",
    "disk-lost", "disk-torn",
)  # fmt: skip
"""Everything that must happen sooner or later."""


@dataclass(frozen=True)
class Scenario:
    """What kind of world a seed makes."""

    edges: int
    hostile: int
    settings: dict[str, Any]
    trouble: float
    """Seconds for which faults go on."""
    every: float
    """Mean seconds between two faults."""
    slow: float
    """Share of trainings that take too long."""
    delay: float
    split: float
    outage: float = 0.0
    """Seconds for which the hub is down at last."""

    @classmethod
    def of(cls, dice: random.Random) -> "Scenario":
        """Draw one."""
        edges = dice.randint(2, 5)
        return cls(
            edges=edges,
            hostile=dice.choice((0, 0, 1, 1, 2)),
            settings={
                "rounds": 100_000,
                "retries": 100_000,
                "deadline": 30.0,
                "wait_for": dice.randint(1, edges),
                "quorum": dice.choice((0.5, 0.5, 0.8)),
                "fraction": dice.choice((1.0, 1.0, 0.7)),
                "over_selection": dice.choice((1.0, 1.0, 1.5)),
                "seed": dice.randrange(1000),
                **({"holdout": 0.2, "evaluation_deadline": 5.0} if dice.random() < 0.2 else {}),
            },
            trouble=dice.uniform(20.0, 70.0),
            every=dice.uniform(1.0, 6.0),
            slow=dice.choice((0.0, 0.05, 0.2)),
            delay=dice.choice((0.002, 0.02, 0.1)),
            split=dice.choice((0.0, 0.3)),
            outage=dice.uniform(100.0, 400.0) if dice.random() < 0.15 else 0.0,
        )


@dataclass
class Report:
    """How a world went."""

    seed: int
    trace: str
    """SHA-256 over every chunk delivered, fact published and fault, with its time."""
    counts: Counter[str]
    rounds: int
    accepted: int
    virtual: float
    """Seconds in the world."""
    real: float
    violation: str | None = None
    log: list[str] = field(default_factory=list)


class Guard:
    """Hands everything to the referee, and ends the world when it protests."""

    def __init__(self, referee: Referee, protest: Callable[[str], None]) -> None:
        self._referee = referee
        self._protest = protest

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._referee, name)
        if not callable(attribute):
            return attribute

        def guarded(*arguments: Any) -> None:
            try:
                attribute(*arguments)
            except Violation as violation:
                self._protest(str(violation))

        return guarded


class World:
    """See the top of this file."""

    def __init__(self, seed: int, *, scenario: Scenario | None = None, broken: frozenset[str] = frozenset()) -> None:
        """Make a world; `broken` names verbs of the disk that do nothing."""
        self.seed = seed
        self.dice = random.Random(f"world {seed}")
        self.scenario = scenario or Scenario.of(self.dice)
        self.counts: Counter[str] = Counter()
        self.log: list[str] = []
        self.violation: str | None = None
        self._trace = hashlib.sha256()
        self.loop = VirtualLoop(random.Random(f"threads {seed}"))
        self.loop.slow_threads = self.dice.choice((0.0005, 0.01))
        weather = Weather(self.scenario.delay, self.scenario.split)
        self.network = Network(self.loop, random.Random(f"network {seed}"), self._delivered, weather)
        self.loop.network = self.network
        self.judge = Referee(MODEL)
        self.referee: Any = Guard(self.judge, self.protest)
        self.platters = Platters(random.Random(f"disk {seed}"))
        self.folder = Path("/nowhere")
        self.hub: Hub | None = None
        self.machine: Machine | None = None
        self.ended: Ended | None = None
        self.at_peace = False
        self._broken = broken
        self._machines: list[Machine] = []
        self._databases: dict[Machine, list[sqlite3.Connection]] = {}
        self._edges: dict[str, list[tuple[Machine, asyncio.Task[None]]]] = {}
        self._incarnations = 0
        self._expected_end = False
        self._disk_steps = 0
        self._dies_at_disk_step: int | None = None
        self._power_cut: bool | None = None
        self._away = False
        self._news: asyncio.Event | None = None

    # --- running it ---

    def run(self) -> Report:
        """Live through it; what went wrong is in the report."""
        began = time.perf_counter()
        gc_was_on = gc.isenabled()
        gc.disable()  # objects must die when the program drops them, not when the collector comes by
        with ExitStack() as stack:
            parent = str(_SHM) if _SHM.is_dir() else None
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedhub-", dir=parent)))
            stack.enter_context(under_the_seed(self.seed, self._opened))
            stack.enter_context(patch.object(edge.agent, "connect", self._connect))
            stack.enter_context(self._listening_to_the_library())
            self._news = asyncio.Event()
            try:
                self.loop.run_until_complete(self.start(self.new_machine("operator"), self.story))
            except (RuntimeError, Stuck, Violation) as error:
                self.violation = self.violation or repr(error)
            for machine in self._machines:
                machine.alive = False
            logging.disable()  # the dying words of what is dropped are nobody's business
            try:
                self.loop.bury(self._machines)
            finally:
                logging.disable(logging.NOTSET)
            for connections in self._databases.values():
                for connection in connections:
                    connection.close()
            self.loop.close()
        if gc_was_on:
            gc.enable()
        if self.loop.complaints and not self.violation:
            self.violation = self.loop.complaints[0]
        self.counts["disk-lost"], self.counts["disk-torn"] = self.platters.lost, self.platters.torn
        self.counts["link-split"] = self.network.splits
        return Report(
            seed=self.seed,
            trace=self._trace.hexdigest(),
            counts=self.counts,
            rounds=self.judge.last,
            accepted=self.judge.accepted,
            virtual=self.loop.time() - 1000.0,
            real=time.perf_counter() - began,
            violation=self.violation,
            log=self.log,
        )

    @contextmanager
    def _listening_to_the_library(self) -> Iterator[None]:
        """Take what websockets logs of a failing handler for what it is: a failure of the hub."""
        hearing = logging.Handler()
        hearing.emit = lambda record: self.protest(f"{record.getMessage()}: {record.exc_info}")  # type: ignore[method-assign]
        logger = logging.getLogger("fedhub.websockets")
        logger.addHandler(hearing)
        try:
            yield
        finally:
            logger.removeHandler(hearing)

    def protest(self, why: str) -> None:
        """End the world: a promise was broken."""
        if self.violation is None:
            self.violation = why
            self.note(f"VIOLATION {why}")
        self.loop.stop()

    def note(self, line: str) -> None:
        """Write a line into the trace; the folder's name is another in each process."""
        line = line.replace(str(self.folder), "runs")
        self._trace.update(f"{self.loop.time():.6f} {line}\n".encode())
        self.log.append(f"{self.loop.time() - 1000.0:10.4f} {line}")

    def count(self, kind: str, detail: str = "") -> None:
        """Count a fault."""
        self.counts[kind] += 1
        self.note(f"FAULT {kind} {detail}")

    def new_machine(self, name: str) -> Machine:
        machine = Machine(f"{name}#{len(self._machines)}", self.loop)
        self._machines.append(machine)
        return machine

    def _delivered(self, name: str, chunk: bytes) -> None:
        self._trace.update(f"{self.loop.time():.6f} {name} {len(chunk)} {crc(chunk)}\n".encode())

    def _opened(self, machine: Machine, connection: sqlite3.Connection) -> Callable[[str], None]:
        self._databases.setdefault(machine, []).append(connection)
        return self._stepper(machine)

    def start(self, machine: Machine, life: Callable[[], Coroutine[Any, Any, None]]) -> "asyncio.Task[None]":
        """Run `life` on a machine; it may not fail."""

        async def without_failure() -> None:
            try:
                await life()
            except Exception as error:  # noqa: BLE001  # whatever it is, it is a failure of the product or of this world
                if machine.alive:
                    self.protest(f"{machine.name} failed: {error!r}")
                    self.log.append(traceback.format_exc())

        return machine.start(without_failure())

    # --- the hub ---

    def start_hub(self) -> None:
        """Start the hub's process on what the disk holds."""
        machine = self.machine = self.new_machine(HUB)
        machine.at_death = lambda: self._hub_died(machine)
        resume = self.folder / "run" if self.judge.run else None
        if resume is None:
            shutil.rmtree(self.folder / "run", ignore_errors=True)  # a beginning that a crash cut short
            self.platters.folders.clear()
        if not self.at_peace:
            if self.dice.random() < 0.3:
                machine.dies_at = self.dice.randint(1, 4000)
            if self.dice.random() < 0.4:
                self._dies_at_disk_step = self._disk_steps + self.dice.randint(1, 400)
        self.ended = None
        self._expected_end = False
        self.note(f"hub starts as {machine.name}")
        self.start(machine, lambda: self._hub_life(machine, resume))

    async def _hub_life(self, machine: Machine, resume: Path | None) -> None:
        settings = {"port": 0, "runs": str(self.folder), "log": "json", "name": "run", **self.scenario.settings}
        wishes = Wishes(
            layers=(Layer("simulation", settings),), app="" if resume else "simulation", resume=resume, evaluator=False
        )

        async def ask(_: Wishes) -> Contract:
            return Contract("simulation", {}, has_test=False, model=MODEL)

        disk = SimulatedDisk(self.platters, self._stepper(machine), self._broken)
        hub = self.hub = Hub(wishes, ask=ask, disk=disk, now=lambda: _EPOCH + self.loop.time())
        publish = hub.feed.repeat

        def overheard(stamped: Stamped) -> None:
            publish(stamped)
            if machine.alive:
                self.note(to_line(stamped))
                self.referee.fact(stamped.fact)
                self.heard(stamped.fact)
                if self._news:
                    self._news.set()

        hub.feed.repeat = overheard  # type: ignore[method-assign]
        try:
            self.ended = await hub.serve()
        except FedhubError as error:
            self.protest(f"the hub ended: {error!r}")
            return
        if not self._expected_end:
            self.protest(f"the hub ended by itself: {self.ended}")
        self.network.cut_machine(machine)
        machine.at_death = lambda: None
        machine.alive = False
        self._close_databases(machine)
        self.note("hub has ended")
        if self._news:
            self._news.set()

    def heard(self, fact: Fact) -> None:
        """Take note of a fact; for worlds that want to know more."""

    def _stepper(self, machine: Machine) -> Callable[[str], None]:
        def step(verb: str) -> None:
            if not machine.alive:
                raise Died
            self._disk_steps += 1
            if self._disk_steps == self._dies_at_disk_step:
                self.count("hub-died-writing", verb)
                machine.die()
                raise Died

        return step

    def _hub_died(self, machine: Machine) -> None:
        """The process is gone, killed or without power: what is not durable may be lost, and nobody says goodbye."""
        if machine.steps == machine.dies_at:
            self.count("hub-died-at-a-step", str(machine.steps))
        if self._power_cut if self._power_cut is not None else self.dice.random() < 0.5:
            self.network.dark.add(HUB)
            self.platters.power_cut()
            self.note("the power went")
        self._power_cut = None
        self._close_databases(machine)
        self.network.cut_machine(machine)
        self.referee.crashed()
        if not self.at_peace:
            self.loop.call_later(
                self.dice.choice((0.1, 3.0, 20.0)) * self.dice.random() + 0.05,
                self._hub_returns,
                machine,
                context=self._machines[0].context,
            )

    def _hub_returns(self, dead: Machine | None) -> None:
        """Start the hub again, unless somebody did so after `dead` died."""
        if self.machine is dead and not (dead and dead.alive) and not self._away:
            self.network.light(HUB)
            self.start_hub()

    def _close_databases(self, machine: Machine) -> None:
        for connection in self._databases.pop(machine, []):
            connection.close()

    async def stop_hub(self) -> None:
        """Have the operator stop the hub in good order, and see that it does not take long."""
        machine, hub = self.machine, self.hub
        assert machine is not None
        if hub is None or not machine.alive:
            return
        self._expected_end = True
        machine.context.run(hub.stop)
        await self._until(lambda: not machine.alive, within=_STOP_WITHIN, what="the hub did not stop")

    async def _until(self, happened: Callable[[], bool], *, within: float, what: str) -> None:
        """Wait for something that the hub's facts or end tell of."""
        assert self._news is not None
        try:
            async with asyncio.timeout(within):
                while not happened():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            self.protest(f"{what} within {within:.0f} s")

    # --- the edges ---

    async def _connect(self, url: str) -> Link[ToEdge]:
        machine = MACHINE.get()
        assert machine is not None
        return watched(await connect(url), machine.host, self.referee)

    def start_edge(self, name: str) -> None:
        """Start an edge's process."""
        self._incarnations += 1
        dice = random.Random(f"edge {self.seed} {self._incarnations}")

        def pace() -> float:
            if not self.at_peace and dice.random() < self.scenario.slow:
                self.count("edge-slow", name)
                return dice.uniform(20.0, 100.0)
            return dice.uniform(0.05, 3.0)

        memory = Memory()
        agent = Agent(
            url=_URL,
            edge=name,
            role=Role.TRAINER,
            learner=PureLearner(name, self._incarnations, self.referee, pace, memory),
            memory=memory,
            patience=_FOREVER,
            dice=dice,
            tell=lambda line: None,
        )
        machine = self.new_machine(name)
        self.network.light(name)
        lives = self._edges.setdefault(name, [])
        lives[:] = [(one, life) for one, life in lives if one.alive and not life.done()]
        lives.append((machine, self.start(machine, lambda: self._edge_life(agent))))

    async def _edge_life(self, agent: Agent) -> None:
        try:
            await agent.live()
        except TurnedAway as error:
            if "took the name" not in str(error):
                self.protest(f"the honest {agent.edge} was turned away: {error}")
        except FedhubError as error:
            self.protest(f"{agent.edge} failed: {error!r}")

    def living(self, name: str) -> list[tuple[Machine, "asyncio.Task[None]"]]:
        """List the lives of an edge: none while it is away, two where somebody started it twice."""
        return [(machine, life) for machine, life in self._edges.get(name, []) if machine.alive and not life.done()]

    # --- the story ---

    async def story(self) -> None:
        """Faults for a while; then peace, in which a round must be completed; then an end in good order."""
        names = [f"edge-{index}" for index in range(self.scenario.edges)]
        self.judge.honest = set(names)
        self.start_hub()
        await asyncio.sleep(self.dice.uniform(0.0, 1.0))
        for name in names:
            self.start_edge(name)
        hostile = [self._start_hostile(f"hostile-{index}") for index in range(self.scenario.hostile)]
        end = self.loop.time() + self.scenario.trouble
        while (now := self.loop.time()) < end:
            await asyncio.sleep(min(end - now + 0.001, self.dice.expovariate(1 / self.scenario.every)))
            await self._befall(names, end)
        if self.scenario.outage:
            await self._outage()
        await self._peace(names, hostile)
        await self._finale()

    def _start_hostile(self, name: str) -> Machine:
        machine = self.new_machine(name)
        dice = random.Random(f"hostile {self.seed} {name}")
        edge = HostileEdge(_URL, name, self.referee, dice, self.count, self.scenario.settings["deadline"])
        self.start(machine, edge.live)
        return machine

    async def _befall(self, names: list[str], end: float) -> None:
        """Have one fault happen."""
        fault = self.dice.choice(FAULTS)
        name = self.dice.choice(names)
        ends = self.network.living()
        match fault:
            case "hub-killed" | "hub-power-cut":
                if self.machine and self.machine.alive and not self._expected_end:
                    self.count(fault)
                    self._power_cut = fault == "hub-power-cut"
                    self.machine.die()
            case "hub-stopped":
                if self.hub and self.machine and self.machine.alive and self.judge.run:
                    self.count(fault)
                    await self.stop_hub()
                    await asyncio.sleep(self.dice.uniform(0.1, 5.0))
                    self._hub_returns(self.machine)
            case "edge-killed" | "edge-power-cut":
                for machine, _ in self.living(name):
                    self.count(fault, name)
                    if fault == "edge-power-cut":
                        self.network.dark.add(machine.host)
                    machine.die()
                    self.network.cut_machine(machine)
                self._return_later(name)
            case "edge-left":
                for _, life in self.living(name):
                    self.count(fault, name)
                    life.cancel()
                self._return_later(name)
            case "edge-twin":
                self.count(fault, name)
                self.start_edge(name)
            case "link-reset" | "link-clogged" | "link-half-closed" if ends:
                link = self.dice.choice(ends)
                link = self.dice.choice((link, link.peer))
                self.count(fault, link.name)
                if fault == "link-reset":
                    self.network.reset(link)
                elif fault == "link-clogged":
                    self.network.clog(link, min(self.dice.expovariate(1 / 5.0), max(0.0, end - self.loop.time())))
                else:
                    self.network.half_close(link)
            case "stranger":
                self.count(fault)
                self.start(self.new_machine("stranger"), lambda: knock(self.dice, "127.0.0.1", 8765))
            case _:
                pass

    async def _outage(self) -> None:
        """Take the hub away for minutes, so that everybody has long been looking for it when it is back."""
        self._away = True
        self.count("hub-outage")
        if self.machine:
            self.machine.die()
        await asyncio.sleep(self.scenario.outage)
        self._away = False

    def _return_later(self, name: str) -> None:
        def back() -> None:
            if not self.living(name):
                self.start_edge(name)

        self.loop.call_later(self.dice.expovariate(1 / 5.0), back, context=self._machines[0].context)

    async def _peace(self, names: list[str], hostile: list[Machine]) -> None:
        """End all faults; the next round must be completed within two deadlines."""
        self.at_peace = True
        self.note("peace")
        self._dies_at_disk_step = None
        for host in sorted(self.network.dark):
            self.network.light(host)
        self.network.heal()
        for machine in hostile:
            machine.die()
            self.network.cut_machine(machine)
        self._hub_returns(self.machine)
        assert self.machine is not None
        self.machine.dies_at = None
        for name in names:
            if not self.living(name):
                self.start_edge(name)
        before = self.judge.last
        settings = self.scenario.settings
        await self._until(
            lambda: self.judge.last > before,
            within=2 * settings["deadline"] + settings.get("evaluation_deadline", 0.0),
            what="no round was completed",
        )

    async def _finale(self) -> None:
        """Stop the hub, go on with two more rounds, and see everybody off."""
        await self.stop_hub()
        await asyncio.sleep(1.0)
        if self.ended is not None and not self.ended.stopped:
            self.protest(f"the hub was stopped, but says {self.ended}")
        self._expected_end = True
        self.scenario.settings["rounds"] = self.judge.last + 2
        self.start_hub()
        self._expected_end = True
        machine = self.machine
        assert machine is not None
        await self._until(lambda: not machine.alive, within=300.0, what="the run did not come to its end")
        if self.ended is None or self.ended.code is not ExitCode.DONE:
            self.protest(f"the run ended with {self.ended}")


def simulate(seed: int, *, broken: frozenset[str] = frozenset()) -> Report:
    """Live through the world of a seed."""
    return World(seed, broken=broken).run()


def replay_command(seed: int) -> str:
    """Give the one command that lives through a seed again."""
    return f"python -m tests.simulation --seed {seed}"
