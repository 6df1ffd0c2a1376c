"""A viewer under the test's full control, and plain HTTP to a hub's port."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import msgspec

from hub.views.board import Changes, Round, State
from shared.link import Link, connect
from shared.messages import Fetch, Goodbye, Hello, Look, Order, Reply, Role, Shown, ToViewer


@dataclass
class Viewer:
    """Somebody who looks at the board."""

    link: Link[ToViewer]
    state: State = field(default_factory=State)
    may: str = ""
    boards: int = 0
    """How often the whole board came."""
    replies: list[Reply] = field(default_factory=list)
    goodbye: Goodbye | None = None

    async def look(self) -> Shown | Reply | Goodbye:
        """Take what comes next, and have it on the board."""
        heard = await self.link.receive()
        match heard.message:
            case Shown(what="board") as shown:
                self.state, self.may = msgspec.msgpack.decode(heard.segments[0], type=State), shown.may
                self.boards += 1
            case Shown(what="changes"):
                self.state.apply(msgspec.msgpack.decode(heard.segments[0], type=Changes))
            case Reply() as reply:
                self.replies.append(reply)
            case Goodbye() as goodbye:
                self.goodbye = goodbye
        return heard.message

    async def until(self, seen: Callable[[State], bool]) -> State:
        """Look until something is seen on the board."""
        while not (self.boards and seen(self.state)):
            assert not isinstance(await self.look(), Goodbye), "the hub has stopped before that was seen"
        return self.state

    async def to_the_end(self) -> State:
        """Look until the hub says goodbye."""
        while not isinstance(await self.look(), Goodbye):
            pass
        return self.state

    async def order(self, action: str, **fields: object) -> Reply:
        """Give an order, and wait for what becomes of it."""
        await self.link.send(Order(action=action, **fields))  # type: ignore[arg-type]
        while not isinstance(said := await self.look(), Reply):
            pass
        return said

    async def past(self, number: int) -> Round | Reply:
        """Ask for a round that is over."""
        await self.link.send(Look(round=number))
        return await self._answer("past", lambda data: msgspec.msgpack.decode(data, type=Round))

    async def model(self) -> bytes | Reply:
        """Ask for the newest model, as a file."""
        await self.link.send(Fetch())
        return await self._answer("model", bytes)

    async def _answer(self, what: str, read: Callable[[memoryview], object]) -> object:  # type: ignore[misc]
        while True:
            heard = await self.link.receive()
            match heard.message:
                case Shown() as shown if shown.what == what:
                    return read(heard.segments[0])
                case Shown(what="changes"):
                    self.state.apply(msgspec.msgpack.decode(heard.segments[0], type=Changes))
                case Reply() as reply:
                    return reply


@asynccontextmanager
async def viewer(url: str, key: str) -> AsyncIterator[Viewer]:
    """Look at the hub at `url`."""
    link = await connect(url, incoming=ToViewer)
    try:
        link.expect_bytes(64 * 2**20)
        await link.send(Hello(versions=(1,), edge="viewer-1", role=Role.VIEWER, key=key))
        yield Viewer(link)
    finally:
        link.abort()


async def http(url: str, request: str, *, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    """Send a request (its lines, without the last empty one) and give status, headers in lower case, and body."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write("\r\n".join(request.strip().split("\n")).encode() + b"\r\n\r\n" + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = int(headers.get("content-length", 0))
        return int(first.split()[1]), headers, await reader.readexactly(length)
    finally:
        writer.close()


async def get(url: str, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Send a GET request; `if_none_match` is the header If-None-Match."""
    host = {"host": urlsplit(url).netloc, **headers}
    lines = "\n".join(f"{name.replace('_', '-')}: {value}" for name, value in host.items())
    return await http(url, f"GET {path} HTTP/1.1\n{lines}")
