"""What is written to real sockets is what the websockets library's own protocol reads, whatever happens meanwhile."""

import asyncio
import contextlib
import os
import random
import resource
import socket
import tracemalloc
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.protocol import OPEN, Protocol, Side

from shared import outlet
from shared.codec import PIECE
from shared.outlet import Outlet, Piece

MIB = 2**20
OPEN_FILES = Path("/proc/self/fd")


class Line(asyncio.Protocol):
    """A connection with an outlet: the library's own protocol, a transport, and a plain socket at the other end."""

    transport: asyncio.Transport

    def __init__(self, there: socket.socket, *, masked: bool) -> None:
        self.there = there
        self.protocol = Protocol(Side.CLIENT if masked else Side.SERVER, max_size=None)
        self.outlet = Outlet(self, asyncio.get_running_loop(), masked=masked)
        self.reader = Protocol(Side.SERVER if masked else Side.CLIENT, max_size=None)
        self.heard: list[Frame] = []
        self.wire = bytearray()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(0)

    def connection_lost(self, exc: Exception | None) -> None:
        self.outlet.lost()

    def resume_writing(self) -> None:
        self.outlet.go_on()

    # What the outlet asks.

    @property
    def is_open(self) -> bool:
        return self.protocol.state is OPEN

    def send_data(self) -> None:
        if not self.outlet.holds:
            for data in self.protocol.data_to_send():
                self.transport.write(data)

    # What tests ask.

    def ping(self, data: bytes = b"?") -> None:
        self.protocol.send_ping(data)
        self.send_data()

    def clog(self, waiting: int = 1) -> None:
        """Have the library say so much that the socket takes nothing more, and at least so many bytes wait."""
        while self.transport.get_write_buffer_size() < waiting:
            self.ping(bytes(125))

    def take(self, most: int = 2**18) -> int:
        """Read what is there, up to so much; tell how much that was."""
        try:
            data = self.there.recv(most)
        except BlockingIOError:
            return -1
        if data:
            self.hear(data)
        return len(data)

    def take_all(self) -> None:
        """Read all that is there."""
        while self.take() > 0:
            pass

    async def read(self, messages: int = 1) -> list[bytes]:
        """Read until so many messages have come; give them."""
        while sum(one.fin and one.opcode < Opcode.CLOSE for one in self.heard) < messages:
            data = await asyncio.get_running_loop().sock_recv(self.there, 2**18)
            assert data, "the connection has ended"
            self.hear(data)
        return self.messages()

    async def read_to_the_end(self) -> None:
        """Read until the connection ends."""
        with contextlib.suppress(ConnectionError):
            while data := await asyncio.get_running_loop().sock_recv(self.there, 2**18):
                self.hear(data)

    def hear(self, data: bytes) -> None:
        self.wire += data
        self.reader.receive_data(data)
        self.heard += (one for one in self.reader.events_received() if isinstance(one, Frame))
        # The library does not like a close that cuts a message short, but hears it.
        assert self.reader.parser_exc is None or self.reader.close_rcvd, self.reader.parser_exc

    def messages(self) -> list[bytes]:
        """Give the whole messages that have come."""
        found, parts = list[bytes](), list[bytes]()
        for one in self.heard:
            if one.opcode < Opcode.CLOSE:
                parts.append(bytes(one.data))
                if one.fin:
                    found.append(b"".join(parts))
                    parts.clear()
        return found


@contextlib.asynccontextmanager
async def line(*, masked: bool = False) -> AsyncIterator[Line]:
    here, there = socket.socketpair()
    there.setblocking(False)
    _, one = await asyncio.get_running_loop().create_connection(lambda: Line(there, masked=masked), sock=here)
    try:
        yield one
    finally:
        one.transport.abort()
        await asyncio.sleep(0)
        there.close()


@pytest.fixture(params=["plain", "no writev"])
def any_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a system whose sockets cannot be written to past asyncio."""
    if request.param == "no writev":
        monkeypatch.delattr(os, "writev")


@pytest.fixture
def a_frame_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet, "_TURN", 1)


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    before = open_files()
    yield
    assert open_files() == before


def open_files() -> int:
    return len(list(OPEN_FILES.iterdir())) if OPEN_FILES.exists() else 0


def noise(length: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(length)


async def a_turn() -> None:
    """Have every task that can go on do so, before anything is asked of the sockets."""
    await asyncio.sleep(0)


# --- what arrives ---

SIZES: list[tuple[list[int], list[int]]] = [
    *(([one], [one]) for one in (0, 1, 125, 126, 65_535, 65_536, 3 * MIB)),
    ([0, 0], [0]), ([0, 5, 0], [5]), ([5, 0, 5], [10]), ([1000] * 50, [50_000]), ([1000] * 500, [294_000, 206_000]),
    ([100, PIECE, PIECE, 7], [100 + PIECE, PIECE + 7]), ([300_000] * 7, [300_000] * 7),
]  # fmt: skip


@pytest.mark.parametrize("masked", [False, True], ids=["bare", "masked"])
@pytest.mark.parametrize(("sizes", "fragments"), SIZES, ids=str)
@pytest.mark.usefixtures("any_system")
async def test_a_message_arrives_in_fragments_of_about_a_piece(
    sizes: list[int], fragments: list[int], masked: bool
) -> None:
    pieces: list[Piece] = [
        noise(size, index) if index % 2 else memoryview(noise(size, index)) for index, size in enumerate(sizes)
    ]
    async with line(masked=masked) as one:
        sent, heard = await asyncio.gather(one.outlet.send(pieces), one.read())
        assert sent
        assert heard == [b"".join(pieces)]
        assert [len(frame.data) for frame in one.heard] == fragments
        assert [frame.opcode for frame in one.heard] == [Opcode.BINARY] + [Opcode.CONT] * (len(fragments) - 1)
        assert not one.outlet.waits
        assert not one.outlet.holds


async def test_each_masked_frame_has_a_key_of_its_own_and_leaves_its_piece_as_it_was() -> None:
    piece = memoryview(bytearray(noise(PIECE)))
    async with line(masked=True) as one:
        sent, heard = await asyncio.gather(one.outlet.send([piece] * 3), one.read())
        assert sent
        assert heard == [noise(PIECE) * 3]
    assert piece == noise(PIECE)
    keys = {bytes(one.wire[at + 10 : at + 14]) for at in range(0, len(one.wire), PIECE + 14)}
    assert len(keys) == 3


@pytest.mark.usefixtures("any_system")
async def test_a_reader_that_stops_and_goes_on_gets_all_of_it() -> None:
    pieces = [noise(300_000, index) for index in range(20)]
    async with line() as one:
        sending = asyncio.create_task(one.outlet.send(pieces))
        dice = random.Random(0)
        while not sending.done():
            for _ in range(dice.randrange(4)):
                await a_turn()
            one.take(dice.choice((1, 100, 10_000, 2**18)))
        assert await sending
        assert await one.read() == [b"".join(pieces)]


@pytest.mark.usefixtures("any_system")
async def test_what_the_library_says_comes_between_frames_and_never_inside_one() -> None:
    pieces = [noise(50_000, index) for index in range(100)]
    async with line(masked=True) as one:
        sending = asyncio.create_task(one.outlet.send(pieces))
        dice, pings = random.Random(0), 0
        while not sending.done():
            await a_turn()
            for _ in range(dice.randrange(3)):
                pings += 1
                one.ping(pings.to_bytes(4, "big") * dice.randrange(1, 30))
            one.take(dice.choice((100, 10_000, 2**18)))
        assert await sending
        assert await one.read() == [b"".join(pieces)]
        one.take_all()
    control = [frame for frame in one.heard if frame.opcode is Opcode.PING]
    assert [int.from_bytes(frame.data[:4], "big") for frame in control] == list(range(1, pings + 1))
    inside = one.heard[: max(index for index, frame in enumerate(one.heard) if frame.opcode is Opcode.CONT)]
    assert sum(frame.opcode is Opcode.PING for frame in inside) > 10


@pytest.mark.usefixtures("a_frame_at_a_time")
async def test_a_frame_does_not_begin_while_the_librarys_last_word_is_half_out() -> None:
    async with line() as one:
        sending = asyncio.create_task(one.outlet.send([bytes(1000), bytes(300_000)]))
        await a_turn()  # the first frame is out, and it is the others' turn
        one.clog(2 * MIB)
        asyncio.get_running_loop().remove_writer(one.outlet._watched)  # so that asyncio hears first that there is room
        while one.transport.get_write_buffer_size() > MIB:
            one.take_all()
            await a_turn()
        one.take_all()  # there is room for the end of a ping of which the beginning is out
        one.outlet.go_on()
        assert len((await one.read())[0]) == 301_000
        assert await sending


@pytest.mark.usefixtures("a_frame_at_a_time")
async def test_nothing_of_a_message_follows_a_close() -> None:
    async with line() as one:
        sending = asyncio.create_task(one.outlet.send([bytes(1000), bytes(300_000), bytes(10)]))
        await a_turn()
        one.protocol.send_close(CloseCode.SERVICE_RESTART, "enough")
        one.send_data()
        one.take_all()
        one.outlet.go_on()
        while not sending.done():
            await a_turn()
            one.take_all()
        assert not await sending
        one.take_all()
        close = Frame(Opcode.CLOSE, Close(CloseCode.SERVICE_RESTART, "enough").serialize()).serialize(mask=False)
        assert one.wire.endswith(close)
        assert len(one.wire) == 1004 + len(close)


async def test_a_close_waits_for_the_end_of_its_frame_and_no_longer() -> None:
    async with line() as one:
        sending = asyncio.create_task(one.outlet.send([noise(2 * MIB), bytes(10)]))
        await a_turn()
        assert one.outlet.holds
        one.protocol.send_close(CloseCode.SERVICE_RESTART, "enough")
        one.send_data()
        while not sending.done():
            one.take()
            await a_turn()
        assert not await sending
        one.take_all()
    assert [frame.data for frame in one.heard] == [noise(2 * MIB)]
    assert one.reader.close_rcvd == Close(CloseCode.SERVICE_RESTART, "enough")


@pytest.mark.usefixtures("any_system")
async def test_messages_sent_at_once_go_out_one_after_the_other() -> None:
    said = [[noise(100_000, 10 * number + index) for index in range(5)] for number in range(5)]
    async with line() as one:
        sending = [asyncio.create_task(one.outlet.send(pieces)) for pieces in said]
        assert await one.read(messages=5) == [b"".join(pieces) for pieces in said]
        assert await asyncio.gather(*sending) == [True] * 5


@pytest.mark.usefixtures("a_frame_at_a_time")
async def test_a_long_message_to_a_fast_reader_lets_others_have_their_turn() -> None:
    async with line() as one:
        sending = asyncio.create_task(one.outlet.send([bytes(10)] * 20))
        await a_turn()
        one.take_all()
        assert len(one.heard) == 1
        await one.read()
        assert await sending


# --- giving up ---


@pytest.mark.usefixtures("any_system")
async def test_a_send_given_up_before_its_turn_leaves_the_connection_usable() -> None:
    async with line() as one:
        first = asyncio.create_task(one.outlet.send([bytes(2 * MIB)]))
        second = asyncio.create_task(one.outlet.send([b"never"]))
        await a_turn()
        second.cancel()
        await asyncio.wait([second])
        third = asyncio.create_task(one.outlet.send([b"after"]))
        assert await one.read(messages=2) == [bytes(2 * MIB), b"after"]
        assert all(await asyncio.gather(first, third))


@pytest.mark.usefixtures("any_system")
async def gives_up_and_sends_again(one: Line) -> None:
    """Give up a send of which no byte is out; the next one arrives."""
    sending = asyncio.create_task(one.outlet.send([bytes(MIB)]))
    await a_turn()
    assert not one.outlet.holds
    sending.cancel()
    await asyncio.wait([sending])
    again = asyncio.create_task(one.outlet.send([b"after"]))
    assert await one.read() == [b"after"]
    assert await again


async def test_a_send_given_up_before_a_byte_of_it_is_out_leaves_the_connection_usable() -> None:
    async with line() as one:
        one.clog()
        await gives_up_and_sends_again(one)


async def test_so_does_one_for_whose_head_the_socket_had_no_room() -> None:
    async with line() as one:
        ping = Frame(Opcode.PING, b"").serialize(mask=False)
        wire = one.transport.get_extra_info("socket")
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(wire.fileno(), ping)
        await gives_up_and_sends_again(one)


async def test_a_send_given_up_half_way_takes_the_connection_with_it() -> None:
    async with line() as one:
        sending = asyncio.create_task(one.outlet.send([bytes(4 * MIB)]))
        await a_turn()
        assert one.outlet.holds
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert one.transport.is_closing()
        await one.read_to_the_end()
        assert one.messages() == []


async def test_what_is_sent_right_after_one_given_up_half_way_does_not_become_its_end() -> None:
    async with line() as one:
        received = 0

        async def give_up_and_say_more() -> bool:
            nonlocal received
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await one.outlet.send([bytes(4 * MIB)])
            with contextlib.suppress(BlockingIOError):
                while True:  # now the socket has room again
                    received += len(one.there.recv(2**18))
            return await one.outlet.send([b"more"])

        assert not await give_up_and_say_more()
        assert received > 0
        assert await asyncio.get_running_loop().sock_recv(one.there, 100) == b""


async def test_a_send_given_up_when_all_of_it_is_out_leaves_the_connection_usable() -> None:
    async with line() as one:
        sending = asyncio.create_task(one.outlet.send([bytes(MIB)]))
        await a_turn()
        while one.outlet.holds:
            one.take()
            one.outlet.go_on()  # as the loop would, but the task does not hear of it yet
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert not one.transport.is_closing()
        again = asyncio.create_task(one.outlet.send([b"after"]))
        assert await one.read(messages=2) == [bytes(MIB), b"after"]
        assert await again


# --- connections that end ---


@pytest.mark.usefixtures("any_system")
async def test_a_connection_lost_in_the_middle_makes_all_sends_fail() -> None:
    async with line() as one:
        sending = [asyncio.create_task(one.outlet.send([bytes(4 * MIB)])) for _ in range(2)]
        await a_turn()
        one.there.close()
        assert await sending[0] is False
        one.protocol.receive_eof()
        assert await sending[1] is False
        assert await one.outlet.send([b"more"]) is False


async def test_a_connection_cut_by_this_side_makes_sends_fail() -> None:
    async with line() as one:
        sending = asyncio.create_task(one.outlet.send([bytes(4 * MIB)]))
        await a_turn()
        one.transport.abort()
        assert await sending is False


async def test_a_socket_that_fails_ends_its_connection_and_its_send() -> None:
    async with line() as one:
        one.transport.pause_reading()  # so that only a write can tell
        sending = asyncio.create_task(one.outlet.send([bytes(4 * MIB)]))
        await a_turn()
        one.there.close()
        one.outlet.go_on()
        assert one.transport.is_closing()
        assert await sending is False


async def test_nothing_is_done_by_an_outlet_that_has_nothing_to_do() -> None:
    async with line() as one:
        one.outlet.go_on()
        sending = asyncio.create_task(one.outlet.send([bytes(4 * MIB)]))
        await a_turn()
        sending.cancel()
        one.outlet.go_on()
        await asyncio.wait([sending])
        one.outlet.lost()
        one.outlet.go_on()


# --- what it costs ---


async def test_where_no_descriptor_is_left_asyncio_watches_the_socket() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with line() as one:
        sending = asyncio.create_task(one.outlet.send([noise(MIB, 1), noise(MIB, 2)]))
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            await a_turn()
            assert one.outlet.waits
            one.ping()
            assert await one.read() == [noise(MIB, 1) + noise(MIB, 2)]
            assert await sending
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert [frame.opcode for frame in one.heard] == [Opcode.BINARY, Opcode.PING, Opcode.CONT]


@pytest.mark.usefixtures("a_frame_at_a_time")
async def test_where_no_descriptor_is_left_others_must_wait_for_their_turn() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with line() as one:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            assert await one.outlet.send([b"to", b"get", b"her"])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert await one.read() == [b"together"]


async def test_what_is_sent_to_many_who_do_not_read_is_not_copied_for_any_of_them() -> None:
    shared = memoryview(bytes(8 * MIB))
    pieces = [shared[at : at + MIB // 4] for at in range(0, len(shared), MIB // 4)]
    async with contextlib.AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(line()) for _ in range(50)]
        tracemalloc.start()
        sending = [asyncio.create_task(one.outlet.send(pieces)) for one in lines]
        for _ in range(5):
            await a_turn()
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert all(one.outlet.holds for one in lines)
        assert held / 50 < 10_000
        for one in lines:
            one.transport.abort()
        assert await asyncio.gather(*sending) == [False] * 50


@pytest.mark.parametrize("end", ["sent", "lost", "given up"])
async def test_a_message_is_let_go_of_when_its_send_ends(end: str) -> None:
    class Model(np.ndarray):
        """Memory that can be watched."""

    async with line() as one:
        model = np.zeros(4 * MIB, np.uint8).view(Model)
        gone, data = weakref.ref(model), model.data
        del model
        sending = asyncio.create_task(one.outlet.send([data[:MIB], data[MIB:]]))
        del data
        await a_turn()
        assert gone() is not None
        if end == "sent":
            await one.read()
            one.heard.clear()
        elif end == "lost":
            one.transport.abort()
        else:
            sending.cancel()
        await asyncio.wait([sending])
        del sending
        assert gone() is None
