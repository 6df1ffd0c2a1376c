"""Sockets in memory: bytes arrive late, in pieces, after a pause, or never, as the seed will have it."""

import asyncio
import errno
import random
import socket
import zlib
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any

from tests.simulation.loop import MACHINE, Machine, VirtualLoop

HUB = "hub"
"""The host that listens."""

_EOF = b""
_KERNEL = 64 * 1024  # bytes that a real socket takes although nobody reads
_SYN_UNANSWERED = 120.0


@dataclass
class Weather:
    """How bad the network is. All times in seconds."""

    delay: float = 0.005
    """Mean time that a chunk travels."""
    split: float = 0.0
    """Share of writes that arrive in several pieces."""


class FakeSocket:
    """What websockets asks a listening socket for: its name."""

    family = socket.AF_INET

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address

    def getsockname(self) -> tuple[str, int]:
        return self._address


class Listener:
    """A listening port, in the place of `asyncio.Server`."""

    def __init__(self, network: "Network", address: tuple[str, int], factory: Callable[[], Any]) -> None:
        self.network = network
        self.address = address
        self.factory = factory
        self.context = copy_context()
        self.machine = MACHINE.get()
        self.open = True
        self.active = 0
        self._idle: list[asyncio.Future[None]] = []

    @property
    def sockets(self) -> tuple[FakeSocket, ...]:
        return (FakeSocket(self.address),) if self.open else ()

    def is_serving(self) -> bool:
        return self.open

    def get_loop(self) -> VirtualLoop:
        return self.network.loop

    def close(self) -> None:
        self.open = False
        self.network.forget(self)

    def detach(self) -> None:
        """A connection of this port has ended."""
        self.active -= 1
        if not self.active:
            for waiter in self._idle:
                if not waiter.done():
                    waiter.set_result(None)
            self._idle.clear()

    async def wait_closed(self) -> None:
        """Wait for the last connection, as asyncio does since Python 3.12."""
        if self.active:
            waiter = self.network.loop.create_future()
            self._idle.append(waiter)
            await waiter


class End(asyncio.Transport):
    """One end of a connection. Written bytes travel to the other end in order, each chunk with a delay of its own."""

    def __init__(self, network: "Network", name: str, own: tuple[str, int], other: tuple[str, int]) -> None:
        super().__init__({"sockname": own, "peername": other})
        self.network = network
        self.loop = network.loop
        self.name = name
        self.peer: End
        self.protocol: Any = None
        self.context: Context
        self.machine: Machine | None = None
        self.host = ""
        self.listener: Listener | None = None
        self.lost = False
        self.reading = True
        self.clogged_until = 0.0
        self.silent = False
        """Whether what this end sends is swallowed: its machine, or the line, is gone without a word."""
        self._closing = False
        self._eof_called = False
        self._eof_sent = False
        self._finishing = False
        self._failed = False
        self._travelling: deque[bytes] = deque()
        self._arrived: deque[bytes] = deque()
        self._last_arrival = 0.0
        self._unread = 0
        self._high, self._low = 64 * 1024, 16 * 1024
        self._paused_writer = False

    # --- what asyncio protocols may ask of a transport ---

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_protocol(self) -> Any:
        return self.protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self.reading and not self._closing

    def can_write_eof(self) -> bool:
        return True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = 64 * 1024 if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        return max(0, self._unread - _KERNEL)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        if not self.reading:
            self.reading = True
            if self._arrived:
                self._soon(self._drain)

    def write(self, data: Any) -> None:
        if self._eof_called:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self.lost or self._closing or not data:
            return
        self.network.carry(self, bytes(data))
        if not self._paused_writer and self._unread > self._high + _KERNEL:
            self._paused_writer = True
            self.protocol.pause_writing()

    def write_eof(self) -> None:
        if not self._eof_called and not self._closing:
            self._eof_called = True
            self.finish()

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self.reading = False
            if self._unread > _KERNEL:
                self._finishing = True
            else:
                self._soon(self._end, None)

    def abort(self) -> None:
        self.fail(None)

    # --- the machinery ---

    def fail(self, error: Exception | None) -> None:
        """End at once; what has not left yet may be lost."""
        if self.lost or self._failed:
            return
        self._closing = self._failed = True
        self.reading = self._finishing = False
        self._soon(self._end, error)

    def _soon(self, callback: Callable[..., Any], *args: Any) -> None:
        self.loop.call_soon(callback, *args, context=self.context)

    def _end(self, error: Exception | None) -> None:
        """Tell the protocol, and let go of the socket: the other end reads the end of the stream, or is reset."""
        if self.lost:
            return
        self.lost = True
        if self.listener:
            self.listener.detach()
        self.protocol.connection_lost(error)
        self.network.gone(self)
        if error is None:
            if self._arrived or (self._failed and self.network.dice.random() < 0.3):
                self.network.reset_later(self.peer)  # bytes that nobody read, or that could not leave any more
            else:
                self.finish()

    def finish(self) -> None:
        """Send the end of the stream, once."""
        if not self._eof_sent:
            self._eof_sent = True
            self.send(_EOF)

    def send(self, chunk: bytes) -> None:
        """Have a chunk arrive at the other end after everything sent before it."""
        loop, peer = self.loop, self.peer
        if self.silent:
            return
        if peer.lost:
            if chunk and not self.lost:
                self.network.reset_when_light(self)  # nobody has this connection any more
            return
        self._unread += len(chunk)
        arrival = loop._now + self.network.travel()
        if arrival <= self._last_arrival:
            arrival = self._last_arrival + 1e-9
        self._last_arrival = arrival
        peer._travelling.append(chunk)
        loop.call_at(arrival, peer._arrive, context=peer.context)

    def _arrive(self) -> None:
        """Take in the oldest travelling chunk; in the context of this end, so that a dead machine does not."""
        if self.clogged_until > self.loop._now:
            self.loop.call_at(self.clogged_until, self._arrive, context=self.context)
            return
        if not self._travelling:
            return
        chunk = self._travelling.popleft()
        if self.lost:
            if chunk:
                self.network.reset_later(self.peer)
            return
        if self._arrived or not self.reading:
            if self._closing:
                return
            self._arrived.append(chunk)
        else:
            self._take(chunk)

    def _drain(self) -> None:
        while self._arrived and self.reading and not self.lost:
            self._take(self._arrived.popleft())

    def _take(self, chunk: bytes) -> None:
        if chunk:
            self._read(chunk)
            return
        self.network.delivered(self, chunk)
        if not self.protocol.eof_received():
            self.close()

    def _read(self, chunk: bytes) -> None:
        """Put a chunk where the protocol wants it; what it does not read any more waits."""
        if not isinstance(self.protocol, asyncio.BufferedProtocol):
            self.network.delivered(self, chunk)
            self.peer.relieve(len(chunk))
            self.protocol.data_received(chunk)
            return
        while chunk and not self.lost:
            if not self.reading:
                self._arrived.appendleft(chunk)
                return
            place = self.protocol.get_buffer(-1)
            now, chunk = chunk[: len(place)], chunk[len(place) :]
            self.network.delivered(self, now)
            self.peer.relieve(len(now))
            place[: len(now)] = now
            self.protocol.buffer_updated(len(now))

    def relieve(self, count: int) -> None:
        """The other end has read; may the protocol write again, or has a closing end nothing left to send?"""
        self._unread -= count
        if self.lost:
            return
        if self._paused_writer and self._unread <= self._low + _KERNEL:
            self._paused_writer = False
            self._soon(self._resume)
        if self._finishing and self._unread <= _KERNEL:
            self._finishing = False
            self._soon(self._end, None)

    def _resume(self) -> None:
        if not self.lost and not self._paused_writer:
            self.protocol.resume_writing()

    def drop_everything(self) -> None:
        """Forget what travels to this end."""
        self._travelling.clear()


class Network:
    """All connections of a world."""

    def __init__(
        self, loop: VirtualLoop, dice: random.Random, observe: Callable[[str, bytes], None], weather: Weather
    ) -> None:
        """Carry bytes; `observe` is told of each chunk that is delivered."""
        self.loop = loop
        self.dice = dice
        self.weather = weather
        self.connects: list[float] = []
        """When edges knocked at a port, open or not."""
        self.dark: set[str] = set()
        """Hosts that answer nothing at all, neither a reset nor a refusal, because they have no power."""
        self.splits = 0
        self._observe = observe
        self._listeners: dict[int, Listener] = {}
        self._ends: dict[str, End] = {}
        self._asking: list[End] = []
        self._count = 0

    # --- for the loop ---

    def listen(self, factory: Callable[[], Any], host: str, port: int) -> Listener:
        port = port or 8765
        if port in self._listeners:
            raise OSError(errno.EADDRINUSE, "address already in use")
        listener = self._listeners[port] = Listener(self, (host, port), factory)
        return listener

    async def connect(self, factory: Callable[[], Any], host: str, port: int) -> tuple[End, Any]:
        self.connects.append(self.loop._now)
        await asyncio.sleep(2 * self.travel())
        listener = self._listeners.get(port)
        if HUB in self.dark:
            await asyncio.sleep(_SYN_UNANSWERED)
            raise TimeoutError(errno.ETIMEDOUT, "connection timed out")
        if listener is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"Connect call failed ({host!r}, {port})")
        self._count += 1
        name = f"c{self._count}"
        here = ("10.0.0.1", 10_000 + self._count)
        near, far = End(self, name + ">", here, listener.address), End(self, name + "<", listener.address, here)
        near.peer, far.peer = far, near
        near.context, near.machine = copy_context(), MACHINE.get()
        far.context, far.machine, far.listener = listener.context.copy(), listener.machine, listener
        near.host, far.host = near.machine.host if near.machine else "", HUB
        listener.active += 1
        self._ends[near.name], self._ends[far.name] = near, far

        def accept() -> None:
            far.protocol = listener.factory()
            far.protocol.connection_made(far)

        self.loop.call_soon(accept, context=far.context)
        near.protocol = factory()
        near.protocol.connection_made(near)
        return near, near.protocol

    # --- for the ends ---

    def travel(self) -> float:
        """Draw the time that a chunk travels."""
        return self.dice.expovariate(1 / self.weather.delay)

    def carry(self, end: End, data: bytes) -> None:
        """Send what was written, whole or in pieces."""
        if len(data) > 1 and self.weather.split and self.dice.random() < self.weather.split:
            self.splits += 1
            cuts = sorted({self.dice.randrange(1, len(data)) for _ in range(self.dice.randint(1, 4))})
            for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
                end.send(data[start:stop])
        else:
            end.send(data)

    def delivered(self, end: End, chunk: bytes) -> None:
        self._observe(end.name, chunk)

    def gone(self, end: End) -> None:
        self._ends.pop(end.name, None)

    def forget(self, listener: Listener) -> None:
        if self._listeners.get(listener.address[1]) is listener:
            del self._listeners[listener.address[1]]

    def reset_later(self, end: End) -> None:
        """Have `end` learn that the other end is gone."""
        self.loop.call_at(self.loop._now + self.travel(), self._reset, end, context=end.context)

    def reset_when_light(self, end: End) -> None:
        """Have `end` learn that the other end is gone, as soon as the other host can tell: TCP asks until then."""
        if end.peer.host in self.dark:
            self._asking.append(end)
        else:
            self.reset_later(end)

    def light(self, host: str) -> None:
        """Give a host its power back."""
        self.dark.discard(host)
        asking, self._asking = self._asking, []
        for end in asking:
            self.reset_when_light(end)

    def _reset(self, end: End) -> None:
        if not end.lost:
            end.drop_everything()
            end.fail(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))

    # --- faults ---

    def living(self) -> list[End]:
        """List the edges' ends of all connections, oldest first."""
        return [end for end in self._ends.values() if end.name.endswith(">") and not end.lost]

    def of(self, machine: Machine) -> list[End]:
        """List the ends of a machine."""
        return [end for end in self._ends.values() if end.machine is machine]

    def reset(self, end: End) -> None:
        """Break a connection: each end hears of it, one perhaps much later than the other."""
        for one in (end, end.peer):
            one.silent = True
            self.loop.call_at(
                self.loop._now + self.dice.choice((0.0, self.travel(), self.dice.uniform(0.0, 5.0))),
                self._reset,
                one,
                context=one.context,
            )

    def clog(self, end: End, seconds: float) -> None:
        """Deliver nothing to `end` for a while; nothing is lost."""
        end.clogged_until = max(end.clogged_until, self.loop._now + seconds)

    def half_close(self, end: End) -> None:
        """Have `end` read the end of the stream although the other end still listens."""
        if not end.peer._eof_sent and not end.peer.lost:
            end.peer.finish()
            end.peer.silent = True

    def cut_machine(self, machine: Machine) -> None:
        """A machine has died: its ports close, and the other ends hear of it, if its host still has power."""
        for listener in list(self._listeners.values()):
            if listener.machine is machine:
                self.forget(listener)
        for end in self.of(machine):
            if machine.host not in self.dark:
                if self.dice.random() < 0.5:
                    self.reset_later(end.peer)
                else:
                    end.finish()  # after what was written, as the system closes the sockets of a killed process
            else:
                end.peer.drop_everything()
                if end._travelling:
                    self._asking.append(end.peer)  # it sends again what was never acknowledged
            end.lost = end.silent = True
            self._ends.pop(end.name, None)

    def heal(self) -> None:
        """End all clogs, and have everybody learn which connections have no other end any more."""
        for end in list(self._ends.values()):
            end.clogged_until = 0.0
            if end.peer.lost and not end.lost:
                self.reset_later(end)


def crc(chunk: bytes) -> int:
    """Give a few bytes that stand for a chunk in the trace."""
    return zlib.crc32(chunk)
