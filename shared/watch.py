"""Watches what one connection costs: cuts whoever is silent, drips or does not read, and makes long messages queue."""

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import DATA_OPCODES, CloseCode, Frame
from websockets.protocol import OPEN, Event

SMALL = 64 * 1024
"""A message up to this many bytes needs no room: it may hold news, but no model."""

_CLOSE_WITHIN = 5.0
_MOST_PONGS = 64 * 1024

# Linux buffers megabytes for a slow reader, and says that there is room again when a third is gone: for a minute, at
# 32 KiB a second, a send looks stuck that is not. With this option it says so whenever less than that is unsent.
_NOT_SENT = getattr(socket, "TCP_NOTSENT_LOWAT", None)
_MOST_NOT_SENT = 128 * 1024


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
OF_AN_EDGE = Limits(floor=0.0, stalled=float("inf"))
"""A hub may let an edge wait for as long as it likes, as long as it shows that it is alive."""


class Budget:
    """Memory for long messages that come in, given out in the order in which it is asked for."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.taken = 0
        self._waiting: OrderedDict[Room, None] = OrderedDict()

    def ask(self, nbytes: int, granted: Callable[[], None]) -> "Room":
        """Ask for room, and have `granted` called when it is there, which may be at once.

        A message that is longer than the whole budget gets all of it: then it is alone.
        """
        room = Room(self, min(nbytes, self.nbytes), granted)
        self._waiting[room] = None
        self._give_out()
        return room

    def take_back(self, room: "Room") -> None:
        """Have the room that one message took, or stood in line for; a second time does nothing."""
        if room in self._waiting:
            del self._waiting[room]
        elif not room.given_back:
            self.taken -= room.nbytes
        room.given_back = True
        self._give_out()

    def _give_out(self) -> None:
        while self._waiting:
            room = next(iter(self._waiting))
            if self.taken + room.nbytes > self.nbytes:
                return  # nobody overtakes: whoever needs much would wait for ever
            del self._waiting[room]
            self.taken += room.nbytes
            room.granted()


@dataclass(eq=False)
class Room:
    """Memory that one message takes, or stands in line for."""

    budget: Budget
    nbytes: int
    granted: Callable[[], None]
    given_back: bool = False

    def give_back(self) -> None:
        """Have no more need of it."""
        self.budget.take_back(self)


class Watched(Connection):
    """A websocket whose every byte is seen, which the library does not offer: it hands over whole frames.

    This class leans on insides of websockets: `protocol.reader.buffer` (a frame in the making),
    `protocol.current_size` (the frames before it of the same message), `recv_messages.pause` and `.resume`. The tests
    of this file fail if an upgrade changes what they mean.

    While this side does not read (a full queue, no room), the other side's clock stands still.
    """

    def __init__(self, *args: Any, limits: Limits, budget: Budget | None = None, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.cut_because = ""
        """Why this side cut the connection, if it did."""
        self.rooms: list[Room | None] = []
        """What the whole messages take that came and have not been received yet, in order."""
        self.greet_by = self.loop.time() + limits.greeting
        """When Hello must have come, in seconds of the event loop's clock."""
        self._heard = self._pinged = self._moved = self.loop.time()
        self._limits = limits
        self._budget = budget
        self._room: Room | None = None
        self._began: float | None = None
        self._seen = 0
        self._boundary = True
        self._stops, self._stopped_at = 0, 0.0
        self._unsent = self._pongs = 0

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if (wire := transport.get_extra_info("socket")) and _NOT_SENT:
            wire.setsockopt(socket.IPPROTO_TCP, _NOT_SENT, _MOST_NOT_SENT)
        self.recv_messages.pause = self._stop_reading
        self.recv_messages.resume = self._go_on_reading
        self._timer = self.loop.call_later(self._limits.window / 4, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        if self._room:  # for a message that will not come any more
            self._room.give_back()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._moved, self._unsent = self.loop.time(), self.transport.get_write_buffer_size()

    def data_received(self, data: bytes) -> None:
        self._heard = self.loop.time()
        self._boundary = False
        unsent = self.transport.get_write_buffer_size()
        super().data_received(data)
        self._count_pongs(unsent)
        size = self._size
        if self._boundary and not size:
            self._began = None  # exactly at the end of a message
        elif self._boundary or self._began is None:
            self._began, self._seen = self._heard, 0
        if self._budget and self._room is None and size > SMALL and self.protocol.state is OPEN:
            self._stop_reading()
            self._room = self._budget.ask(self.protocol.max_message_size or 0, self._go_on_reading)

    def process_event(self, event: Event) -> None:
        super().process_event(event)
        if isinstance(event, Frame) and event.fin and event.opcode in DATA_OPCODES:
            self.rooms.append(self._room)
            self._room = None
            self._boundary = True
        elif self.protocol.current_size is None:  # a ping or a handshake, and not in the middle of a message
            self._boundary = True

    # What links call.

    async def close(
        self, code: CloseCode | int = CloseCode.NORMAL_CLOSURE, reason: str = "", *, within: float = _CLOSE_WITHIN
    ) -> None:
        """Close in good order, within seconds, also in the middle of a long message and if nobody reads.

        The library would say 1011 in the middle of a message, and wait for ever for whoever does not read.
        """
        try:
            async with asyncio.timeout(within), self.send_context():
                self.protocol.send_close(code, reason)
        except ConnectionClosed:
            pass
        except TimeoutError:
            self.cut("it did not take the close")

    def leave(self) -> None:
        """Give back all room: nobody will receive another message."""
        for room in filter(None, [*self.rooms, self._room]):
            room.give_back()
        self._budget = None

    def cut(self, because: str) -> None:
        """Cut the connection at once."""
        self.cut_because = self.cut_because or because
        self.transport.abort()

    # What this class adds.

    @property
    def _size(self) -> int:
        """How much of a message is here that is not here whole."""
        return (self.protocol.current_size or 0) + len(self.protocol.reader.buffer)

    def _look(self) -> None:
        """Look after the connection, four times in a window."""
        limits, now = self._limits, self.loop.time()
        self._timer = self.loop.call_later(limits.window / 4, self._look)
        if self.paused and (unsent := self.transport.get_write_buffer_size()) < self._unsent:
            self._moved, self._unsent = now, unsent
        read_until = self._stopped_at if self._stops else now
        if self.paused and now - self._moved >= limits.stalled:
            self.cut(f"nothing could be sent for {limits.stalled:g} s")
        elif read_until - self._heard >= limits.silence:
            self.cut(f"nothing came for {limits.silence:g} s")
        elif self._began is not None and (seconds := read_until - self._began) >= limits.window:
            size = self._size
            if size - self._seen < limits.floor * seconds:
                self.cut(f"a message came at less than {limits.floor:g} bytes a second")
            self._began, self._seen = read_until, size
        if now - self._pinged >= limits.ping_every and self.protocol.state is OPEN and not self.paused:
            self._pinged = now
            self.protocol.send_ping(b"")
            self.send_data()

    def _stop_reading(self) -> None:
        if not self._stops:
            self._stopped_at = self.loop.time()
            self.transport.pause_reading()
        self._stops += 1

    def _go_on_reading(self) -> None:
        self._stops -= 1
        if not self._stops:
            stood = self.loop.time() - self._stopped_at
            self._heard += stood
            self._began = None if self._began is None else self._began + stood
            self.transport.resume_reading()

    def _count_pongs(self, unsent: int) -> None:
        """Cut whoever pings without reading the pongs: the library lets them pile up."""
        now_unsent = self.transport.get_write_buffer_size()
        self._pongs = self._pongs + now_unsent - unsent if unsent else now_unsent
        if self._pongs > _MOST_PONGS:
            self.cut("it pings and does not read the pongs")


class WatchedByHub(Watched, ServerConnection):
    """A hub's end of a connection."""


class WatchedByEdge(Watched, ClientConnection):
    """An edge's end of a connection."""


def by_hub(limits: Limits, budget: Budget | None) -> Any:
    """Give what makes a hub's connections, for `websockets.asyncio.server.serve`."""
    return partial(WatchedByHub, limits=limits, budget=budget)


def by_edge(limits: Limits) -> Any:
    """Give what makes an edge's connections, for `websockets.asyncio.client.connect`."""
    return partial(WatchedByEdge, limits=limits)
