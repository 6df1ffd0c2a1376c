"""A real hub and real edges on loopback, with a model of a few numbers and no torch: a round takes milliseconds."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge.agent import Agent, Patience
from edge.learner import Holdings, Measured, Trained
from hub.config import Layer
from hub.events import Fact
from hub.feed import Follower
from hub.runs import Contract, Wishes, ask_app
from hub.server import Ended, Hub
from shared.codec import encode
from shared.link import Link, connect
from shared.messages import Evaluate, Hello, Ready, Role, ToEdge, Train, Update, Welcome
from shared.tensors import ModelSpec, Tensors
from shared.watch import OF_A_HUB, Limits

MODEL: Tensors = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "bias": np.zeros(3, np.float32),
    "steps": np.array(0),
}
SPEC = ModelSpec.of(MODEL)


@dataclass
class Running:
    """A hub that runs in this event loop."""

    hub: Hub
    url: str
    life: "asyncio.Task[Ended | None]"
    folder: Path
    _follower: Follower
    facts: list[Fact] = field(default_factory=list)

    async def until(self, kind: type[Fact], **fields: object) -> Fact:
        """Read facts until one of `kind` with these field values has happened, and give it."""
        async for stamped in self._follower:
            self.facts.append(stamped.fact)
            if isinstance(stamped.fact, kind) and all(
                getattr(stamped.fact, name) == value for name, value in fields.items()
            ):
                return stamped.fact
        raise AssertionError(f"the run ended without {kind.__name__} {fields}; it had {self.facts}")

    def die(self) -> None:
        """End as a process does that is killed: no goodbye, no saving, connections reset."""
        for session in self.hub.roster.everyone():
            session.cut()
        self.life.cancel()

    async def ended(self) -> Ended:
        """Wait for the run's end; all facts are in `facts` then."""
        ended = await self.life
        async for stamped in self._follower:
            self.facts.append(stamped.fact)
        assert ended is not None
        return ended

    def all(self, kind: type[Fact]) -> list[Fact]:
        """Give the facts of one kind that were read so far."""
        return [fact for fact in self.facts if isinstance(fact, kind)]


@asynccontextmanager
async def running_hub(
    folder: Path,
    *,
    model: Tensors = MODEL,
    contract: Contract | None = None,
    app: str = "",
    options: dict[str, str] | None = None,
    resume: Path | None = None,
    limits: Limits = OF_A_HUB,
    **settings: object,
) -> AsyncIterator[Running]:
    """Run a hub with `settings`, for `model`, a contract or a real app; it is stopped at the end if it still runs."""
    fresh = {} if resume else {"rounds": 1, "deadline": 20.0, "name": "run"}
    chosen = {"port": 0, "runs": str(folder), "log": "json", **fresh, **settings}

    async def ask(wishes: Wishes) -> Contract:
        return contract or Contract("test", {}, has_test=False, model=model)

    wishes = Wishes(
        layers=(Layer("test", chosen),),
        app=app or ("" if resume else "test"),
        options=options or {},
        resume=resume,
        evaluator=False,
    )
    hub = Hub(wishes, ask=ask_app if app else ask, limits=limits)
    follower = hub.feed.follow(room=1_000_000)
    life = asyncio.create_task(hub.serve())
    await asyncio.wait([life, hub.url], return_when=asyncio.FIRST_COMPLETED)
    if life.done():
        life.result()
    try:
        yield Running(hub, await hub.url, life, resume or folder / str(chosen["name"]), follower)
    finally:
        if not life.done():
            hub.stop()
        await asyncio.gather(life, return_exceptions=True)


@dataclass
class Adder:
    """A learner whose training adds `amount` to every float and 1 to every integer.

    Args:
        amount: what it adds.
        examples: how many it claims.
        gate: training waits until this is set, if given.
        metrics: what an evaluation finds, given the model; None for no held-out data.
    """

    amount: float = 1.0
    examples: int = 1
    gate: asyncio.Event | None = None
    metrics: Callable[[Tensors], dict[str, float]] | None = None
    trained: list[tuple[int, int]] = field(default_factory=list)
    """Rounds and tries in which training was finished."""
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def prepare(self, welcome: Welcome) -> Holdings:
        return Holdings(self.examples, self.examples * 100)

    async def train(self, task: Train, model: Tensors, *, share: float = 1.0) -> Trained:
        self.begun.set()
        if self.gate:
            await self.gate.wait()
        self.trained.append((task.round, task.attempt))
        tensors = {
            name: array + 1 if array.dtype.kind == "i" else np.full(array.shape, self.amount, array.dtype)
            for name, array in model.items()
        }
        asked = {"start_loss": 2.0} if task.plan.local == "qfedavg" else {}
        return Trained(tensors, self.examples, {"loss": 1.0, **asked})

    async def evaluate(self, task: Evaluate, model: Tensors) -> Measured:
        return Measured(self.examples, self.metrics(model)) if self.metrics else Measured(0, {})


IMPATIENT = Patience(first=5.0, again=5.0, base=0.01, cap=0.05)


def agent(url: str, name: str, learner: Adder, *, role: Role = Role.TRAINER) -> Agent:
    """Make an edge that reconnects at once."""
    return Agent(
        url=url,
        edge=name,
        role=role,
        learner=learner,
        patience=IMPATIENT,
        dice=random.Random(0),
        tell=lambda line: None,
    )


@asynccontextmanager
async def edges(*agents: Agent) -> AsyncIterator[list["asyncio.Task[None]"]]:
    """Let agents live as long as the context, or until the hub is done."""
    lives = [asyncio.create_task(one.live()) for one in agents]
    try:
        yield lives
    finally:
        for life in lives:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)


@dataclass
class RawEdge:
    """An edge under the test's full control: it says what it is told, sense or nonsense."""

    link: Link[ToEdge]
    welcome: Welcome

    async def train(self) -> Train:
        """Wait for the next Train."""
        while not isinstance(message := (await self.link.receive()).message, Train):
            pass
        return message

    async def answer(self, task: Train, tensors: Tensors | None = None, **changes: object) -> None:
        """Send an update: an honest one, unless `tensors` or fields are changed."""
        said = {
            "run": task.run,
            "round": task.round,
            "attempt": task.attempt,
            "model": task.model,
            "spec": SPEC.digest,
            "examples": 1,
            "metrics": {"loss": 1.0},
            "seconds": 0.0,
            **changes,
        }
        honest = {name: np.ones_like(array) for name, array in MODEL.items()}
        await self.link.send(encode(Update(**said), (tensors or honest).values()))  # type: ignore[arg-type]

    async def receive(self, kind: type) -> object:
        """Wait for the next message of one kind."""
        while not isinstance(message := (await self.link.receive()).message, kind):
            pass
        return message


@asynccontextmanager
async def raw_edge(url: str, name: str) -> AsyncIterator[RawEdge]:
    """Join as an edge that answers nothing by itself."""
    async with AsyncExitStack() as stack:
        link = await connect(url)
        stack.callback(link.abort)
        await link.send(Hello(versions=(1,), edge=name, role=Role.TRAINER))
        welcome = (await link.receive()).message
        assert isinstance(welcome, Welcome)
        link.expect(SPEC)
        await link.send(Ready(examples=1, data_bytes=100))
        yield RawEdge(link, welcome)


def events_of(folder: Path) -> list[dict[str, object]]:
    """Read a run folder's events."""
    return [json.loads(line)["fact"] for line in (folder / "events.jsonl").read_text().splitlines()]
