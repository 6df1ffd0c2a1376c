"""Typed messages over real sockets: what arrives, what is refused, and how each way to lose a connection is told."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import msgpack
import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as raw_connect
from websockets.exceptions import ConnectionClosed

from shared import link as link_module
from shared.codec import MAX_HEADER, MAX_WELCOME, Frame, encode
from shared.errors import ConfigError, LinkClosed, ProtocolError, Unreachable
from shared.link import STRANGER_LIMIT, Link, Traffic, connect, listen, port_of, websocket_url
from shared.messages import Goodbye, ToEdge, ToHub
from shared.tensors import ModelSpec
from tests.support.examples import EVALUATE, HELLO, MODEL, SPEC, TRAIN, UPDATE, WELCOME, same_tensors

LONG = {"w": np.arange(700_000, dtype=np.float32), "n": np.array(7)}
LONG_SPEC = ModelSpec.of(LONG)


@dataclass
class Hub:
    """A listening hub that does nothing by itself: a test takes the links of those who come."""

    url: str
    links: asyncio.Queue[Link[ToHub]]
    traffic: Traffic
    served: asyncio.Event


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    links: asyncio.Queue[Link[ToHub]] = asyncio.Queue()
    traffic, over = Traffic(), asyncio.Event()

    async def keep(link: Link[ToHub]) -> None:
        links.put_nowait(link)
        await over.wait()

    server = await listen(keep, host="127.0.0.1", port=0, traffic=traffic)
    yield Hub(f"ws://127.0.0.1:{port_of(server)}", links, traffic, over)
    over.set()
    server.close()
    await server.wait_closed()


@contextlib.asynccontextmanager
async def joined(hub: Hub) -> AsyncIterator[tuple[Link[ToEdge], Link[ToHub]]]:
    """Give the two ends of a link: the edge's and the hub's."""
    edge = await connect(hub.url)
    try:
        yield edge, await hub.links.get()
    finally:
        edge.abort()


@contextlib.asynccontextmanager
async def stranger(hub: Hub) -> AsyncIterator[tuple[ClientConnection, Link[ToHub]]]:
    """Give a bare websocket, and the hub's end of it."""
    async with raw_connect(hub.url, compression=None, max_size=None) as connection:
        yield connection, await hub.links.get()
        connection.transport.abort()


# --- messages arrive ---


async def test_messages_arrive_in_order_in_both_directions(hub: Hub) -> None:
    async with joined(hub) as (edge, there):
        await edge.send(HELLO)
        await edge.send(Goodbye(code="leaving"))
        assert (await there.receive()).message == HELLO
        assert (await there.receive()).message == Goodbye(code="leaving")
        await there.send(WELCOME)
        assert (await edge.receive()).message == WELCOME


async def test_tensors_arrive_bit_for_bit(hub: Hub) -> None:
    async with joined(hub) as (edge, there):
        edge.expect(SPEC)
        await there.send(encode(TRAIN, MODEL.values()))
        heard = await edge.receive()
    assert heard.message == TRAIN
    assert same_tensors(SPEC.views(heard.segments), MODEL)


async def test_a_long_message_arrives_whole_from_its_fragments(hub: Hub) -> None:
    frame = encode(UPDATE, LONG.values())
    assert len(frame.pieces) > 2
    async with joined(hub) as (edge, there):
        there.expect(LONG_SPEC)
        _, heard = await asyncio.gather(edge.send(frame), there.receive())
        assert same_tensors(LONG_SPEC.views(heard.segments), LONG)
        assert heard.nbytes == frame.nbytes


@pytest.mark.parametrize("size", [1, 7, 200, 1000])
async def test_fragments_of_any_size_arrive_whole(hub: Hub, size: int) -> None:
    data = b"".join(encode(UPDATE, MODEL.values()).pieces)
    async with stranger(hub) as (connection, there):
        there.expect(SPEC)
        await connection.send(data[at : at + size] for at in range(0, len(data), size))
        heard = await there.receive()
    assert heard.message == UPDATE
    assert same_tensors(SPEC.views(heard.segments), MODEL)


async def test_traffic_counts_the_bytes_of_messages_on_both_sides(hub: Hub) -> None:
    mine = Traffic()
    edge = await connect(hub.url, traffic=mine)
    there = await hub.links.get()
    there.expect(SPEC)
    said = encode(UPDATE, MODEL.values())
    await edge.send(said)
    await there.receive()
    await there.send(WELCOME)
    await edge.receive()
    edge.abort()
    welcome = encode(WELCOME).nbytes
    assert mine == Traffic(sent=said.nbytes, received=welcome)
    assert hub.traffic == Traffic(sent=welcome, received=said.nbytes)


async def test_a_link_knows_where_it_leads(hub: Hub) -> None:
    async with joined(hub) as (edge, there):
        assert f"ws://{edge.peer}" == hub.url
        assert there.peer.startswith("127.0.0.1:")


# --- what is too long ---


async def test_a_stranger_may_say_four_kib(hub: Hub) -> None:
    data = msgpack.packb({"type": "hello", "versions": [1], "edge": "e", "role": "trainer", "x": "x" * 4000})
    async with stranger(hub) as (connection, there):
        await connection.send(data.ljust(STRANGER_LIMIT, b"\xc0")[:STRANGER_LIMIT])
        assert (await there.receive()).message.edge == "e"


async def test_a_stranger_who_says_a_byte_more_is_cut_with_1009(hub: Hub) -> None:
    async with stranger(hub) as (connection, there):
        await connection.send(bytes(STRANGER_LIMIT + 1))
        with pytest.raises(LinkClosed) as closed:
            await there.receive()
        with pytest.raises(ConnectionClosed):
            await connection.recv()
    assert closed.value.code == 1009
    assert connection.close_code == 1009


async def test_fragments_are_counted_together(hub: Hub) -> None:
    async with stranger(hub) as (connection, there):
        with contextlib.suppress(ConnectionClosed):
            await connection.send([bytes(1000)] * 5)
        with pytest.raises(LinkClosed) as closed:
            await there.receive()
    assert closed.value.code == 1009


@pytest.mark.parametrize(("more", "outcome"), [(0, ProtocolError), (1, LinkClosed)])
async def test_a_welcomed_edge_may_say_a_header_and_the_model_and_not_a_byte_more(
    hub: Hub, more: int, outcome: type[Exception]
) -> None:
    limit = MAX_HEADER + SPEC.nbytes + 69 * len(SPEC.tensors)
    async with stranger(hub) as (connection, there):
        there.expect(SPEC)
        await connection.send(bytes(limit + more))
        with pytest.raises(outcome):
            await there.receive()


async def test_a_hub_may_say_four_mib_and_not_a_byte_more_before_the_model_is_known(hub: Hub) -> None:
    async with joined(hub) as (edge, there):
        await there.send(Frame((bytes(MAX_WELCOME),), MAX_WELCOME))
        with pytest.raises(ProtocolError):
            await edge.receive()
        with contextlib.suppress(LinkClosed):  # if the answer comes before all of it is out
            await there.send(Frame((bytes(MAX_WELCOME + 1),), MAX_WELCOME + 1))
        with pytest.raises(LinkClosed) as closed:
            await edge.receive()
    assert closed.value.code == 1009


# --- what is no message ---


@pytest.mark.parametrize("said", [b"", b"\x00garbage", "text", b"".join(encode(WELCOME).pieces)])
async def test_what_is_no_message_for_this_side_is_a_protocol_error(hub: Hub, said: bytes | str) -> None:
    async with stranger(hub) as (connection, there):
        await connection.send(said)
        with pytest.raises(ProtocolError):
            await there.receive()


async def test_a_tensor_before_the_welcome_is_a_protocol_error(hub: Hub) -> None:
    async with joined(hub) as (edge, there):
        await edge.send(encode(HELLO, [np.zeros(2)]))
        with pytest.raises(ProtocolError, match="more than 0 tensors came"):
            await there.receive()


async def test_one_tensor_too_many_is_for_admission_and_two_are_a_protocol_error(hub: Hub) -> None:
    async with joined(hub) as (edge, there):
        edge.expect(ModelSpec.of({"a": np.zeros(4), "b": np.zeros(4)}))
        await there.send(encode(EVALUATE, [np.zeros(1)] * 3))
        assert len((await edge.receive()).segments) == 3
        await there.send(encode(EVALUATE, [np.zeros(1)] * 4))
        with pytest.raises(ProtocolError, match="more than 3 tensors came"):
            await edge.receive()


async def test_a_broken_protocol_can_be_answered_with_a_close_and_its_reason(hub: Hub) -> None:
    async with joined(hub) as (edge, there):
        await edge.send(WELCOME)
        with pytest.raises(ProtocolError) as error:
            await there.receive()
        _, heard = await asyncio.gather(
            there.close(1002, str(error.value)), asyncio.gather(edge.receive(), return_exceptions=True)
        )
    assert isinstance(heard[0], LinkClosed)
    assert heard[0].code == 1002
    assert heard[0].reason.startswith("not a message of this protocol: Invalid value 'welcome'")


# --- how connections end ---


async def test_the_other_side_hears_the_code_and_the_reason_of_a_close(hub: Hub) -> None:
    async with joined(hub) as (edge, there):
        closing = asyncio.create_task(there.close(1012, "the hub has stopped"))
        with pytest.raises(LinkClosed) as closed:
            await edge.receive()
        await closing
        assert (closed.value.code, closed.value.reason) == (1012, "the hub has stopped")
        assert str(closed.value) == "connection closed (1012: the hub has stopped)"
        with pytest.raises(LinkClosed, match="1012"):
            await edge.send(HELLO)
        with pytest.raises(LinkClosed, match="1012"):
            await there.receive()


async def test_a_close_without_a_reason_says_its_code(hub: Hub) -> None:
    async with joined(hub) as (edge, there):
        closing = asyncio.create_task(edge.close())
        with pytest.raises(LinkClosed, match=r"^connection closed \(1000\)$"):
            await there.receive()
        await closing


async def test_closing_twice_does_nothing_more(hub: Hub) -> None:
    async with joined(hub) as (edge, there):
        with contextlib.suppress(LinkClosed):
            await asyncio.gather(edge.close(), there.receive())
        await edge.close(1002, "again")
        await there.close()


async def test_a_long_reason_is_cut_to_what_a_close_can_carry(hub: Hub) -> None:
    async with joined(hub) as (edge, there):
        closing = asyncio.create_task(edge.close(1002, "x" + "é" * 500))
        with pytest.raises(LinkClosed) as closed:
            await there.receive()
        await closing
    assert closed.value.reason == "x" + "é" * 59


async def test_a_line_that_was_cut_is_1006(hub: Hub) -> None:
    async with joined(hub) as (edge, there):
        edge.abort()
        with pytest.raises(LinkClosed) as closed:
            await there.receive()
        assert closed.value.code == 1006
        with pytest.raises(LinkClosed) as mine:
            await edge.receive()
        assert mine.value.code == 1006
        assert "" not in (closed.value.reason, mine.value.reason)


async def test_a_send_cut_short_aborts_its_link(hub: Hub) -> None:
    huge = encode(UPDATE, [np.zeros(64 * 2**20, np.uint8)])
    async with joined(hub) as (edge, there):
        there.expect(ModelSpec.of({"w": np.zeros(64 * 2**20, np.uint8)}))
        there._connection.transport.pause_reading()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await edge.send(huge)  # nobody reads it
        with pytest.raises(LinkClosed, match="the line was cut"):
            await edge.send(HELLO)  # at once: the connection does not know yet that it has ended
        there._connection.transport.resume_reading()
        with pytest.raises(LinkClosed):
            await there.receive()


async def test_a_send_that_waited_for_one_cut_short_hears_that_the_line_was_cut(hub: Hub) -> None:
    async with joined(hub) as (edge, there):
        there.expect(ModelSpec.of({"w": np.zeros(64 * 2**20, np.uint8)}))
        there._connection.transport.pause_reading()
        sending = asyncio.create_task(edge.send(encode(UPDATE, [np.zeros(64 * 2**20, np.uint8)])))
        waiting = asyncio.create_task(edge.send(HELLO))
        await asyncio.wait([sending, waiting], timeout=0.1)
        sending.cancel()
        ended = await asyncio.gather(sending, waiting, return_exceptions=True)
        there._connection.transport.resume_reading()
        with pytest.raises(LinkClosed):
            await there.receive()
    assert [type(error) for error in ended] == [asyncio.CancelledError, LinkClosed]


async def test_a_receive_given_up_between_messages_leaves_the_link_usable(hub: Hub) -> None:
    async with joined(hub) as (edge, there):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await there.receive()
        await edge.send(HELLO)
        assert (await there.receive()).message == HELLO


async def test_a_receive_given_up_within_a_message_leaves_the_link_usable(hub: Hub) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()
    said = encode(HELLO).pieces[0]

    async with stranger(hub) as (connection, there):

        async def in_two_halves() -> AsyncIterator[bytes]:
            yield bytes(said[:10])
            await (await connection.ping())  # the pong comes after the fragment was taken in
            arrived.set()
            await go_on.wait()
            yield bytes(said[10:])

        receiving = asyncio.create_task(there.receive())
        sending = asyncio.create_task(connection.send(in_two_halves()))
        await arrived.wait()
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        go_on.set()
        assert (await there.receive()).message == HELLO
        await sending


async def test_the_link_closes_when_its_handler_returns(hub: Hub) -> None:
    async with joined(hub) as (edge, _):
        hub.served.set()
        with pytest.raises(LinkClosed) as closed:
            await edge.receive()
    assert closed.value.code == 1000


# --- where no hub is ---


@contextlib.asynccontextmanager
async def server_that(
    answers: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """Listen on a free port with something that is no hub."""
    ended: list[asyncio.Future[None]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        end = asyncio.get_running_loop().create_future()
        ended.append(end)
        with contextlib.suppress(ConnectionError):
            await answers(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        end.set_result(None)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.gather(*ended)


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def test_a_port_without_a_listener_is_told_with_what_to_try() -> None:
    port = free_port()
    with pytest.raises(Unreachable) as error:
        await connect(f"127.0.0.1:{port}")
    assert str(error.value) == (
        f"cannot reach ws://127.0.0.1:{port} (nothing listens there). Is the hub running, and on that port? "
        "A hub on another machine must be started with --lan"
    )


async def test_a_host_all_of_whose_addresses_refuse_is_told_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("127.0.0.1", "127.0.0.2")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)  # as localhost has ::1 and 127.0.0.1 elsewhere
    with pytest.raises(Unreachable, match=r"\(nothing listens there\)"):
        await connect(f"two.example:{port}")


async def test_a_name_that_no_server_knows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)  # so that no name server is asked
    with pytest.raises(Unreachable, match=r"cannot reach ws://hub.invalid:1 \(name not found\)\. Is the host name"):
        await connect("hub.invalid:1")


async def test_a_web_server_is_not_a_hub() -> None:
    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with server_that(web) as port:
        with pytest.raises(Unreachable, match=r"what listens there is not a hub \(.*HTTP 200\)"):
            await connect(f"127.0.0.1:{port}")


@pytest.mark.parametrize("banner", [b"SSH-2.0-OpenSSH_9.6\r\n", b""])
async def test_any_other_server_is_not_a_hub(banner: bytes) -> None:
    async def other(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(banner)

    async with server_that(other) as port:
        with pytest.raises(Unreachable, match="what listens there is not a hub"):
            await connect(f"127.0.0.1:{port}")


async def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "_OPEN_TIMEOUT", 0.1)

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with server_that(silent) as port:
        with pytest.raises(Unreachable, match=r"no answer within 0 s\)\. Is a firewall in between"):
            await connect(f"127.0.0.1:{port}")


async def test_whatever_else_the_network_says_is_passed_on() -> None:
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"no TLS here\r\n")

    async with server_that(plain) as port:
        with pytest.raises(Unreachable, match=rf"cannot reach wss://127.0.0.1:{port} \(\[SSL"):
            await connect(f"wss://127.0.0.1:{port}")


@pytest.mark.parametrize("proxy", ["gopher://127.0.0.1:1", "socks5://127.0.0.1:1"])
async def test_a_proxy_that_cannot_be_used_is_told(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ws_proxy", proxy)
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(Unreachable, match=r"cannot reach ws://hub\.example:80 through this machine's proxy: "):
        await connect("hub.example:80")


# --- addresses ---


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("192.168.1.20:8765", "ws://192.168.1.20:8765"),
        ("hub.local", "ws://hub.local"),
        ("ws://hub:8765", "ws://hub:8765"),
        ("http://hub:8765/", "ws://hub:8765/"),
        ("https://hub/fed", "wss://hub/fed"),
        ("wss://[::1]:8765", "wss://[::1]:8765"),
        ("ws://hub:8765/#token", "ws://hub:8765/"),
    ],
)
def test_what_people_type_becomes_a_websocket_url(typed: str, url: str) -> None:
    assert websocket_url(typed) == url


@pytest.mark.parametrize(
    "typed",
    ["", "ws://", "ftp://hub", "hub:0", "hub:port", "hub:99999", "ws://[::1", "a..b:80", "x" * 64 + ".com", "ws://:80"],
)
def test_what_cannot_be_an_address_is_answered_with_one_that_can(typed: str) -> None:
    with pytest.raises(ConfigError, match=r"is not the address of a hub; write it like ws://192\.168\.1\.20:8765"):
        websocket_url(typed)


async def test_a_user_without_a_password_is_no_address() -> None:
    with pytest.raises(ConfigError, match="'ws://me@hub:1' is not the address of a hub: username provided without"):
        await connect("ws://me@hub:1")


# --- listening ---


async def nothing(_: Link[ToHub]) -> None:
    """Serve nobody."""


async def test_a_port_that_is_taken_is_told_with_another_to_try() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as error:
            await listen(nothing, host="127.0.0.1", port=port, traffic=Traffic())
    assert str(error.value).startswith(f"cannot listen on 127.0.0.1:{port} (")
    assert f"Is another hub running? Try --port {port + 1}, or --port 0 for any free one" in str(error.value)


async def test_an_address_of_another_machine_cannot_be_listened_on() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1:0 .*Try --port 8765"):
        await listen(nothing, host="192.0.2.1", port=0, traffic=Traffic())


async def test_only_a_handler_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(_: Link[ToHub]) -> None:
        raise ZeroDivisionError("ours")

    server = await listen(fails, host="127.0.0.1", port=0, traffic=Traffic())
    with caplog.at_level(logging.DEBUG):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        writer.write(b"GET / HTTP/1.1\r\n\r\n")  # a port scan
        await reader.read()
        writer.close()
        await writer.wait_closed()
        edge = await connect(f"127.0.0.1:{port_of(server)}")
        with pytest.raises(LinkClosed) as closed:
            await edge.receive()
        server.close()
        await server.wait_closed()
    assert closed.value.code == 1011
    assert [record.message for record in caplog.records if "websockets" in record.name] == ["connection handler failed"]
