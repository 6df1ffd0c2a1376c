"""One connection to the hub, from Hello to the end: gets ready, takes tasks, hands in answers."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import assert_never

import msgspec

from edge.learner import Learner
from edge.memory import Memory
from shared.codec import Decoded, Frame, encode
from shared.errors import ConfigError, LinkClosed, ProtocolError, TurnedAway
from shared.link import Link
from shared.messages import (
    ABANDONED,
    Evaluate,
    Evaluation,
    Farewell,
    Goodbye,
    Hello,
    News,
    Plan,
    Ready,
    Receipt,
    Task,
    ToEdge,
    Train,
    Update,
    Welcome,
)
from shared.tensors import ModelSpec, Tensors

Key = tuple[str, str, int, int, Plan]
"""What makes two tasks the same work; a hub that was resumed may have another plan."""

_OUR_FAULT = (1002, 1009)
"""Close codes by which a hub says that this edge broke the protocol: coming back would only repeat it."""


@dataclass
class Desk:
    """What an edge is working on. It outlives connections: work goes on while the hub cannot be reached."""

    model: str | None = None
    """Hash of the model on the desk."""
    tensors: Tensors = field(default_factory=dict)
    task: Key | None = None
    work: "asyncio.Task[Frame] | None" = None
    """The answer in the making, or made."""
    memory: Memory = field(default_factory=Memory)
    """What this edge remembers from round to round."""

    coming: float | None = None
    """When the model that is coming, or has come last, began to arrive, on the event loop's clock."""

    def make_room(self) -> None:
        """Let go of the model, unless it is worked with: the next one is coming, and takes its memory."""
        self.coming = asyncio.get_running_loop().time()
        if self.work is None or self.work.done():
            self.let_go()

    def let_go(self) -> None:
        """Hold no model any more."""
        self.model, self.tensors = None, {}

    def drop(self) -> None:
        """Give up the present work: something newer has come."""
        if self.work is not None:
            self.work.cancel()
        self.task = self.work = None


@dataclass
class EdgeSession:
    """One stay at the hub.

    Args:
        link: to the hub.
        hello: says who this is.
        learner: does the work.
        desk: what is being worked on.
        tell: takes a line for the log.
    """

    link: Link[ToEdge]
    hello: Hello
    learner: Learner
    desk: Desk
    tell: Callable[[str], None]
    welcomed: bool = False
    """Whether the hub has taken this edge in."""
    _new: asyncio.Event = field(default_factory=asyncio.Event)

    async def stay(self) -> Goodbye:
        """Stay until the hub says goodbye, and give what it said.

        Raises:
            LinkClosed: the connection was lost; the desk keeps the work.
            ProtocolError: the hub said what may not be said.
            TurnedAway: the hub did not understand what this edge said.
            ConfigError: this edge's app does not fit the run, or fails; the hub was told.
            WentAway: the (simulated) device goes offline.
        """
        await self.link.send(self.hello)
        welcome = (await self.link.receive()).message
        if isinstance(welcome, Goodbye):
            return welcome
        if not isinstance(welcome, Welcome):
            raise ProtocolError("the hub's first word must be Welcome or Goodbye")
        if welcome.carried > len(welcome.spec) or any(place >= len(welcome.spec) for place in welcome.averaged):
            raise ProtocolError("the hub's Welcome tells of more tensors than its spec has")
        self.welcomed = True
        try:
            await self._get_ready(welcome)
            return await self._work(ModelSpec(welcome.spec))
        except ConfigError as error:
            with suppress(LinkClosed):  # the hub is gone too; what is wrong here is the better news
                await self.link.send(Goodbye(code=Farewell.LEAVING, reason=str(error)[:1000]))
                await self.link.close()
            raise
        except LinkClosed as closed:
            if closed.code in _OUR_FAULT:
                raise TurnedAway(
                    f"the hub closed the connection because of what this edge sent: {closed.reason}"
                ) from None
            raise

    async def _get_ready(self, welcome: Welcome) -> None:
        self.tell(f"joined run {welcome.run} ({welcome.algorithm}, round {welcome.round} of {welcome.rounds})")
        holdings = await self.learner.prepare(welcome)
        self.link.expect(ModelSpec(welcome.spec))
        self.link.before_long(self.desk.make_room)
        if list(self.desk.tensors) != [tensor.name for tensor in welcome.spec]:
            self.desk.let_go()  # a hub that was resumed with another algorithm sends something else along
        await self.link.send(Ready(examples=holdings.examples, data_bytes=holdings.data_bytes, model=self.desk.model))

    async def _work(self, spec: ModelSpec) -> Goodbye:
        """Listen and hand in answers, side by side, until the hub says goodbye or one of the two fails."""
        listening = asyncio.create_task(self._listen(spec))
        delivering = asyncio.create_task(self._deliver())
        try:
            await asyncio.wait([listening, delivering], return_when=asyncio.FIRST_COMPLETED)
            if delivering.done():
                delivering.result()
            return await listening
        finally:
            for task in (listening, delivering):
                task.cancel()
            await asyncio.gather(listening, delivering, return_exceptions=True)

    async def _listen(self, spec: ModelSpec) -> Goodbye:
        while (goodbye := await self._hear(spec)) is None:
            pass
        return goodbye

    async def _hear(self, spec: ModelSpec) -> Goodbye | None:
        """Hear one message. It must not outlive this call: the next model shall have the memory of this one."""
        heard = await self.link.receive()
        match heard.message:
            case Train() | Evaluate() as task:
                self._take(task, heard, spec)
            case Receipt() as receipt:
                await self.desk.memory.aside(partial(self.desk.memory.heard, receipt))
                if receipt.code == ABANDONED:
                    if self.desk.task and self.desk.task[2:4] == (receipt.round, receipt.attempt):
                        self.tell(f"round {receipt.round}: does not count: {receipt.reason}")
                elif not receipt.accepted:
                    self.tell(f"round {receipt.round}: refused ({receipt.code}): {receipt.reason}")
            case Goodbye() as goodbye:
                return goodbye
            case News():
                pass
            case Welcome():
                raise ProtocolError("Welcome is said once")
            case message:
                assert_never(message)
        return None

    def _take(self, task: Task, heard: Decoded[ToEdge], spec: ModelSpec) -> None:
        """Put a task on the desk, unless it is the one that lies there already."""
        if heard.segments:
            self.desk.model, self.desk.tensors = task.model, spec.views(heard.segments)
        elif self.desk.model != task.model:
            raise ProtocolError(f"the hub left out model {task.model[:12]}, which this edge does not hold")
        if isinstance(task, Train) and self.desk.coming is not None:
            spent = asyncio.get_running_loop().time() - self.desk.coming  # seconds were left when it was sent
            task = msgspec.structs.replace(task, seconds=max(0.0, task.seconds - spent))
        self.desk.coming = None
        key = (type(task).__name__, task.run, task.round, task.attempt if isinstance(task, Train) else 0, task.plan)
        if key != self.desk.task:
            self.desk.drop()
            self.desk.task = key
            self.desk.work = asyncio.create_task(self._answer(task, self.desk.tensors, spec))
        self._new.set()

    async def _answer(self, task: Task, model: Tensors, spec: ModelSpec) -> Frame:
        """Do a task; give the encoded answer."""
        clock = asyncio.get_running_loop().time
        began = clock()
        match task:
            case Train():
                trained = await self.learner.train(task, model)
                seconds = clock() - began
                loss = trained.metrics.get("loss")
                self.tell(
                    f"round {task.round}: trained on {trained.examples} examples in {seconds:.1f} s"
                    + (f", loss {loss:.4g}" if loss is not None else "")
                )
                update = Update(
                    run=task.run,
                    round=task.round,
                    attempt=task.attempt,
                    model=task.model,
                    spec=spec.digest,
                    examples=trained.examples,
                    metrics=trained.metrics,
                    seconds=seconds,
                )
                return encode(update, (trained.tensors[tensor.name] for tensor in spec.tensors))
            case Evaluate():
                measured = await self.learner.evaluate(task, model)
                return encode(
                    Evaluation(
                        run=task.run,
                        round=task.round,
                        model=task.model,
                        examples=measured.examples,
                        metrics=measured.metrics,
                    )
                )

    async def _deliver(self) -> None:
        """Hand in each answer once, as soon as it is made; work that is given up delivers nothing."""
        delivered = None
        while True:
            await self._new.wait()
            self._new.clear()
            work = self.desk.work
            if work is None or work is delivered:
                continue
            await asyncio.wait([work])
            if work.cancelled():
                continue
            await self.link.send(work.result())
            delivered = work
