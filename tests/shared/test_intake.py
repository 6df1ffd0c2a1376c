"""Whatever way bytes come in, the messages in them are those that the websockets library's own protocol finds."""

import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import CONNECTING
from websockets.server import ServerProtocol
from websockets.uri import parse_uri
from websockets.utils import apply_mask

from shared.intake import SMALL, Intake, unmask

MIB = 2**20
DOORSTEP = 4096
"""Bytes of a long message that come before it asks for room."""


def frame(
    payload: bytes, opcode: int = Opcode.BINARY, *, fin: bool = True, key: bytes | None = b"\1\2\3\4", width: int = 0
) -> bytes:
    """Give one frame: masked if there is a key, its length written in at least so many bytes."""
    return head(len(payload), opcode, fin=fin, key=key, width=width) + (apply_mask(payload, key) if key else payload)


def head(
    length: int, opcode: int = Opcode.BINARY, *, fin: bool = True, key: bytes | None = b"\1\2\3\4", width: int = 0
) -> bytes:
    """Give the head of a frame."""
    first, masked = (0x80 if fin else 0) | opcode, 0x80 if key else 0
    if length < 126 and width < 2:
        short = struct.pack("!BB", first, masked | length)
    elif length < 2**16 and width < 8:
        short = struct.pack("!BBH", first, masked | 126, length)
    else:
        short = struct.pack("!BBQ", first, masked | 127, length)
    return short + (key or b"")


@dataclass
class Owner:
    """A connection without a socket, which notes what its intake says. The library's part is done by the library."""

    masked: bool = True
    limit: int = MIB
    scarce: bool = False
    """Whether there is no memory at first for long messages."""
    protocol: ServerProtocol | ClientProtocol = field(init=False)
    shaking_hands: bool = False
    messages: list[bytes] = field(default_factory=list)
    passed: bytearray = field(default_factory=bytearray)
    asked: list[int] = field(default_factory=list)
    refused: list[tuple[CloseCode, str]] = field(default_factory=list)
    intake: Intake = field(init=False)

    def __post_init__(self) -> None:
        self.intake = Intake(self, masked=self.masked)
        self.protocol = server() if self.masked else client()[0]

    def allot(self, nbytes: int) -> memoryview | None:
        self.asked.append(nbytes)
        return None if self.scarce else memoryview(bytearray(nbytes))

    def pass_on(self, data: memoryview) -> None:
        self.passed += data
        self.protocol.receive_data(bytes(data))
        if self.protocol.close_rcvd:
            self.intake.end()

    def whole(self, message: memoryview) -> None:
        self.messages.append(bytes(message))

    def refuse(self, code: CloseCode, reason: str) -> None:
        self.refused.append((code, reason))

    # What tests ask.

    def opened(self) -> "Owner":
        """Have shaken hands."""
        request, response = handshake()
        self.hear(request if self.masked else response)
        if isinstance(self.protocol, ServerProtocol):
            answer(self.protocol)
        self.protocol.events_received()
        self.passed.clear()
        return self

    def hear(self, data: bytes, *, at_once: int = 2**20) -> None:
        """Have bytes come in, as asyncio does: never more than there is room for."""
        while data:
            place = self.intake.room()
            count = min(len(place), len(data), at_once)
            place[:count] = data[:count]
            self.intake.came(count)
            data = data[count:]

    def go_on(self) -> None:
        """Find the memory that the intake waits for."""
        self.scarce = False
        self.intake.go_on(memoryview(bytearray(self.asked[-1])))


def server() -> ServerProtocol:
    return ServerProtocol(max_size=None)


def client() -> tuple[ClientProtocol, Request]:
    one = ClientProtocol(parse_uri("ws://hub/"), max_size=None)
    one.key = "dGhlIHNhbXBsZSBub25jZQ=="
    return one, one.connect()


def handshake() -> tuple[bytes, bytes]:
    """Give a request and its answer."""
    one, request = client()
    one.send_request(request)
    said = b"".join(one.data_to_send())
    other = server()
    other.receive_data(said)
    return said, answer(other)


def answer(protocol: ServerProtocol) -> bytes:
    (request,) = protocol.events_received()
    assert isinstance(request, Request)
    protocol.send_response(protocol.accept(request))
    return b"".join(protocol.data_to_send())


# --- what is sound ---


def mask_keys(masked: bool) -> st.SearchStrategy[bytes | None]:
    return st.binary(min_size=4, max_size=4) if masked else st.none()


lengths = st.integers(0, 300) | st.sampled_from([125, 126, 127, 4095, 4096, 4097, 65_535, SMALL, SMALL + 1, 70_000])
controls = st.tuples(st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=125))


@dataclass
class Talk:
    """What one side says, and how it comes in."""

    masked: bool
    frames: list[bytes]
    tail: bytes
    """What comes after a close."""
    scarce: list[bool]
    """For each message whether there is room at once."""
    cuts: list[int]


@st.composite
def talks(draw: st.DrawFn) -> Talk:
    masked = draw(st.booleans())
    dice = draw(st.randoms(use_true_random=False))
    said = list[bytes]()

    def control() -> None:
        for opcode, payload in draw(st.lists(controls, max_size=2)):
            said.append(frame(payload, opcode, key=draw(mask_keys(masked)), width=draw(st.sampled_from([0, 0, 2, 8]))))

    for length in draw(st.lists(lengths, max_size=5)):
        data = dice.randbytes(length)
        cuts = sorted(draw(st.lists(st.integers(0, length), max_size=4)))
        pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, length], strict=True)]
        for index, piece in enumerate(pieces):
            control()
            opcode = Opcode.CONT if index else draw(st.sampled_from([Opcode.BINARY, Opcode.TEXT]))
            key, width = draw(mask_keys(masked)), draw(st.sampled_from([0, 2, 8]))
            said.append(frame(piece, opcode, fin=index == len(pieces) - 1, key=key, width=width))
    control()
    tail = b""
    if draw(st.booleans()):
        said.append(frame(Close(1000, "enough").serialize(), Opcode.CLOSE, key=draw(mask_keys(masked))))
        tail = draw(st.binary(max_size=50))
    cuts = draw(st.lists(st.integers(1, 6000), min_size=1, max_size=20))
    return Talk(masked, said, tail, draw(st.lists(st.booleans(), max_size=5)), cuts)


def chunks(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    """Cut data into chunks of these sizes, again and again."""
    at = 0
    while data[at:]:
        for size in sizes:
            yield data[at : at + size]
            at += size


def by_the_library(talk: Talk) -> tuple[list[bytes], bytes]:
    """Give the messages, and the frames that are none, as the library's own protocol reads them."""
    one: ServerProtocol | ClientProtocol
    request, response = handshake()
    if talk.masked:
        one = server()
        one.receive_data(request)
        answer(one)
    else:
        one, asked = client()
        one.send_request(asked)
        one.receive_data(response)
        one.events_received()
    one.receive_data(b"".join(talk.frames))
    messages, others, parts = list[bytes](), b"", list[bytes]()
    sent = iter(talk.frames)
    for event in one.events_received():
        assert isinstance(event, Frame)
        wire = next(sent)
        if event.opcode >= Opcode.CLOSE:
            others += wire
            continue
        parts.append(bytes(event.data))
        if event.fin:
            messages.append(b"".join(parts))
            parts.clear()
    assert next(sent, None) is None
    return messages, others


@given(talks())
@example(Talk(masked=True, frames=[frame(b"", fin=False), frame(b"", Opcode.CONT)], tail=b"", scarce=[True], cuts=[1]))
@example(Talk(masked=True, frames=[frame(bytes(70_000))] * 3, tail=b"", scarce=[True, True, True], cuts=[4096]))
def test_messages_come_out_as_they_went_in_and_the_library_gets_the_rest(talk: Talk) -> None:
    messages, others = by_the_library(talk)
    owner, scarce = Owner(talk.masked, shaking_hands=True), iter(talk.scarce)
    shaken = handshake()[0 if talk.masked else 1]
    owner.hear(shaken[:-1], at_once=talk.cuts[0])
    assert owner.shaking_hands
    if talk.masked:
        owner.hear(shaken[-1:])
        answer(owner.protocol)  # type: ignore[arg-type]  # that of the masked side is a server's
        owner.shaking_hands, first = False, b""
    else:
        owner.shaking_hands, first = False, shaken[-1:]  # frames may come in one chunk with the end of the answer
    owner.scarce = next(scarce, False)
    for chunk in chunks(first + b"".join(talk.frames) + talk.tail, talk.cuts):
        before = len(owner.asked)
        owner.hear(chunk)
        while owner.scarce and len(owner.asked) > before:
            before = len(owner.asked)
            owner.intake.go_on(memoryview(bytearray(owner.asked[-1])))
        owner.scarce = next(scarce, False) if len(owner.asked) > before else owner.scarce
    assert owner.messages == messages
    assert bytes(owner.passed) == shaken + others + talk.tail
    assert owner.refused == []
    heard = owner.protocol.events_received()
    assert not isinstance(owner.protocol.parser_exc, ConnectionClosedError)
    assert all(isinstance(one, Request | Response) or one.opcode >= Opcode.CLOSE for one in heard)
    assert owner.intake.between is not (b"\x88" in [one[:1] for one in talk.frames])


def test_a_long_message_lies_where_its_owner_wanted_it_and_comes_there_straight_from_the_socket() -> None:
    owner = Owner().opened()
    data = np.random.default_rng(0).bytes(MIB)
    said = frame(data)
    owner.hear(said[: len(said) - len(data) + DOORSTEP])
    rest = owner.intake.room()
    assert len(rest) == MIB - DOORSTEP
    owner.hear(said[len(said) - len(data) + DOORSTEP :])
    assert owner.messages == [data]
    assert bytes(rest) == data[DOORSTEP:]
    assert owner.asked == [MIB]


@pytest.mark.parametrize("whole", [True, False])
def test_a_long_message_asks_for_room_only_when_some_of_it_is_there(whole: bool) -> None:
    owner = Owner().opened()
    said = frame(bytes(MIB)) if whole else frame(b"", fin=False) + frame(bytes(MIB), Opcode.CONT)
    short = len(said) - MIB + DOORSTEP - 1
    owner.hear(said[:short], at_once=1)
    assert owner.asked == []
    assert owner.intake.held == DOORSTEP - 1
    owner.hear(said[short : short + 1])
    assert owner.asked == [MIB]
    owner.hear(said[short + 1 :])
    assert owner.messages == [bytes(MIB)]


def test_of_a_message_in_fragments_nothing_but_heads_is_read_elsewhere() -> None:
    owner = Owner().opened()
    owner.hear(frame(bytes(10_000), fin=False))
    assert owner.asked == [owner.limit]  # nobody knows how long it will be
    assert len(owner.intake.room()) == 14
    owner.hear(frame(b"?", Opcode.PING) + head(500, Opcode.CONT))
    assert len(owner.intake.room()) == 500
    owner.hear(apply_mask(bytes(500), b"\1\2\3\4"))
    assert owner.messages == [bytes(10_500)]


def test_small_messages_need_no_room() -> None:
    owner = Owner(limit=SMALL).opened()
    owner.hear(frame(bytes(SMALL)) + frame(bytes(SMALL - 1), fin=False) + frame(b"!", Opcode.CONT))
    assert owner.messages == [bytes(SMALL), bytes(SMALL - 1) + b"!"]
    assert owner.asked == []


def test_intakes_of_two_threads_do_not_share_the_place_where_bytes_arrive() -> None:
    with ThreadPoolExecutor(1) as other:
        there = other.submit(Owner().intake.room).result()
        assert not np.shares_memory(np.frombuffer(there, np.uint8), np.frombuffer(Owner().intake.room(), np.uint8))


# --- what is broken ---

BROKEN: dict[str, tuple[bytes, CloseCode]] = {
    "an opcode nobody knows": (head(5, 0x3), CloseCode.PROTOCOL_ERROR),
    "a control opcode nobody knows": (head(5, 0xB), CloseCode.PROTOCOL_ERROR),
    "a reserved bit": (head(5, 0x42), CloseCode.PROTOCOL_ERROR),
    "another": (head(5, 0x22), CloseCode.PROTOCOL_ERROR),
    "a reserved bit of a ping": (head(5, 0x10 | Opcode.PING), CloseCode.PROTOCOL_ERROR),
    "no mask": (head(5, key=None), CloseCode.PROTOCOL_ERROR),
    "a ping without a mask": (head(5, Opcode.PING, key=None), CloseCode.PROTOCOL_ERROR),
    "a long ping": (head(126, Opcode.PING), CloseCode.PROTOCOL_ERROR),
    "a very long close": (head(2**40, Opcode.CLOSE), CloseCode.PROTOCOL_ERROR),
    "a ping in fragments": (head(5, Opcode.PING, fin=False), CloseCode.PROTOCOL_ERROR),
    "an end without a beginning": (head(5, Opcode.CONT), CloseCode.PROTOCOL_ERROR),
    "an end after the end": (frame(b"a") + head(5, Opcode.CONT), CloseCode.PROTOCOL_ERROR),
    "a beginning inside": (frame(b"a", fin=False) + head(5), CloseCode.PROTOCOL_ERROR),
    "a byte too many": (head(1001), CloseCode.MESSAGE_TOO_BIG),
    "a byte too many to follow": (head(1001, fin=False), CloseCode.MESSAGE_TOO_BIG),
    "a byte too many in two": (frame(bytes(1000), fin=False) + head(1, Opcode.CONT), CloseCode.MESSAGE_TOO_BIG),
    "2**63 bytes": (head(2**63), CloseCode.MESSAGE_TOO_BIG),
    "2**64 - 1 bytes": (head(2**64 - 1), CloseCode.MESSAGE_TOO_BIG),
    "2**64 - 1 more bytes": (frame(b"ab", fin=False) + head(2**64 - 1, Opcode.CONT), CloseCode.MESSAGE_TOO_BIG),
}


@pytest.mark.parametrize("at_once", [1, 4096])
@pytest.mark.parametrize(("said", "code"), BROKEN.values(), ids=BROKEN)
def test_a_broken_frame_is_refused_at_its_head_and_nothing_is_taken_after_it(
    said: bytes, code: CloseCode, at_once: int
) -> None:
    owner = Owner(limit=1000).opened()
    owner.hear(said[:-1], at_once=at_once)
    assert owner.refused == []
    before, asked = list(owner.messages), list(owner.asked)
    owner.hear(said[-1:])
    assert [one for one, _ in owner.refused] == [code]
    assert all(0 < len(reason.encode()) <= 123 for _, reason in owner.refused)
    assert owner.intake.held == 0
    assert (owner.messages, owner.asked, bytes(owner.passed)) == (before, asked, b"")
    more = frame(b"late") + frame(b"?", Opcode.PING)
    owner.hear(more, at_once=at_once)
    assert (owner.messages, len(owner.refused), bytes(owner.passed)) == (before, 1, more)


def test_a_client_refuses_what_is_masked() -> None:
    owner = Owner(masked=False).opened()
    owner.hear(frame(b"a", key=None) + frame(b"b", key=b"abcd"))
    assert owner.messages == [b"a"]
    assert owner.refused == [(CloseCode.PROTOCOL_ERROR, "incorrect masking")]


def test_as_much_as_may_come_may_come() -> None:
    owner = Owner(limit=100).opened()
    owner.hear(frame(bytes(100)) + frame(bytes(60), fin=False) + frame(bytes(40), Opcode.CONT) + head(101))
    assert owner.messages == [bytes(100)] * 2
    assert owner.refused == [(CloseCode.MESSAGE_TOO_BIG, "a message may be 100 bytes long")]


def test_a_message_that_began_under_a_lower_limit_keeps_to_it() -> None:
    owner = Owner(limit=100).opened()
    owner.hear(frame(bytes(60), fin=False))
    owner.limit = MIB
    owner.hear(frame(bytes(40), Opcode.CONT, fin=False) + head(1, Opcode.CONT))
    assert owner.refused == [(CloseCode.MESSAGE_TOO_BIG, "a message may be 100 bytes long")]


# --- waiting for room ---


def test_what_came_before_there_was_room_is_kept_and_used_when_there_is() -> None:
    owner = Owner(scarce=True).opened()
    data = np.random.default_rng(0).bytes(SMALL + 100)
    said = frame(data)
    owner.hear(said[:5000])
    assert (owner.asked, owner.messages) == ([SMALL + 100], [])
    assert owner.intake.held == 5000 - 14
    assert not owner.intake.between
    owner.go_on()
    assert owner.intake.held == 5000 - 14
    assert owner.messages == []
    owner.hear(said[5000:])
    assert owner.messages == [data]
    assert owner.intake.between


def test_all_that_was_kept_is_gone_through_also_a_second_message_that_waits() -> None:
    owner = Owner(scarce=True).opened()
    long = bytes(DOORSTEP + 10)
    owner.hear(
        frame(long, fin=False) + frame(b"?", Opcode.PING) + frame(b" end", Opcode.CONT) + frame(b"small")
        + frame(b"", fin=False) + frame(long, Opcode.CONT, fin=False) + frame(b"!", Opcode.CONT) + frame(b"third"),
        at_once=100_000,
    )  # fmt: skip
    assert (owner.asked, owner.messages, bytes(owner.passed)) == ([MIB], [], b"")
    owner.intake.go_on(memoryview(bytearray(MIB)))
    assert (owner.asked, owner.messages) == ([MIB, MIB], [long + b" end", b"small"])
    assert bytes(owner.passed) == frame(b"?", Opcode.PING)
    owner.go_on()
    assert owner.messages == [long + b" end", b"small", long + b"!", b"third"]
    assert owner.intake.between


def test_what_was_kept_of_an_ended_connection_is_forgotten() -> None:
    owner = Owner(scarce=True).opened()
    owner.hear(frame(bytes(SMALL + 1))[:1000])
    owner.intake.end()
    assert owner.intake.held == 0
    owner.hear(b"more")
    assert (owner.messages, bytes(owner.passed)) == ([], b"more")


# --- handshakes ---


def test_what_a_client_says_before_it_was_answered_is_dropped() -> None:
    owner = Owner(shaking_hands=True)
    request, _ = handshake()
    owner.hear(request + frame(b"too early"))
    assert (owner.messages, bytes(owner.passed)) == ([], request)
    assert owner.intake.between
    answer(owner.protocol)  # type: ignore[arg-type]  # that of the masked side is a server's
    owner.shaking_hands = False
    owner.hear(frame(b"in time"))
    assert owner.messages == [b"in time"]


def test_an_answer_that_is_no_welcome_is_passed_on_to_its_end() -> None:
    page = b"HTTP/1.1 404 Not Found\r\nContent-Length: 11\r\n\r\nno such hub"
    for at_once in (1, 10, 1000):
        owner = Owner(masked=False, shaking_hands=True)
        owner.hear(page, at_once=at_once)
        (response,) = owner.protocol.events_received()
        assert isinstance(response, Response)
        assert (response.status_code, response.body) == (404, b"no such hub")
        assert owner.protocol.state is CONNECTING


# --- how far it is ---


def between(owner: Owner) -> bool:
    return owner.intake.between


def test_between_tells_whether_a_message_or_a_frame_is_under_way() -> None:
    owner = Owner(shaking_hands=True)
    request, _ = handshake()
    assert between(owner)
    owner.hear(request[:10])
    assert not between(owner)
    owner.hear(request[10:])
    assert between(owner)
    owner.shaking_hands = False
    said = [frame(b"ab", fin=False), frame(b"?", Opcode.PING), frame(b"cd", Opcode.CONT)]
    for byte in b"".join(said)[:-1]:
        owner.hear(bytes([byte]))
        assert not between(owner)
    owner.hear(said[-1][-1:])
    assert between(owner)
    ping = frame(b"?", Opcode.PING)
    for byte in ping[:-1]:
        owner.hear(bytes([byte]))
        assert not between(owner)
    owner.hear(ping[-1:])
    assert between(owner)


def test_after_the_end_it_is_never_between_messages_so_that_whoever_goes_on_talking_is_seen() -> None:
    owner = Owner().opened()
    owner.hear(frame(Close(1000, "").serialize(), Opcode.CLOSE))
    assert not owner.intake.between
    assert owner.intake.held == 0


def test_ends_counts_messages_and_the_control_frames_between_them() -> None:
    owner = Owner().opened()
    ping = frame(b"?", Opcode.PING)
    for said, ends in [
        (frame(b"a"), 1),
        (ping, 2),
        (frame(b"", Opcode.PONG), 3),
        (frame(b"a", fin=False) + ping, 3),
        (frame(b"", Opcode.CONT, fin=False) + ping, 3),
        (frame(b"", Opcode.CONT), 4),
        (frame(b"") + frame(b""), 6),
    ]:
        owner.hear(said)
        assert owner.intake.ends == ends


def test_held_counts_what_came_of_a_message_and_of_the_head_of_its_frame() -> None:
    owner = Owner().opened()
    for said, held in [
        (head(10, fin=False)[:3], 3),
        (head(10, fin=False)[3:], 0),
        (bytes(4), 4),
        (bytes(6), 10),
        (head(5, Opcode.CONT)[:2], 12),
        (head(5, Opcode.CONT)[2:] + bytes(5), 0),
    ]:
        owner.hear(said)
        assert owner.intake.held == held


# --- masks ---


@given(
    size=st.integers(0, 100),
    offset=st.integers(0, 9),
    ends=st.tuples(st.integers(0, 100), st.integers(0, 100)),
    key=st.binary(min_size=4, max_size=4),
    phase=st.integers(0, 3),
)
def test_masks_are_taken_off_in_place_like_the_librarys(
    size: int, offset: int, ends: tuple[int, int], key: bytes, phase: int
) -> None:
    data = bytes(range(7, 7 + size))
    start, end = sorted(min(one, size) for one in ends)
    memory = memoryview(bytearray(offset + size))[offset:]
    memory[:] = data
    unmask(memory, start, end, key, phase)
    expected = apply_mask(data[start:end], key[phase:] + key[:phase]) if start < end else b""
    assert bytes(memory) == data[:start] + expected + data[end:]
