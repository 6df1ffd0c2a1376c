"""Bare sockets that speak as much websocket as an attack needs, and no more."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from websockets.frames import Frame, Opcode

from shared.codec import encode
from shared.messages import Hello, Message, Ready, Role

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: hub\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def frame(payload: bytes, opcode: Opcode = Opcode.BINARY, *, fin: bool = True) -> bytes:
    """Give one masked frame as a client sends it."""
    return Frame(opcode, payload, fin).serialize(mask=True)


def head_of(length: int, opcode: Opcode = Opcode.BINARY, *, fin: bool = True) -> bytes:
    """Give the head of a masked frame of `length` bytes whose mask is zero: what follows goes as it is."""
    return struct.pack("!BBQ4x", (0x80 if fin else 0) | opcode, 0x80 | 127, length)


def message(said: Message) -> bytes:
    """Give a message in one frame."""
    return frame(b"".join(encode(said).pieces))


@dataclass
class Stranger:
    """A bare connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def shake_hands(self) -> None:
        """Become a websocket."""
        self.writer.write(HANDSHAKE)
        assert b" 101 " in await self.reader.readuntil(b"\r\n\r\n")

    async def join(self, name: str) -> None:
        """Become an edge that is ready."""
        await self.shake_hands()
        self.writer.write(message(Hello(versions=(1,), edge=name, role=Role.TRAINER)))
        assert await self.reader.read(1)  # the Welcome
        self.writer.write(message(Ready(examples=1, data_bytes=100)))

    async def drip(self, data: bytes, *, every: float, size: int = 1) -> None:
        """Send `data` in drops, until it is out or the hub has enough."""
        with contextlib.suppress(OSError):
            for at in range(0, len(data), size):
                self.writer.write(data[at : at + size])
                await self.writer.drain()
                await asyncio.sleep(every)

    async def gone(self) -> bytes:
        """Wait until the hub has ended the connection; give what it said."""
        heard = bytearray()
        with contextlib.suppress(OSError):
            while more := await self.reader.read(2**16):
                heard += more
        return bytes(heard)


@contextlib.asynccontextmanager
async def stranger(url: str) -> AsyncIterator[Stranger]:
    """Open a bare connection to a hub."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield Stranger(reader, writer)
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
