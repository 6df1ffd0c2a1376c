"""The edges of a simulation: honest ones, whose results depend on edge, round and model alone, and hostile ones."""

import asyncio
import random
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from websockets.exceptions import WebSocketException

from edge.learner import Holdings, Measured, Trained
from edge.memory import Memory
from shared.codec import Frame, encode
from shared.errors import LinkClosed, ProtocolError, Unreachable
from shared.link import Link, connect
from shared.messages import Evaluate, Evaluation, Hello, Ready, Receipt, Role, ToEdge, Train, Update, Welcome
from shared.tensors import ModelSpec, Tensors
from tests.simulation.referee import EXAMPLES, Made, Referee
from tests.together.bad_updates import BAD


def result_of(edge: str, round: int, model: Tensors, variant: int = 0) -> Made:
    """What an edge's training gives."""
    dice = np.random.default_rng([zlib.crc32(edge.encode()), round, variant])
    tensors = {
        name: array + 1
        if array.dtype.kind in "biu"
        else (dice.uniform(-1.0, 1.0, array.shape) - 0.1 * array).astype(array.dtype)
        for name, array in model.items()
    }
    return Made(tensors, int(dice.integers(1, 1000)), float(dice.random()))


@dataclass
class PureLearner:
    """An honest edge's learner.

    Args:
        edge: its name.
        incarnation: counts how often edges were started, so that two lives of an edge are told apart.
        referee: is told what is done.
        pace: gives the virtual seconds that a training takes.
        memory: what it remembers from round to round: here, which rounds have counted.
    """

    edge: str
    incarnation: int
    referee: Referee
    pace: Callable[[], float]
    memory: Memory = field(default_factory=Memory)

    async def prepare(self, welcome: Welcome) -> Holdings:
        self.memory.open(welcome.run)
        self.referee.joins(self.edge, self.incarnation)
        return Holdings(EXAMPLES, 100 * EXAMPLES)

    async def train(self, task: Train, model: Tensors) -> Trained:
        self.referee.begins(self.edge, self.incarnation, task)
        self.referee.holds(self.edge, task, model)
        remembered = self.memory.at(task.round).get("rounds", np.zeros((0, 2), np.int64))
        self.referee.remembers(self.edge, self.incarnation, task, [(int(one), int(two)) for one, two in remembered])
        await asyncio.sleep(self.pace())
        made = result_of(self.edge, task.round, model)
        self.referee.made(self.edge, (task.run, task.round, task.attempt, task.model), made)
        self.referee.proposes(self.edge, self.incarnation, task)
        self.memory.propose(task, {"rounds": np.vstack([remembered, [[task.round, task.attempt]]])})
        return Trained(made.tensors, made.examples, {"loss": made.loss})

    async def evaluate(self, task: Evaluate, model: Tensors) -> Measured:
        await asyncio.sleep(0.1 * self.pace())
        return Measured(10, {"accuracy": 0.5})


@dataclass
class HostileEdge:
    """An edge that does what no edge should, one thing for each task; half of the time it is honest, to be trusted.

    Args:
        url, name: as of an agent.
        referee: is told what could rightly count.
        dice: chooses.
        did: counts what was done, by name.
        deadline: seconds that a round takes at most.
    """

    url: str
    name: str
    referee: Referee
    dice: random.Random
    did: Callable[[str], None]
    deadline: float

    async def live(self) -> None:
        """Come back for ever."""
        while True:
            with suppress(LinkClosed, ProtocolError, Unreachable, WebSocketException, TimeoutError):
                link = await connect(self.url)
                try:
                    await self._stay(link)
                finally:
                    link.abort()
            await asyncio.sleep(self.dice.uniform(0.2, 4.0))

    async def _stay(self, link: Link[ToEdge]) -> None:
        await link.send(Hello(versions=(1,), edge=self.name, role=Role.TRAINER))
        welcome = (await link.receive()).message
        if not isinstance(welcome, Welcome):
            return
        spec = ModelSpec(welcome.spec)
        link.expect(spec)
        await link.send(Ready(examples=EXAMPLES, data_bytes=1))
        model: Tensors = {}
        sent: list[Frame] = []
        if self.dice.random() < 0.2:
            await self._speak_up(link, welcome, spec)
        while True:
            heard = await link.receive()
            match heard.message:
                case Train() as task:
                    if heard.segments:
                        model = spec.views(heard.segments)
                    await self._answer(link, task, model, spec, sent)
                case Evaluate() as task:
                    if heard.segments:
                        model = spec.views(heard.segments)
                    await link.send(
                        Evaluation(run=task.run, round=task.round, model=task.model, examples=0, metrics={})
                    )
                case Receipt() as receipt:
                    self.referee.receipt(self.name, receipt)
                case _:
                    pass

    async def _answer(
        self, link: Link[ToEdge], task: Train, model: Tensors, spec: ModelSpec, sent: list[Frame]
    ) -> None:
        deed = self.dice.choice(DEEDS)
        if deed != "honest":
            self.did(f"hostile-{deed}")
        await asyncio.sleep(self.dice.uniform(0.01, 2.0))
        honest = self._update(task, model, spec)
        match deed:
            case "bad":
                for why in self.dice.sample(sorted(BAD), 3):
                    await link.send(self._bad(task, model, spec, why))
                if self.dice.random() < 0.5:
                    await link.send(honest)
            case "duplicate":
                for variant in (0, 0, 1, 2, 0):
                    await link.send(self._update(task, model, spec, variant=variant))
            case "late":
                await asyncio.sleep(self.deadline * self.dice.uniform(0.8, 1.3))
                await link.send(honest)
            case "replay":
                for frame in self.dice.sample(sent, min(3, len(sent))):
                    await link.send(frame)
                await link.send(honest)
            case "garbage":
                body = self.dice.randbytes(self.dice.randint(0, 300))
                await link.send(Frame((body,), len(body)))
            case "huge":
                await link.send(Frame((bytes(200_000),), 200_000))
            case "torn":
                await self._tear(link, honest)
            case "silent":
                pass
            case "liar":
                await link.send(self._update(task, model, spec, examples=10_000_000))
            case _:
                await link.send(honest)
                sent.append(honest)

    async def _speak_up(self, link: Link[ToEdge], welcome: Welcome, spec: ModelSpec) -> None:
        """Answer the round that is probably open without having been asked."""
        self.did("hostile-unasked")
        made = result_of(self.name, welcome.round, spec.views([bytes(tensor.nbytes) for tensor in spec.tensors]), 4)
        task = Train(
            run=welcome.run,
            round=welcome.round + 1,
            attempt=1,
            model=welcome.model,
            seconds=1.0,
            plan=welcome.plan,
        )
        self.referee.made(self.name, (task.run, task.round, task.attempt, task.model), made)
        await link.send(self._frame(task, spec, made))

    async def _tear(self, link: Link[ToEdge], frame: Frame) -> None:
        """Begin a message and go away."""
        whole = bytes(frame.pieces[0])

        async def half_of_it() -> AsyncIterator[bytes]:
            yield whole[: len(whole) // 2]
            await asyncio.sleep(self.dice.uniform(0.0, 1.0))
            link.abort()
            yield whole[len(whole) // 2 :]

        await link._connection.send(half_of_it())

    def _update(
        self, task: Train, model: Tensors, spec: ModelSpec, *, variant: int = 0, examples: int | None = None
    ) -> Frame:
        made = result_of(self.name, task.round, model, variant)
        if examples is not None:
            made = Made(made.tensors, examples, made.loss / 2)
        self.referee.made(self.name, (task.run, task.round, task.attempt, task.model), made)
        return self._frame(task, spec, made)

    def _bad(self, task: Train, model: Tensors, spec: ModelSpec, why: str) -> Frame:
        changes = dict(BAD[why])
        made = result_of(self.name, task.round, model, 3)
        tensors = changes.pop("tensors", made.tensors)
        if set(changes) <= {"run", "round", "attempt", "model"} and tensors is made.tensors:  # right, for another round
            header = {"run": task.run, "round": task.round, "attempt": task.attempt, "model": task.model, **changes}
            self.referee.made(self.name, (header["run"], header["round"], header["attempt"], header["model"]), made)
        return self._frame(task, spec, Made(tensors, made.examples, made.loss), **changes)

    def _frame(self, task: Train, own: ModelSpec, made: Made, **changes: object) -> Frame:
        said = {
            "run": task.run,
            "round": task.round,
            "attempt": task.attempt,
            "model": task.model,
            "spec": own.digest,
            "examples": made.examples,
            "metrics": {"loss": made.loss},
            "seconds": 0.0,
            **changes,
        }
        return encode(Update(**said), made.tensors.values())  # type: ignore[arg-type]


DEEDS = (
    "honest", "honest", "honest", "honest", "honest", "honest",
    "bad", "bad", "duplicate", "late", "replay", "garbage", "huge", "torn", "silent", "liar",
)  # fmt: skip


class Stranger(asyncio.Protocol):
    """Somebody who knocks at the port and is no edge."""

    def __init__(self, first_words: bytes) -> None:
        self.first_words = first_words

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self.first_words)  # type: ignore[attr-defined]


async def knock(dice: random.Random, host: str, port: int) -> None:
    """Open a socket, send garbage, half a request or nothing, and stay for a while."""
    words = dice.choice(
        (b"", b"GET / HTTP/1.1\r\nHost: hub\r\n", dice.randbytes(50) + b"\r\n\r\n", b"\x16\x03\x01" * 2000)
    )
    with suppress(OSError):
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: Stranger(words), host, port)
        await asyncio.sleep(dice.uniform(0.0, 30.0))
        transport.abort()


def watched(link: Link[ToEdge], edge: str, referee: Referee) -> Link[ToEdge]:
    """Have `referee` see the receipts that an honest edge reads."""
    receive: Callable[[], Awaitable[object]] = link.receive

    async def receive_and_tell() -> object:
        heard = await receive()
        if isinstance(heard.message, Receipt):  # type: ignore[attr-defined]
            referee.receipt(edge, heard.message)  # type: ignore[attr-defined]
        return heard

    link.receive = receive_and_tell  # type: ignore[method-assign, assignment]
    return link
