"""Messages survive the wire bit for bit, tensors lie aligned, and nothing but a message passes the door."""

import random
import tracemalloc
from typing import Any

import msgpack
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.codec import ALIGNMENT, MAX_HEADER, MAX_WELCOME, PIECE, Decoded, Frame, decode, encode
from shared.errors import ProtocolError
from shared.messages import Evaluation, Goodbye, Hello, Message, Ready, Role, ToEdge, ToHub, Update
from shared.tensors import Array, ModelSpec, Tensors
from tests.support.examples import (
    DTYPES,
    HELLO,
    MODEL,
    SAID_BY_EDGES,
    SAID_BY_THE_HUB,
    SPEC,
    TRAIN,
    UPDATE,
    WELCOME,
    same_tensors,
)

MANY = 100


def joined(frame: Frame) -> bytes:
    return b"".join(frame.pieces)


def header_of(message: Message) -> bytes:
    return joined(encode(message))


def hear(data: bytes, *, tensors: int = MANY) -> Decoded[Any]:
    return decode(data, ToHub, max_tensors=tensors)


# --- there and back ---

names = st.text(min_size=1, max_size=20)
numbers = st.floats() | st.floats(width=32)
messages = st.one_of(
    st.builds(
        Hello,
        versions=st.lists(st.integers(0, 2**53), min_size=1, max_size=16).map(tuple),
        edge=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
        role=st.sampled_from(Role),
        agent=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=64),
    ),
    st.builds(Ready, examples=st.integers(0, 2**53), data_bytes=st.integers(0, 2**53), model=st.just("0f" * 32)),
    st.builds(Goodbye, reason=st.text(max_size=1024)),
    st.builds(
        Update,
        run=names,
        round=st.integers(-(2**63), 2**64 - 1),
        attempt=st.integers(0, 2**31),
        model=st.just("ab" * 32),
        spec=names,
        examples=st.integers(0, 2**64 - 1) | numbers,
        metrics=st.dictionaries(names, numbers, max_size=32),
        seconds=numbers,
    ),
    st.builds(
        Evaluation,
        run=names,
        round=st.integers(0, 2**53),
        model=st.just("cd" * 32),
        examples=numbers,
        metrics=st.dictionaries(names, numbers, max_size=32),
    ),
)


@st.composite
def models(draw: st.DrawFn) -> Tensors:
    dice = np.random.default_rng(draw(st.integers(0, 2**32)))
    model = {}
    for number in range(draw(st.integers(0, 8))):
        dtype = draw(st.sampled_from(DTYPES))
        shape = tuple(draw(st.lists(st.integers(0, 40), max_size=3)))
        model[f"t{number}"] = dice.integers(0, 2, shape, np.uint8).astype(dtype)
    return model


@settings(deadline=None)
@given(message=messages, model=models())
def test_every_message_comes_back_with_every_tensor(message: Message, model: Tensors) -> None:
    frame = encode(message, model.values())
    heard = hear(joined(frame))
    assert msgspec.json.encode(heard.message) == msgspec.json.encode(message)  # JSON, as NaN is not NaN
    assert same_tensors(ModelSpec.of(model).views(heard.segments), model)
    assert heard.nbytes == frame.nbytes == len(joined(frame))


@pytest.mark.parametrize("name", [*SAID_BY_EDGES, *SAID_BY_THE_HUB])
def test_each_side_hears_what_the_other_said_and_nobody_else(name: str) -> None:
    message = {**SAID_BY_EDGES, **SAID_BY_THE_HUB}[name]
    right, wrong = (ToHub, ToEdge) if name in SAID_BY_EDGES else (ToEdge, ToHub)
    assert decode(header_of(message), right).message == message
    if not isinstance(message, Goodbye):
        with pytest.raises(ProtocolError, match="not a message of this protocol: Invalid value"):
            decode(header_of(message), wrong)


@settings(deadline=None)
@given(model=models())
def test_tensor_bytes_start_at_multiples_of_64(model: Tensors) -> None:
    data = joined(encode(UPDATE, model.values()))
    whole = np.frombuffer(data, np.uint8)
    for segment in hear(data).segments:
        if segment.nbytes:
            start = np.frombuffer(segment, np.uint8).__array_interface__["data"][0]
            assert (start - whole.__array_interface__["data"][0]) % ALIGNMENT == 0


def test_a_long_tensor_goes_out_in_pieces_that_are_views_of_it() -> None:
    long = np.arange(3 * PIECE // 4 + 5, dtype=np.float32)
    frame = encode(UPDATE, [np.ones(3), long, np.ones(3)])
    views = [piece for piece in frame.pieces if isinstance(piece, memoryview)]
    assert [view.nbytes for view in views] == [PIECE, PIECE, PIECE, 20]
    assert all(np.shares_memory(np.frombuffer(view, np.uint8), long) for view in views)
    assert max(map(len, frame.pieces)) == PIECE
    assert np.array_equal(np.frombuffer(hear(joined(frame)).segments[1], np.float32), long)


def test_many_short_tensors_are_gathered_into_pieces() -> None:
    short = [np.full(3000, number % 256, np.uint8) for number in range(10 * MANY)]
    frame = encode(UPDATE, short)
    assert all(PIECE <= len(piece) < PIECE + 4000 for piece in frame.pieces[:-1])
    assert [bytes(segment[:1])[0] for segment in hear(joined(frame), tensors=10 * MANY).segments] == [
        number % 256 for number in range(10 * MANY)
    ]


def test_tensors_of_some_length_are_referred_to_and_not_copied() -> None:
    tensors = [np.zeros(50_000, np.uint8) for _ in range(MANY)]
    bodies = [np.frombuffer(piece, np.uint8) for piece in encode(UPDATE, tensors).pieces if len(piece) == 50_000]
    assert len(bodies) == MANY
    assert all(np.shares_memory(body, tensor) for body, tensor in zip(bodies, tensors, strict=True))


def test_a_message_that_ends_with_a_piece_has_no_empty_one_after_it() -> None:
    assert all(encode(UPDATE, [np.zeros(PIECE, np.uint8)]).pieces)


def test_what_comes_out_cannot_be_written_to() -> None:
    segments = hear(bytearray(joined(encode(UPDATE, MODEL.values())))).segments
    assert all(segment.readonly for segment in segments)


@pytest.mark.parametrize("array", [np.arange(200, dtype=np.uint8), np.arange(300.0), np.zeros(0)], ids=["8", "16", "0"])
def test_short_heads_and_no_padding_are_understood(array: Array) -> None:
    data = header_of(UPDATE) + msgpack.packb(array.tobytes())
    assert bytes(hear(data).segments[0]) == array.tobytes()


def test_up_to_63_bytes_of_padding_may_stand_in_a_row() -> None:
    data = header_of(UPDATE)
    tensor = msgpack.packb(b"1234")
    assert len(hear(data + b"\xc0" * 63 + tensor + b"\xc0" * 63 + tensor + b"\xc0" * 63).segments) == 2
    with pytest.raises(ProtocolError, match=f"64 or more bytes of padding in a row at {len(data) + 63}"):
        hear(data + b"\xc0" * 64 + tensor)


# --- what is refused, and how ---


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the header is cut short or longer than 65536 bytes"),
        (header_of(HELLO)[:-1], "the header is cut short"),
        (msgpack.packb("hello"), "Expected `object`, got `str`"),
        (msgpack.packb(["hello"]), "Expected `object`, got `array`"),
        (msgpack.packb({}), "missing required field `type`"),
        (msgpack.packb({"type": "hullo"}), "Invalid value 'hullo'"),
        (msgpack.packb({"type": ["hello"]}), "Expected `str`"),
        (msgpack.packb({"type": "hello", "versions": [1]}), "missing required field `edge`"),
        (msgpack.packb({"type": "hello", "x": b"bytes"}), "exceeds max_bin_len"),
        (msgpack.packb({"type": "hello", "x": msgpack.ExtType(1, b"x")}), "exceeds max_ext_len"),
        (msgpack.packb({"type": "hello", 1: 1}), "not allowed for map key"),
        (msgpack.packb({"type": "hello", "x": [0] * 1025}), "exceeds max_array_len"),
        (msgpack.packb({str(n): 0 for n in range(257)}), "exceeds max_map_len"),
        (b"\x91" * 2000, "not a message"),
        (b"\xc1", "not a message"),
        (b"\xa2\xff\xfe", "not a message"),
        (header_of(UPDATE) + b"\x00", "only byte strings may follow, found byte 0x00 at 188"),
        (header_of(UPDATE) + header_of(UPDATE), "only byte strings may follow, found byte 0x89"),
        (header_of(UPDATE) + b"\xc4\x01x" * (MANY + 1), "more than 100 tensors came"),
        (header_of(UPDATE) + b"\xc4", "a tensor of 0 bytes was announced, 0 came"),
        (header_of(UPDATE) + b"\xc6\x00\x00", "a tensor of 0 bytes was announced, 0 came"),
        (header_of(UPDATE) + b"\xc4\x05abcd", "a tensor of 5 bytes was announced, 4 came"),
        (header_of(UPDATE) + b"\xc6\xff\xff\xff\xffx", "a tensor of 4294967295 bytes was announced, 1 came"),
    ],
    ids=range(23),
)
def test_what_is_not_exactly_a_message_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        hear(data)


def test_no_tensor_may_follow_where_none_is_expected() -> None:
    with pytest.raises(ProtocolError, match="more than 0 tensors came"):
        decode(header_of(HELLO) + msgpack.packb(b""), ToHub)


def test_an_edges_header_has_at_most_64_kib_and_a_hubs_four_mib() -> None:
    long = msgspec.structs.replace(UPDATE, metrics={})
    room = MAX_HEADER - len(header_of(long)) - 10
    fields = msgspec.to_builtins(long)
    assert hear(msgpack.packb({**fields, "x": "x" * room})).message == long
    with pytest.raises(ProtocolError, match="cut short or longer than 65536 bytes"):
        hear(msgpack.packb({**fields, "x": "x" * (room + 20)}))
    spec = tuple(msgspec.structs.replace(SPEC.tensors[0], name=f"layer.{n}.weight") for n in range(20_000))
    welcome = msgspec.structs.replace(WELCOME, spec=spec)
    assert decode(header_of(welcome), ToEdge, max_header=MAX_WELCOME).message == welcome


@pytest.mark.parametrize(
    "bomb",
    [
        b"\xdc\x03\xff" * 1360,  # lists in lists, each announced as long as is allowed
        b"\xdc\x1f\xff" * 1360,
        b"\xdd\x7f\xff\xff\xff" * 800,
        b"\xdf\x7f\xff\xff\xff" * 800,
        b"\x81\xa1x" * 1360,
        header_of(UPDATE) + b"\xc6\xff\xff\xff\xff",
    ],
    ids=["allowed lists", "longer lists", "long lists", "long maps", "deep maps", "long tensor"],
)
def test_four_kib_of_announcements_cost_little_memory(bomb: bytes) -> None:
    assert len(bomb) <= 4096
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            hear(bomb)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * 2**20


# --- whatever comes, only ProtocolError comes of it ---


def survives(data: bytes) -> None:
    try:
        heard = decode(data, ToHub, max_tensors=8)
    except ProtocolError:
        return
    assert sum(map(len, heard.segments)) < len(data)


def mutated(data: bytes, dice: random.Random) -> bytes:
    """Damage a message in one to four places: flip, cut, repeat, insert, overwrite with a telling byte."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(changed) + 1)
        match dice.randrange(6):
            case 0:
                changed[at : at + 1] = bytes([dice.randrange(256)])
            case 1:
                del changed[at : at + dice.randint(1, 40)]
            case 2:
                changed[at:at] = changed[at : at + dice.randint(1, 40)]
            case 3:
                changed[at:at] = dice.randbytes(dice.randint(1, 8))
            case 4:
                changed[at : at + 1] = dice.choice(
                    [b"\xc0", b"\xc1", b"\xc4", b"\xc6", b"\xdf", b"\xdd", b"\xdb", b"\xcf"]
                )
            case 5:
                changed[at : at + 9] = b"\xcb" + dice.choice([b"\x7f\xf0", b"\x7f\xf8", b"\xff\xef"]) + b"\xff" * 6
    return bytes(changed)


def test_ten_thousand_damaged_messages_do_no_harm() -> None:
    dice = random.Random(20)
    sound = [joined(encode(message, MODEL.values())) for message in SAID_BY_EDGES.values()]
    for _ in range(10_000):
        survives(mutated(dice.choice(sound), dice))


def test_ten_thousand_strings_of_random_bytes_do_no_harm() -> None:
    dice = random.Random(21)
    for _ in range(5_000):
        survives(dice.randbytes(dice.randrange(1, 64)))
        survives(header_of(UPDATE) + dice.randbytes(dice.randrange(1, 64)))


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None)
@given(message=st.sampled_from([*SAID_BY_EDGES.values(), TRAIN, WELCOME]), data=st.data())
def test_fields_of_any_other_kind_do_no_harm(message: Message, data: st.DataObject) -> None:
    fields = msgspec.to_builtins(message)
    for name in data.draw(st.sets(st.sampled_from(sorted(fields)), min_size=1, max_size=3)):
        fields[name] = data.draw(plain)
    for union in (ToHub, ToEdge):
        try:
            decode(msgpack.packb(fields), union)
        except ProtocolError:
            pass
