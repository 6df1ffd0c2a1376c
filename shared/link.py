"""Typed messages over one websocket; knows how the connections of the websockets library end, and tells it plainly."""

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from types import UnionType
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from websockets.asyncio.client import connect as websocket_connect
from websockets.asyncio.server import Server, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidProxy, InvalidURI
from websockets.http11 import Request, Response

from shared.budget import Budget, Store
from shared.codec import ALIGNMENT, MAX_HEADER, MAX_WELCOME, Decoded, Frame, decode, encode
from shared.errors import ConfigError, LinkClosed, ProtocolError, Unreachable
from shared.messages import Message, ToEdge, ToHub
from shared.tensors import ModelSpec
from shared.watch import OF_A_HUB, OF_AN_EDGE, Limits, Watched, WatchedByHub, by_edge, by_hub

STRANGER_LIMIT = 4 * 1024
"""Longest message in bytes that a hub reads before it has welcomed an edge."""

_OPEN_TIMEOUT = 10.0

_ENOUGH = 512 * 2**20

# Connections that may wait to be accepted, and the most that asyncio accepts in one turn of its loop (40 ms for as
# many). With its default of 100, 300 that come at once leave some that think they are connected and never are.
_MOST_KNOCKING = 1024

# websockets would log a traceback for each port scan; only a failure of our own handler is worth a line.
_quiet = logging.getLogger("fedhub.websockets")
_quiet.addFilter(lambda record: record.msg == "connection handler failed")

In = TypeVar("In", bound=Message)


@dataclass(frozen=True)
class Asked:
    """An HTTP request to a hub's port; `headers` by their names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]

    @property
    def websocket(self) -> bool:
        """Whether it asks for a websocket."""
        return self.headers.get("upgrade", "").lower() == "websocket"


@dataclass(frozen=True)
class Answer:
    """A response to an HTTP request."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Traffic:
    """Bytes of messages that crossed one link, or several that share the counter."""

    sent: int = 0
    received: int = 0


class Link(Generic[In]):
    """Messages of the union `In` come in, any message goes out; every failure is one of `shared.errors`."""

    def __init__(self, connection: Watched, incoming: UnionType, *, max_header: int, traffic: Traffic) -> None:
        self._connection = connection
        self._incoming = incoming
        self._max_header = max_header
        self._max_tensors = 0
        self._traffic = traffic

    @property
    def peer(self) -> str:
        """Address of the other side, for the log."""
        address = self._connection.remote_address
        return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else str(address)

    @property
    def greet_by(self) -> float:
        """When Hello must have come, in seconds of the event loop's clock."""
        return self._connection.greet_by

    def expect(self, spec: ModelSpec) -> None:
        """Allow incoming messages to carry the tensors of `spec` from now on, and not a byte more."""
        self._max_tensors = len(spec.tensors) + 1  # one too many is a bad answer, to be refused with its reason
        self._connection.limit = self._max_header + spec.nbytes + (ALIGNMENT + 5) * len(spec.tensors)

    def count_apart(self) -> None:
        """Leave what this link carries from now on out of the shared counter: it is no part of learning."""
        self._traffic = Traffic()

    def expect_bytes(self, most: int) -> None:
        """Allow an incoming message to carry one byte string of up to `most` bytes."""
        self._max_tensors = 1
        self._connection.limit = self._max_header + most

    def when_begun(self, tell: Callable[[], None]) -> None:
        """Have `tell` called when a message begins to come that is not there at once."""
        self._connection.begun = tell

    def before_long(self, make_room: Callable[[], None]) -> None:
        """Have `make_room` called when a long message begins, so that it can take the memory of one not needed."""
        self._connection.before_long = make_room

    async def send(self, message: Frame | Message) -> None:
        """Send one message, encoded or not, and wait until the network has taken it.

        Raises:
            LinkClosed: the connection has ended.
        """
        frame = message if isinstance(message, Frame) else encode(message)
        try:
            await self._connection.send_message(frame.pieces)
        except ConnectionClosed as error:
            raise self._closed(error) from None
        self._traffic.sent += frame.nbytes

    async def receive(self) -> Decoded[In]:
        """Wait for the next message. Its tensors are views into one buffer that lives as long as they do.

        Raises:
            LinkClosed: the connection has ended.
            ProtocolError: what came is not a message that may arrive here; close the link.
        """
        try:
            whole = await self._connection.next_message()
        except ConnectionClosed as error:
            raise self._closed(error) from None
        self._traffic.received += whole.data.nbytes
        try:
            heard = decode(whole.data, self._incoming, max_header=self._max_header, max_tensors=self._max_tensors)
        except ProtocolError:
            if whole.room:
                whole.room.give_back()
            raise
        return replace(heard, done=whole.room.give_back) if whole.room else heard

    async def wait_closed(self, seconds: float) -> None:
        """Wait for a while.

        Raises:
            LinkClosed: the connection has ended in the meantime.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._connection.wait_closed()
        except TimeoutError:
            return
        raise self._closed(self._connection.close_exc)

    async def close(self, code: int = 1000, reason: str = "", *, within: float = 5.0) -> None:
        """Close in good order, or cut after `within` seconds; does nothing to a link that is closed already."""
        await self._connection.close(code, reason.encode()[:120].decode(errors="ignore"), within=within)

    def abort(self) -> None:
        """Cut the connection at once, without a closing handshake."""
        self._connection.transport.abort()

    def _closed(self, error: ConnectionClosed) -> LinkClosed:
        close = error.rcvd or error.sent
        if close is None or self._connection.cut_because:
            return LinkClosed(1006, self._connection.cut_because or "the line was cut")
        return LinkClosed(close.code, close.reason)


def websocket_url(text: str) -> str:
    """Make a websocket URL of what a person may type: `host:port`, `http://...` or `ws://...`.

    Raises:
        ConfigError: it cannot be one.
    """
    full = text if "://" in text else f"ws://{text}"
    scheme, _, rest = full.partition("://")
    scheme = {"http": "ws", "https": "wss"}.get(scheme, scheme)
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        (parts.hostname or "").encode("idna")
        usable = scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port, or of a host name that no name server would take
        usable = False
    if not usable:
        shown = text.partition("#")[0]  # the key is not for everybody
        raise ConfigError(f"{shown!r} is not the address of a hub; write it like ws://192.168.1.20:8765")
    return parts._replace(fragment="").geturl()


def key_of(url: str) -> str:
    """Give the key that stands behind the `#` of a hub's address, or of its page's (`#k=...`); empty if none does."""
    return url.partition("#")[2].removeprefix("k=")


async def connect(
    url: str,
    *,
    incoming: UnionType = ToEdge,
    traffic: Traffic | None = None,
    limits: Limits = OF_AN_EDGE,
    store: Store | None = None,
) -> Link[Any]:
    """Open a link to the hub at `url`.

    Args:
        url: what a person may have typed.
        incoming: the union of what the hub says to whoever connects: `ToEdge` or `ToViewer`.
        traffic: counts the bytes of messages.
        limits: what is borne from the hub.
        store: where memory for long messages comes from; links that share one use it in turn.

    Raises:
        ConfigError: `url` is not a websocket URL.
        Unreachable: no hub answers there; the message says why and what to try.
    """
    url = websocket_url(url)
    try:
        connection = await websocket_connect(
            url,
            compression=None,  # float tensors do not compress: deflate runs at 0.005 of the raw speed
            max_size=MAX_WELCOME,
            ping_interval=None,
            open_timeout=_OPEN_TIMEOUT,
            write_limit=0,  # whoever waits for a write waits until the network has taken all of it
            logger=_quiet,
            create_connection=by_edge(limits, store or Store()),
        )
    except InvalidURI as error:
        raise ConfigError(f"{url!r} is not the address of a hub: {error.msg}") from None
    except socket.gaierror:
        raise Unreachable(f"cannot reach {url} (name not found). Is the host name spelled right?") from None
    except TimeoutError:
        raise Unreachable(
            f"cannot reach {url} (no answer within {_OPEN_TIMEOUT:.0f} s). Is a firewall in between?"
        ) from None
    except (InvalidHandshake, InvalidMessage, EOFError) as error:
        raise Unreachable(f"cannot join {url}: what listens there is not a hub ({error})") from None
    except (InvalidProxy, ImportError) as error:  # the latter where the proxy is a SOCKS one
        raise Unreachable(f"cannot reach {url} through this machine's proxy: {error}") from None
    except OSError as error:
        if _refused(error):
            raise Unreachable(
                f"cannot reach {url} (nothing listens there). Is the hub running, and on that port? "
                "A hub on another machine must be started with --lan"
            ) from None
        raise Unreachable(f"cannot reach {url} ({error.strerror or error})") from None
    assert isinstance(connection, Watched), "it was made by by_edge"
    return Link[Any](connection, incoming, max_header=MAX_WELCOME, traffic=traffic or Traffic())


def _refused(error: OSError) -> bool:
    """Tell whether every address of a host refused: of several (localhost has two), asyncio makes one error."""
    refusal = f"[Errno {errno.ECONNREFUSED}]"
    return isinstance(error, ConnectionRefusedError) or 0 < str(error).count(refusal) == str(error).count("[Errno ")


async def listen(
    handler: Callable[[Link[ToHub]], Awaitable[None]],
    *,
    host: str,
    port: int,
    traffic: Traffic,
    budget: Budget | None = None,
    limits: Limits = OF_A_HUB,
    answer: Callable[[Asked], Answer | None] = lambda asked: None,
) -> Server:
    """Accept edges at `host`:`port` and hand each one's link to `handler`; the link closes when the handler returns.

    Args:
        handler: called once per connection.
        host: address to bind to.
        port: TCP port; 0 takes a free one.
        traffic: counts the bytes of all links together.
        budget: memory for the messages that are longer than `shared.watch.SMALL` and come in at the same time.
        limits: what is borne from an edge.
        answer: what an HTTP request gets in place of a websocket; None goes on with the handshake.

    Raises:
        ConfigError: the address cannot be bound to, in words.
    """

    async def handle(connection: Any) -> None:
        assert isinstance(connection, WatchedByHub), "it was made by by_hub"
        connection.forget_handshake()
        try:
            await handler(Link[ToHub](connection, ToHub, max_header=MAX_HEADER, traffic=traffic))
        finally:
            connection.leave()

    def respond(_: Any, request: Request) -> Response | None:
        headers: dict[str, str] = {}
        for name, value in request.headers.raw_items():
            headers[name.lower()] = f"{headers[name.lower()]}, {value}" if name.lower() in headers else value
        given = answer(Asked(request.method, request.path, headers))
        return _response(given) if given else None

    try:
        return await serve(
            handle,
            host,
            port,
            compression=None,
            max_size=STRANGER_LIMIT,
            backlog=_MOST_KNOCKING,
            ping_interval=None,
            open_timeout=limits.greeting,
            write_limit=0,  # whoever waits for a write waits until the network has taken all of it
            process_request=respond,
            server_header="fedhub",
            logger=_quiet,
            create_connection=by_hub(limits, budget or Budget(_ENOUGH)),
        )
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error.strerror or error}). "
            f"Is another hub running? Try --port {port + 1 if port else 8765}, or --port 0 for any free one"
        ) from None


def _response(answer: Answer) -> Response:
    """Write an answer as the library does: one a connection."""
    headers = Headers(answer.headers)
    headers["Connection"] = "close"
    if answer.status != HTTPStatus.NOT_MODIFIED:
        headers["Content-Length"] = str(len(answer.body))
    return Response(answer.status, HTTPStatus(answer.status).phrase, headers, answer.body)


def port_of(server: Server) -> int:
    """Tell which TCP port a server listens on."""
    return int(next(iter(server.sockets)).getsockname()[1])
