"""Writes messages to a websocket: frames of pieces that many connections share, and that are not copied."""

import asyncio
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from websockets.frames import Opcode

from shared.budget import Store
from shared.codec import PIECE
from shared.intake import mask, unmask

Piece = bytes | memoryview

_TURN = 256 * 1024
"""Most bytes that one connection writes before the others have their turn."""


class Owner(Protocol):
    """Who has an outlet: a connection."""

    @property
    def transport(self) -> asyncio.Transport: ...

    @property
    def is_open(self) -> bool:
        """Whether messages may be sent."""
        ...

    def send_data(self) -> None:
        """Have the library write what it has to say (pings, pongs, closes)."""
        ...


class Outlet:
    """Writes one message at a time, frame by frame.

    asyncio would copy what the socket does not take at once (on Python 3.11), and the library would join each frame's
    head and payload. So frames are written past both with `os.writev`, and a second descriptor of the same socket tells
    when it takes more: asyncio lets nobody else watch the first. Where there is no plain socket (TLS, simulations,
    Windows), the same frames go through the transport.

    The library's own frames come between two of ours: while one is half written, `holds` keeps them back.
    """

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop, *, masked: bool) -> None:
        self._owner = owner
        self._loop = loop
        self._masked = masked
        self._turn = asyncio.Lock()
        self._frames: Iterator[list[Piece]] = iter(())
        self._parts: list[Piece] = []
        self._begun = False
        self._sent: asyncio.Future[bool] | None = None
        self._watched = -1
        self.holds = False
        """Whether a frame is half written."""
        self.moved = 0.0
        """When the socket last took something, in seconds of the event loop's clock."""

    @property
    def waits(self) -> bool:
        """Whether a message waits for the socket to take more."""
        return self._sent is not None

    async def send(self, pieces: Sequence[Piece]) -> bool:
        """Write one message in fragments; tell whether all of it went out before the connection ended.

        A message that is cancelled when it is half written takes the connection with it.
        """
        async with self._turn:
            if self._owner.transport.is_closing():  # or this message would be taken for the rest of one cut short
                return False
            self._frames = _masked(pieces) if self._masked else _plain(pieces)
            self._parts, self._begun = [], False
            self.moved = self._loop.time()
            sent: asyncio.Future[bool] = self._loop.create_future()
            self._sent = sent
            try:
                self.go_on()
                return await sent
            except asyncio.CancelledError:
                if self._begun and sent.cancelled():  # it is not if all was written just before
                    self._owner.transport.abort()
                raise
            finally:
                self._sent = None
                self._frames, self._parts = iter(()), []
                self._unwatch()

    def go_on(self) -> None:
        """Write as much as the socket takes, or as is fair."""
        if self._sent is None or self._sent.done():
            return
        transport, wire = self._owner.transport, plain_socket(self._owner.transport)
        written = 0
        while True:
            if not self.holds:
                self._owner.send_data()
                if not self._owner.is_open:
                    self._sent.set_result(False)
                    return
                if transport.get_write_buffer_size():
                    self._unwatch()
                    return  # `go_on` is called when it is empty
                self._parts = self._parts or next(self._frames, [])
                if not self._parts:
                    self._sent.set_result(True)
                    return
            if wire is None:
                data, self._parts = b"".join(self._parts), []
                self._begun, self.holds, self.moved = True, False, self._loop.time()
                transport.write(data)
                continue
            if written >= _TURN and self._watch(wire):
                return
            try:
                count = os.writev(wire.fileno(), self._parts)
            except BlockingIOError:
                if self._watch(wire):
                    return
                wire = None  # no descriptor is left: asyncio takes the rest of this frame
                continue
            except OSError:
                self.lost()
                transport.abort()
                return
            written += count
            self._begun, self.moved = True, self._loop.time()
            self._parts = _without(self._parts, count)
            self.holds = bool(self._parts)

    def lost(self) -> None:
        """Take note that the connection has ended."""
        self.holds = False
        self._unwatch()
        if self._sent and not self._sent.done():
            self._sent.set_result(False)

    def _watch(self, wire: socket.socket) -> bool:
        """Have `go_on` called when the socket takes more; tell whether there was a descriptor for it."""
        if self._watched < 0:
            try:
                self._watched = os.dup(wire.fileno())
            except OSError:
                return False
            self._loop.add_writer(self._watched, self.go_on)
        return True

    def _unwatch(self) -> None:
        if self._watched >= 0:
            self._loop.remove_writer(self._watched)
            os.close(self._watched)
            self._watched = -1


def plain_socket(transport: asyncio.BaseTransport) -> Any:
    """Give the socket under a transport if bytes can be written to it as they are, else None."""
    plain = hasattr(os, "writev") and transport.get_extra_info("sslcontext") is None
    return transport.get_extra_info("socket") if plain else None


def _without(parts: list[Piece], count: int) -> list[Piece]:
    """Give what is left of `parts` after the first `count` bytes."""
    for index, part in enumerate(parts):
        if count < len(part):
            return [memoryview(part)[count:], *parts[index + 1 :]]
        count -= len(part)
    return []


def _fragments(pieces: Sequence[Piece]) -> Iterator[tuple[list[Piece], int, int, bool]]:
    """Put pieces together to fragments of about `PIECE` bytes: each with its length, its index, and whether it ends."""
    group, length, index = list[Piece](), 0, 0
    for piece in pieces:
        if group and length + len(piece) > PIECE + PIECE // 8:  # a head goes with what it is the head of
            yield group, length, index, False
            group, length, index = [], 0, index + 1
        group.append(piece)
        length += len(piece)
    yield group, length, index, True


def _plain(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Give the frames of a message: a head, and pieces that are not touched."""
    for group, length, index, last in _fragments(pieces):
        yield [_head(index, length, 0, last=last), *group]


def _masked(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Give the frames of a message, masked: each with a key of its own, in memory where that can be done."""
    fragments = list(_fragments(pieces))
    place = _places.take(max(length for _, length, _, _ in fragments))
    for group, length, index, last in fragments:
        key = os.urandom(4)
        if len(group) == 1:
            mask(group[0], place, key)
        else:
            at = 0
            for piece in group:
                place[at : at + len(piece)] = piece
                at += len(piece)
            unmask(place, 0, length, key)
        yield [_head(index, length, 0x80, last=last) + key, place[:length]]


def _head(index: int, length: int, mask: int, *, last: bool) -> bytes:
    """Give the head of a frame, less the masking key (RFC 6455, section 5.2)."""
    first = (Opcode.CONT if index else Opcode.BINARY) | (0x80 if last else 0)
    if length < 126:
        return struct.pack("!BB", first, mask | length)
    if length < 2**16:
        return struct.pack("!BBH", first, mask | 126, length)
    return struct.pack("!BBQ", first, mask | 127, length)


_places = Store(keep=8)  # what one message was masked in, the next one is: fresh memory takes longer than masking
