"""One edge's stay, from its first word to its last: greets it, hands on what it says, sends it what is newest."""

import asyncio
import gc
from collections.abc import Awaitable, Callable

from hub.connections.inbox import Answered, Inbox, Joined, Left
from hub.connections.movements import Movements
from hub.connections.roster import Broadcast, Roster
from hub.connections.turnstile import Turnstile
from hub.events import EdgeJoined, EdgeLeft, Stage, StrangerRefused, to_line
from hub.feed import Feed
from hub.rules.access import Access, Rank
from shared.errors import LinkClosed, ProtocolError
from shared.link import Link
from shared.messages import (
    PROTOCOL_VERSIONS,
    Evaluate,
    Evaluation,
    Farewell,
    Fetch,
    Goodbye,
    Hello,
    Look,
    Message,
    News,
    Order,
    Ready,
    Role,
    ToHub,
    Train,
    Update,
    Welcome,
)
from shared.tensors import ModelSpec

_CLOSE_STRANGER_WITHIN = 0.5  # for its answer to a close: a stranger has had its time already
_GOODBYE_WITHIN = 3.0
_MOST_LETTERS = 256
_FREEZE_AFTER = 200  # edges that have joined: a collection goes through no more than these, in 20 ms
_THAW_AFTER = 1000  # edges that have left

_POLICY = 1008
_PROTOCOL = 1002
_TRY_LATER = 1013


class EdgeSession:
    """An edge that is ready, and the two directions of its link."""

    def __init__(self, link: Link[ToHub], *, hello: Hello, ready: Ready, movements: Movements) -> None:
        self.edge = hello.edge
        self.role = hello.role
        self.examples = ready.examples
        self._link = link
        self._holds = ready.model
        self._movements = movements
        self._task: Broadcast | None = None
        self._doing: Train | Evaluate | None = None
        self._letters: list[Message] = []
        self._writing: asyncio.Task[None] | None = None
        link.when_begun(self._answers)

    def _answers(self) -> None:
        """Take note that an answer begins to come."""
        if self._doing:
            self._movements.note(self.edge, self._doing, Stage.UPLOADING)

    def offer(self, task: Broadcast) -> None:
        """Send `task` when the line is free, in place of an older one that has not gone out."""
        self._task = task
        self._write()

    def say(self, message: Message) -> None:
        """Send a small message when the line is free; an edge that lets them pile up is cut off."""
        if len(self._letters) >= _MOST_LETTERS:
            self.cut()
        self._letters.append(message)
        self._write()

    def cut(self) -> None:
        """Cut the connection at once, without a word."""
        self._link.abort()

    async def dismiss(self, goodbye: Goodbye, code: int) -> None:
        """Say goodbye and close; whoever does not listen is cut off after seconds."""
        try:
            async with asyncio.timeout(_GOODBYE_WITHIN):
                await self._link.send(goodbye)
        except (LinkClosed, TimeoutError):
            pass  # in the middle of a long message there is no place for another, but there is one for a close
        await self._link.close(code, goodbye.reason, within=_GOODBYE_WITHIN)

    def _write(self) -> None:
        """Have somebody write what is offered and said, as long as there is something: an idle edge needs nobody."""
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all())

    async def _write_all(self) -> None:
        try:
            while self._letters or self._task:
                if self._letters:
                    await self._link.send(self._letters.pop(0))
                elif broadcast := self._task:
                    self._task, task = None, broadcast.task
                    frame = broadcast.light if self._holds == task.model else broadcast.full
                    self._doing = None  # what begins to come now is late for the task before
                    self._movements.note(self.edge, task, Stage.DOWNLOADING)
                    await self._link.send(frame)
                    self._holds, self._doing = task.model, task
                    self._movements.note(self.edge, task, Stage.TRAINING, nbytes=frame.nbytes)
        except LinkClosed:
            pass  # the reading side hears of it too, and says so

    async def stop_writing(self) -> None:
        """Send nothing more."""
        self._letters, self._task = [], None
        if self._writing:
            self._writing.cancel()
            await asyncio.wait([self._writing])

    async def read(self, inbox: Inbox, clock: Callable[[], float]) -> str:
        """Hand on what the edge says until it leaves; give its reason."""
        while (reason := await self._hear(inbox, clock)) is None:
            await inbox.has_room()
        return reason

    async def _hear(self, inbox: Inbox, clock: Callable[[], float]) -> str | None:
        """Hand on one message. It must not outlive this call: 200 edges that wait would keep 200 models in memory."""
        heard = await self._link.receive()
        match heard.message:
            case Update() | Evaluation():
                inbox.post(Answered(self.edge, heard, clock()))  # type: ignore[arg-type]  # narrowed by match
                return None
            case Goodbye() as goodbye:
                heard.release()
                return goodbye.reason or goodbye.code
            case Hello() | Ready():
                heard.release()
                raise ProtocolError("Hello and Ready are said once, at the beginning")
            case Order() | Look() | Fetch():
                heard.release()
                raise ProtocolError("only a viewer may ask for that")


class Reception:
    """Greets each connection and stays with it until it ends."""

    def __init__(
        self,
        *,
        welcome: Callable[[int], Awaitable[Welcome]],
        roster: Roster,
        inbox: Inbox,
        feed: Feed,
        movements: Movements,
        access: Access,
        show: Callable[[Link[ToHub], Rank], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        """Get to know the house.

        Args:
            welcome: makes the Welcome for a protocol version, as soon as the hub has a model.
            roster, inbox, feed: where edges are listed, what they say goes, and news is told.
            movements: takes note of what edges are doing.
            access: who may come in.
            show: shows the board to a viewer of some rank, until it leaves or the hub stops.
            clock: the hub's steady clock, in seconds.
        """
        self._welcome = welcome
        self._roster = roster
        self._inbox = inbox
        self._feed = feed
        self._movements = movements
        self._access = access
        self._show = show
        self._clock = clock
        self._turnstile = Turnstile(clock)
        self._joined = self._left = 0

    async def receive(self, link: Link[ToHub]) -> None:
        """See one connection through, from greeting to farewell; no failure of it reaches anybody else."""
        try:
            hello = await self._hello(link)
            if hello is None:
                return
            if hello.role in (Role.WATCHER, Role.VIEWER):
                link.count_apart()
            match hello.role:
                case Role.WATCHER:
                    await self._tell(link)
                case Role.VIEWER:
                    await self._show(link, self._access.rank(hello.key))
                case Role.TRAINER | Role.EVALUATOR:
                    await self._host(link, hello)
        except ProtocolError as error:
            self._feed.publish(StrangerRefused(peer=link.peer, reason=str(error)))
            await link.close(_PROTOCOL, str(error), within=_CLOSE_STRANGER_WITHIN)
        except LinkClosed as closed:
            # It left before it was an edge: nothing happened. Or the hub stops before it could welcome anybody.
            await link.close(closed.code, closed.reason, within=_CLOSE_STRANGER_WITHIN)

    async def _hello(self, link: Link[ToHub]) -> Hello | None:
        """Hear who is there; None if it was turned away."""
        try:
            async with asyncio.timeout_at(link.greet_by):
                hello = await _next(link)
        except TimeoutError:
            raise ProtocolError("no Hello came in time") from None
        if not isinstance(hello, Hello):
            raise ProtocolError("the first message must be Hello")
        if not set(hello.versions) & set(PROTOCOL_VERSIONS):
            ours, theirs = max(PROTOCOL_VERSIONS), max(hello.versions)
            older, fix = ("hub", "the hub") if theirs > ours else ("edge", "this edge")
            reason = (
                f"the hub speaks protocol version {ours}, this edge {theirs}: the {older} is older. "
                f"Update {fix}: pip install --upgrade fedhub"
            )
            await self._turn_away(link, Farewell.PROTOCOL_VERSION, reason)
            return None
        if not self._access.admits(hello.role, hello.key):
            wrong = "its key is wrong" if hello.key else "it showed no key"
            reason = (
                f"{wrong}: the hub's terminal shows one behind the # of its addresses, "
                "and keys.json in the hub's folder of runs has it"
            )
            await self._turn_away(link, Farewell.REFUSED, reason)
            return None
        return hello

    async def _turn_away(self, link: Link[ToHub], code: Farewell, reason: str) -> None:
        self._feed.publish(StrangerRefused(peer=link.peer, reason=reason))
        await link.send(Goodbye(code=code, reason=reason))
        await link.close(_POLICY, code)

    async def _host(self, link: Link[ToHub], hello: Hello) -> None:
        """Have an edge as a guest: welcome, ready, and then both directions until the link ends."""
        wait = self._turnstile.wait(hello.edge)
        if wait is None:
            raise LinkClosed(_TRY_LATER, f"{hello.edge} joins too often")
        if wait:
            await link.wait_closed(wait)
        version = max(set(hello.versions) & set(PROTOCOL_VERSIONS))
        welcome = await self._welcome(version)
        await link.send(welcome)
        link.expect(ModelSpec(welcome.spec))
        ready = await _next(link)
        if isinstance(ready, Goodbye):
            self._feed.publish(StrangerRefused(peer=link.peer, reason=f"{hello.edge} left: {ready.reason}"))
            return
        if not isinstance(ready, Ready):
            raise ProtocolError("after Welcome comes Ready")
        session = EdgeSession(link, hello=hello, ready=ready, movements=self._movements)
        reason = "went away"
        if replaced := self._roster.add(session):
            self._roster.send_away(replaced, Farewell.REPLACED, f"another connection took the name {session.edge}")
        self._movements.flush()  # of its old connection, if it had one
        self._feed.publish(
            EdgeJoined(
                edge=session.edge,
                role=session.role,
                agent=hello.agent,
                examples=ready.examples,
                data_bytes=ready.data_bytes,
                here=self._here,
                kind=hello.kind,
            )
        )
        self._inbox.post(Joined(session.edge, self._clock()))
        self._spare_collector(joined=1)
        try:
            reason = await session.read(self._inbox, self._clock)
        except LinkClosed as closed:
            reason = closed.reason or reason
        except ProtocolError as error:
            reason = f"broke the protocol: {error}"
            await link.close(_PROTOCOL, str(error))
        finally:
            await session.stop_writing()
            self._spare_collector(left=1)
            if self._roster.remove(session):
                self._movements.flush()  # what it did came before that it left
                self._inbox.post(Left(session.edge, self._clock()))
                self._feed.publish(EdgeLeft(edge=session.edge, role=session.role, reason=reason, here=self._here))

    def _spare_collector(self, *, joined: int = 0, left: int = 0) -> None:
        """Have the garbage collector skip what is here to stay.

        It goes through all objects now and then: 10,000 idle edges made it stop the event loop for 450 ms. Of an edge
        that leaves, little is left for it to find (asyncio's transport, 2 KiB), so it need not look often.
        """
        self._joined += joined
        self._left += left
        if self._left > max(_THAW_AFTER, self._here):
            gc.unfreeze()
            self._left = 0
        elif self._joined >= _FREEZE_AFTER:
            gc.collect()  # or garbage would be frozen too; of what is not frozen yet, 20 ms
            gc.freeze()
            self._joined = 0

    @property
    def _here(self) -> int:
        return self._roster.count(Role.TRAINER)

    async def _tell(self, link: Link[ToHub]) -> None:
        """Tell a watcher the news until it leaves or the feed ends."""
        follower = self._feed.follow(recent=True)
        leaving = asyncio.create_task(link.receive())
        leaving.add_done_callback(lambda _: self._feed.forget(follower))
        try:
            async for stamped in follower:
                await link.send(News(facts=(to_line(stamped),)))
            if not leaving.done():
                await link.send(Goodbye(code=Farewell.DONE, reason="the hub has stopped"))
                await link.close(1000, "the hub has stopped")
        finally:
            self._feed.forget(follower)
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)


async def _next(link: Link[ToHub]) -> ToHub:
    """Hear a message that has nothing in it but its header."""
    heard = await link.receive()
    heard.release()
    if heard.segments:
        raise ProtocolError("no tensors belong here")
    return heard.message
