"""Messages and websocket frames that are almost right, from a seed."""

import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
from websockets.frames import Opcode

from shared.codec import MAX_HEADER, decode, encode
from shared.errors import ProtocolError
from shared.messages import ToHub
from tests.support.examples import MODEL, SAID_BY_EDGES, UPDATE

CORPUS = tuple(
    b"".join(frame.pieces) for frame in (*map(encode, SAID_BY_EDGES.values()), encode(UPDATE, MODEL.values()))
)
"""What an honest edge says."""

_INTERESTING = (b"\x00", b"\xff", b"\xc0", b"\xc1", b"\xc6", b"\xdf\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\x7f")
_ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    2**63,
    -(2**63),
    2**64 - 1,
    0.5,
    float("nan"),
    float("inf"),
    "",
    "\0",
    "x" * 300,
)


def message(dice: random.Random) -> bytes:
    """Give one mutated message: bytes changed, cut, doubled, mixed, or fields with values that are not theirs."""
    return dice.choice(_MUTATIONS)(dice, dice.choice(CORPUS))


def _flip(dice: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 8))):
        changed[dice.randrange(len(changed))] = dice.randrange(256)
    return bytes(changed)


def _cut(dice: random.Random, data: bytes) -> bytes:
    return data[: dice.randrange(len(data))]


def _double(dice: random.Random, data: bytes) -> bytes:
    start = dice.randrange(len(data))
    end = dice.randint(start, len(data))
    return data[:end] + data[start:end] * dice.choice((1, 2, 100)) + data[end:]


def _mix(dice: random.Random, data: bytes) -> bytes:
    other = dice.choice(CORPUS)
    return data[: dice.randrange(len(data))] + other[dice.randrange(len(other)) :]


def _insert(dice: random.Random, data: bytes) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + dice.choice(_INTERESTING) * dice.choice((1, 3, 70)) + data[at:]


def _noise(dice: random.Random, data: bytes) -> bytes:
    return dice.randbytes(dice.choice((0, 1, 10, 100, 1000)))


def _fields(dice: random.Random, data: bytes) -> bytes:
    unpacker = msgpack.Unpacker()
    unpacker.feed(data)
    header = unpacker.unpack()
    for key in list(header):
        roll = dice.random()
        if roll < 0.15:
            del header[key]
        elif roll < 0.4:
            header[key] = _value(dice, 3)
    if dice.random() < 0.2:
        header[_value(dice, 0)] = _value(dice, 3)
    return msgpack.packb(header) + data[unpacker.tell() :]


def _value(dice: random.Random, depth: int) -> Any:
    roll = dice.random()
    if depth and roll < 0.15:
        return [_value(dice, depth - 1) for _ in range(dice.choice((0, 1, 3, 40)))]
    if depth and roll < 0.3:
        return {str(number): _value(dice, depth - 1) for number in range(dice.choice((0, 1, 3, 40)))}
    return dice.choice(_ODD)


def _deep(dice: random.Random, data: bytes) -> bytes:
    """Nest as deep as bytes allow: each level costs the sender one."""
    return dice.choice((b"\x91", b"\x81\xa1a", b"\xdc\x00\x01", b"\x81" * 2)) * dice.choice((10, 600, 2000)) + data


_MUTATIONS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _flip, _flip, _flip, _cut, _double, _mix, _insert, _noise, _fields, _fields, _fields, _deep,
)  # fmt: skip


def try_codec(dice: random.Random, count: int) -> tuple[int, int]:
    """Decode so many mutants; tell how many were messages still, and how many were refused.

    Raises:
        Exception: whatever else than ProtocolError left the codec.
    """
    sound = 0
    for _ in range(count):
        try:
            decode(message(dice), ToHub, max_header=dice.choice((MAX_HEADER, 256)), max_tensors=dice.randrange(4))
            sound += 1
        except ProtocolError:
            pass
    return sound, count - sound


def frames(dice: random.Random, count: int) -> Iterator[bytes]:
    """Give frames as a broken or hostile client makes them; about half of them keep to RFC 6455."""
    for _ in range(count):
        payload = dice.choice((b"", b"\x00", dice.choice(CORPUS), message(dice)))[:3000]
        opcode = dice.choice((Opcode.BINARY,) * 6 + (Opcode.CONT,) * 4 + tuple(Opcode))
        first = (0x80 if dice.random() < 0.7 else 0) | opcode
        if dice.random() < 0.02:
            first ^= 1 << dice.randrange(8)  # reserved bits and opcodes
        if opcode >= Opcode.CLOSE:
            payload = payload[: dice.choice((0, 1, 2, 125, 126))]
        length = len(payload)
        if dice.random() < 0.02:
            length = dice.choice((0, length + 1, 2**16, 2**32, 2**63, 2**64 - 1))  # a lie
        masked = 0x80 if dice.random() < 0.99 else 0
        mask = b"\0\0\0\0" if masked else b""  # of zeros: what follows goes as it is
        if length < 126 and dice.random() < 0.95:
            head = struct.pack("!BB", first, masked | length)
        elif length < 2**16 and dice.random() < 0.95:
            head = struct.pack("!BBH", first, masked | 126, length)
        else:
            head = struct.pack("!BBQ", first, masked | 127, length)
        yield head + mask + payload
