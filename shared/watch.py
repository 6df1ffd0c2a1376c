"""Watches what one connection costs: cuts whoever is silent, drips or does not read, and makes long messages queue."""

import asyncio
import socket
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidMessage
from websockets.frames import CloseCode
from websockets.http11 import Request
from websockets.protocol import CLOSED, CONNECTING, OPEN, SERVER

from shared.budget import Budget, Room, Store
from shared.intake import Intake
from shared.outlet import Outlet

_CLOSE_WITHIN = 5.0
_MOST_PONGS = 64 * 1024
_A_REQUEST = Request("", Headers())
_REFUSAL = b"This hub answers websockets, and GET requests that have no body.\n"
_NOT_A_REQUEST = b"\r\n".join(
    (
        b"HTTP/1.1 405 Method Not Allowed",
        b"Allow: GET",
        b"Content-Type: text/plain; charset=utf-8",
        b"Connection: close",
        b"Content-Length: %d" % len(_REFUSAL),
        b"",
        _REFUSAL,
    )
)
_MOST_MESSAGES = 2  # that wait for a session whose inbox is full

# Linux buffers megabytes for a slow reader, and says that there is room again when a third is gone: for a minute, at
# 32 KiB a second, a send looks stuck that is not. With this option it says so whenever less than that is unsent.
_NOT_SENT = getattr(socket, "TCP_NOTSENT_LOWAT", None)
_MOST_NOT_SENT = 256 * 1024


@dataclass(frozen=True)
class Limits:
    """How much one side bears from the other.

    Args:
        ping_every: seconds between pings, which keep addresses alive in routers.
        silence: seconds without a byte after which the other side is taken for dead. Three pings go unanswered then.
        window, floor: within a message, at least `floor` bytes a second on average over `window` seconds must come.
        stalled: seconds that a send may wait without any progress.
        greeting: seconds for everything up to Hello, the HTTP handshake included.
    """

    ping_every: float = 20.0
    silence: float = 80.0
    window: float = 15.0
    floor: float = 4096.0
    stalled: float = 30.0
    greeting: float = 5.0


OF_A_HUB = Limits()
OF_AN_EDGE = Limits(ping_every=float("inf"), floor=0.0, stalled=float("inf"))
"""A hub may let an edge wait for as long as it likes, as long as it shows that it is alive: it pings, edges answer."""


@dataclass(frozen=True)
class Whole:
    """A message as it came, and the room that it takes, if any."""

    data: memoryview
    room: Room | None


class Watched(Connection, asyncio.BufferedProtocol):
    """A websocket whose every byte is seen, and whose messages are not copied: the library offers neither.

    The library shakes hands, answers pings and closes; messages come through `shared.intake` and go through
    `shared.outlet`. Of its insides this class uses what its Sans-I/O layer documents (`protocol.state`, `fail`, and the
    bytes that go in and out) and `send_data`, `send_context` and `close_exc` of its connection. The tests of this file
    fail if an upgrade changes what they mean.

    While this side does not read (a full queue, no room), the other side's clock stands still.
    """

    def __init__(self, *args: Any, limits: Limits, memory: Budget | Store, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.cut_because = ""
        """Why this side cut the connection, if it did."""
        self.greet_by = self.loop.time() + limits.greeting
        """When Hello must have come, in seconds of the event loop's clock."""
        self.limit = self.protocol.max_message_size or 0
        """Longest message that may come, in bytes."""
        self.before_long: Callable[[], None] = _nothing
        """Called when a long message begins: whoever can spare the memory of the last one may let go of it now."""
        self.begun: Callable[[], None] = _nothing
        """Called when a message begins to come that is not there at once."""
        masked = self.protocol.side is SERVER
        this = weakref.proxy(self)  # a connection that has ended is freed at once, and not by a collection of garbage
        self._intake = Intake(this, masked=masked)
        self.outlet = Outlet(this, self.loop, masked=not masked)
        self._heard = self._pinged = self._moved = self.loop.time()
        self._limits = limits
        self._memory = memory
        self._room: Room | None = None
        self._messages: list[Whole] = []  # a deque of none takes 760 bytes
        self._awaited: asyncio.Future[None] | None = None
        self._began: float | None = None
        self._told = -1
        self._seen = 0
        self._full = False
        self._stopped_at: float | None = None
        self._unsent = self._pongs = 0

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if transport.get_extra_info("sslcontext"):
            self.write_limit_high = 1  # asyncio's TLS says that it is full from here on, its sockets beyond it
        super().connection_made(transport)
        if self.protocol.side is SERVER and (wire := transport.get_extra_info("socket")) and _NOT_SENT:
            wire.setsockopt(socket.IPPROTO_TCP, _NOT_SENT, _MOST_NOT_SENT)
        self._timer = self.loop.call_later(self._limits.window / 4, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._intake.end()
        self._give_room_back()  # for a message that will not come any more
        self.outlet.lost()
        super().connection_lost(exc)
        self._wake()
        self.protocol.parser.close()  # its frame refers to the protocol
        if self.protocol.parser_exc:
            self.protocol.parser_exc.__traceback__ = None  # and so does this

    def pause_writing(self) -> None:
        super().pause_writing()
        self._moved, self._unsent = self.loop.time(), self.transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.loop.call_soon(self.outlet.go_on)  # not at once: asyncio's TLS says so while it is written to

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._intake.room()

    def buffer_updated(self, nbytes: int) -> None:
        self._heard = self.loop.time()
        ends = self._intake.ends
        if self._room and self._room.memory is not None:
            self._room.came += nbytes
        self._intake.came(nbytes)
        if self._intake.between:
            self._began = None
        elif self._began is None or self._intake.ends != ends:
            self._began, self._seen = self._heard, 0
            self._look_soon()
        if self._intake.within and self._told != self._intake.ends:
            self._told = self._intake.ends
            self.begun()

    def send_data(self) -> None:
        if not self.outlet.holds:
            super().send_data()

    # What the intake and the outlet ask.

    @property
    def shaking_hands(self) -> bool:
        """Whether the opening handshake is still under way."""
        return self.protocol.state is CONNECTING

    @property
    def is_open(self) -> bool:
        """Whether messages may be sent."""
        return self.protocol.state is OPEN

    def allot(self, nbytes: int) -> memoryview | None:
        """Give memory for a long message, or None and have the intake go on later."""
        self.before_long()
        if isinstance(self._memory, Store):
            return self._memory.take(nbytes)
        self._room = self._memory.ask(nbytes, self._granted)
        if self._room.memory is None:
            self._stop_reading()
        return self._room.memory

    def pass_on(self, data: memoryview) -> None:
        """Give the library what is its business."""
        unsent = self._owed
        super().data_received(data)  # type: ignore[arg-type]  # it adds it to a bytearray
        self._count_pongs(unsent)
        if self.protocol.close_rcvd or self.protocol.parser_exc:  # the latter if there was something wrong with it
            self._intake.end()

    def whole(self, message: memoryview) -> None:
        """Take in a message."""
        if self._room:
            self._room.budget.is_whole(self._room)
        self._messages.append(Whole(message, self._room))
        self._room = None
        if len(self._messages) > _MOST_MESSAGES and not self._full:
            self._full = True
            self._stop_reading()
        self._wake()

    def refuse(self, code: CloseCode, reason: str) -> None:
        """Fail the connection: what comes breaks the protocol."""
        self.protocol.fail(code, reason)
        self.pass_on(memoryview(b""))  # has the library send the close, and set its deadline
        self._give_room_back()

    # What links call.

    def forget_handshake(self) -> None:
        """Let go of what nobody asks for after the handshake: 3 KiB. That there was a request is still asked."""
        self.request, self.response = _A_REQUEST, None

    async def next_message(self) -> Whole:
        """Wait for the next message.

        Raises:
            ConnectionClosed: there will be none.
        """
        while not self._messages:
            if self.protocol.state is CLOSED:
                raise self.close_exc
            self._awaited = self.loop.create_future()
            await self._awaited
        message = self._messages.pop(0)
        if self._full and not self._messages:
            self._full = False
            self._go_on_reading()
        return message

    async def send_message(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Send one message in fragments, between which pings and pongs can pass.

        Raises:
            ConnectionClosed: the connection has ended, or ended before all of it was out.
        """
        if self.is_open:
            self._look_soon()
            if await self.outlet.send(pieces):
                return
        if self.is_open:  # its socket has failed
            await asyncio.shield(self.connection_lost_waiter)
        async with self.send_context():  # waits for the end, and raises what it was
            ...

    async def close(
        self, code: CloseCode | int = CloseCode.NORMAL_CLOSURE, reason: str = "", *, within: float = _CLOSE_WITHIN
    ) -> None:
        """Close in good order, within seconds, also in the middle of a long message and if nobody reads.

        The library would wait for ever for whoever does not read. No further message is taken.
        """
        self.leave()
        try:
            async with asyncio.timeout(within), self.send_context():
                self.protocol.send_close(code, reason)
        except ConnectionClosed:
            pass
        except TimeoutError:
            self.cut("it did not take the close")

    def leave(self) -> None:
        """Take no more messages, and give back all room. What comes is read past: the other side's close is in it."""
        self._intake.drop()
        self.begun = _nothing  # what it refers to refers to this
        for whole in self._messages:
            if whole.room:
                whole.room.give_back()
        self._messages.clear()
        self._give_room_back()
        self._full = False
        if self._stopped_at is not None:
            self._go_on_reading()

    def cut(self, because: str) -> None:
        """Cut the connection at once."""
        self.cut_because = self.cut_because or because
        self.transport.abort()

    # What this class adds.

    def _granted(self) -> None:
        """Go on with a message that waited for room."""
        assert self._room is not None, "whoever gives it up is not granted it"
        assert self._room.memory is not None, "it is granted with its memory"
        self._go_on_reading()
        self._intake.go_on(self._room.memory)

    def _give_room_back(self) -> None:
        if self._room:
            self._room.give_back()
        self._room = None

    def _wake(self) -> None:
        if self._awaited and not self._awaited.done():
            self._awaited.set_result(None)

    @property
    def _owed(self) -> int:
        """How many bytes of the library's wait to be written."""
        waiting = sum(map(len, self.protocol.writes)) if self.outlet.holds else 0
        return self.transport.get_write_buffer_size() + waiting

    def _look_soon(self) -> None:
        """Look within a quarter of a window: something is under way."""
        due = self.loop.time() + self._limits.window / 4
        if self._timer.when() > due:
            self._timer.cancel()
            self._timer = self.loop.call_at(due, self._look)

    def _look(self) -> None:
        """Look after the connection: four times in a window while something is under way, else seldom."""
        limits, now = self._limits, self.loop.time()
        busy = self._began is not None or self.paused or self.outlet.waits
        wait = limits.window / 4 if busy else max(limits.window / 4, min(limits.ping_every / 2, limits.silence / 4))
        self._timer = self.loop.call_later(wait, self._look)
        if self.paused and (unsent := self.transport.get_write_buffer_size()) < self._unsent:
            self._moved, self._unsent = now, unsent
        moved = max(self._moved, self.outlet.moved)
        read_until = now if self._stopped_at is None else self._stopped_at
        if (self.paused or self.outlet.waits) and now - moved >= limits.stalled:
            self.cut(f"nothing could be sent for {limits.stalled:g} s")
        elif read_until - self._heard >= limits.silence:
            self.cut(f"nothing came for {limits.silence:g} s")
        elif self._began is not None and (seconds := read_until - self._began) >= limits.window:
            size = self._intake.held
            if size - self._seen < limits.floor * seconds:
                self.cut(f"a message came at less than {limits.floor:g} bytes a second")
            self._began, self._seen = read_until, size
        if now - self._pinged >= limits.ping_every and self.is_open and not (self.paused or self.outlet.waits):
            self._pinged = now
            self.protocol.send_ping(b"")
            self.send_data()

    def _stop_reading(self) -> None:
        assert self._stopped_at is None, "a message asks for room only when those before it have been read on"
        self._stopped_at = self.loop.time()
        self.transport.pause_reading()

    def _go_on_reading(self) -> None:
        assert self._stopped_at is not None
        stood, self._stopped_at = self.loop.time() - self._stopped_at, None
        self._heard += stood
        self._began = None if self._began is None else self._began + stood
        self.transport.resume_reading()

    def _count_pongs(self, unsent: int) -> None:
        """Cut whoever pings without reading the pongs: the library lets them pile up."""
        now_unsent = self._owed
        self._pongs = self._pongs + now_unsent - unsent if unsent else now_unsent
        if self._pongs > _MOST_PONGS:
            self.cut("it pings and does not read the pongs")


class WatchedByHub(Watched, ServerConnection):
    """A hub's end of a connection."""

    def send_data(self) -> None:
        # The library drops a request that has a body, or is no HTTP, without a word.
        dropped = self.protocol.state is CONNECTING and isinstance(self.protocol.handshake_exc, InvalidMessage)
        if dropped and self.protocol.writes and not self.transport.is_closing():
            self.transport.write(_NOT_A_REQUEST)
        super().send_data()


class WatchedByEdge(Watched, ClientConnection):
    """An edge's end of a connection."""


def _nothing() -> None: ...


def by_hub(limits: Limits, budget: Budget) -> Any:
    """Give what makes a hub's connections, for `websockets.asyncio.server.serve`."""
    return partial(WatchedByHub, limits=limits, memory=budget)


def by_edge(limits: Limits, store: Store) -> Any:
    """Give what makes an edge's connections, for `websockets.asyncio.client.connect`."""
    return partial(WatchedByEdge, limits=limits, memory=store)
