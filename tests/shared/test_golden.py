"""The bytes of protocol version 1 are fixed: checked-in files, this release's codec and a stranger's decoder agree.

A change that makes these tests fail breaks every edge that is out there. Only with a new protocol version may the
files be written anew: `python -m tests.shared.test_golden` from the root of the repository.
"""

import json
import struct
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest

from shared.codec import decode, encode
from shared.messages import Message, ToEdge, ToHub, ToViewer
from shared.tensors import sha256
from tests.support.examples import (
    HELLO,
    MODEL,
    SAID_BY_EDGES,
    SAID_BY_THE_HUB,
    SAID_TO_VIEWERS,
    SPEC,
    UPDATE,
    WITH_TENSORS,
    same_tensors,
)

GOLDEN = Path(__file__).parent / "golden"
PROTOCOL = Path(__file__).parents[2] / "docs" / "protocol.md"
MESSAGES: dict[str, Message] = {**SAID_BY_EDGES, **SAID_BY_THE_HUB, **SAID_TO_VIEWERS}


def encoded(name: str) -> bytes:
    tensors = MODEL.values() if name in WITH_TENSORS else ()
    return b"".join(encode(MESSAGES[name], tensors).pieces)


def hex_dump(data: bytes) -> str:
    rows = (data[at : at + 16] for at in range(0, len(data), 16))
    return "\n".join(
        f"{16 * number:04x}  {row.hex(' '):<47}  {''.join(chr(b) if 32 <= b < 127 else '.' for b in row)}"
        for number, row in enumerate(rows)
    )


def test_there_is_one_file_for_each_message() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == set(MESSAGES)


@pytest.mark.parametrize("name", MESSAGES)
def test_encoding_gives_the_golden_bytes(name: str) -> None:
    assert encoded(name) == (GOLDEN / f"{name}.bin").read_bytes()


@pytest.mark.parametrize("name", MESSAGES)
def test_decoding_the_golden_bytes_gives_the_message(name: str) -> None:
    union = ToHub if name in SAID_BY_EDGES else ToEdge | ToViewer
    decoded = decode((GOLDEN / f"{name}.bin").read_bytes(), union, max_tensors=len(MODEL))
    assert decoded.message == MESSAGES[name]
    if name in WITH_TENSORS:
        assert same_tensors(SPEC.views(decoded.segments), MODEL)
    else:
        assert decoded.segments == ()


# --- a client that was written from docs/protocol.md, with a msgpack library and nothing of ours ---


def strangers_decode(data: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """Read a message as a stream of msgpack objects, as any msgpack library can, and drop the padding."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(data)
    header, *rest = unpacker
    return header, [item for item in rest if item is not None]


def strangers_numbers(dtype: str, payload: bytes) -> list[float]:
    """Read little-endian numbers with nothing but Python's struct."""
    if dtype == "bfloat16":  # the upper half of a float32
        halves = struct.unpack(f"<{len(payload) // 2}H", payload)
        return [struct.unpack("<f", struct.pack("<I", half << 16))[0] for half in halves]
    letter = {"float32": "f", "float16": "e", "int64": "q", "bool": "?"}[dtype]
    return [number for (number,) in struct.iter_unpack(f"<{letter}", payload)]


@pytest.mark.parametrize("name", MESSAGES)
def test_a_stranger_with_a_msgpack_library_reads_the_same_header(name: str) -> None:
    header, payloads = strangers_decode((GOLDEN / f"{name}.bin").read_bytes())
    assert header == json.loads(msgspec.json.encode(MESSAGES[name]))
    assert header["type"] == type(MESSAGES[name]).__name__.lower()
    assert len(payloads) == (len(MODEL) if name in WITH_TENSORS else 0)


@pytest.mark.parametrize("name", WITH_TENSORS)
def test_a_stranger_reads_the_same_numbers(name: str) -> None:
    welcome, _ = strangers_decode((GOLDEN / "welcome.bin").read_bytes())
    _, payloads = strangers_decode((GOLDEN / f"{name}.bin").read_bytes())
    for (tensor, dtype, shape), payload in zip(welcome["spec"], payloads, strict=True):
        assert list(MODEL[tensor].shape) == shape
        assert strangers_numbers(dtype, payload) == MODEL[tensor].reshape(-1).astype(object).tolist()


def test_a_stranger_writes_an_update_without_padding_and_with_the_shortest_heads_and_is_understood() -> None:
    header = msgpack.packb(msgspec.to_builtins(UPDATE))
    payloads = [msgpack.packb(array.tobytes(), use_bin_type=True) for array in MODEL.values()]
    decoded = decode(header + b"".join(payloads), ToHub, max_tensors=len(MODEL))
    assert decoded.message == UPDATE
    assert same_tensors(SPEC.views(decoded.segments), MODEL)


def test_the_worked_examples_of_the_protocol_document_are_true() -> None:
    document = PROTOCOL.read_text("utf-8")
    small = {"w": MODEL["net.weight"][:1, :2], "n": MODEL["norm.count"]}
    spec = type(SPEC).of(small)
    update = msgspec.structs.replace(UPDATE, spec=spec.digest)
    assert hex_dump(b"".join(encode(HELLO).pieces)) in document
    assert hex_dump(b"".join(encode(update, small.values()).pieces)) in document
    assert msgspec.json.encode(spec.tensors).decode() in document
    assert spec.digest in document
    assert sha256(small) in document


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name in MESSAGES:
        (GOLDEN / f"{name}.bin").write_bytes(encoded(name))
