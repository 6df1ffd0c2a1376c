"""Turns messages into bytes and back, and refuses everything that is not exactly a message."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Generic, TypeVar

import msgpack
import msgspec

from shared.errors import ProtocolError
from shared.messages import Message
from shared.tensors import Array, raw

MAX_HEADER = 64 * 1024
"""Longest header of an edge, in bytes. Unbounded msgpack turns 4 MiB into 297 MiB of objects; this stays at 5."""

MAX_WELCOME = 4 * 1024 * 1024
"""Longest header of a hub, in bytes: Welcome lists every tensor of the model."""

ALIGNMENT = 64
"""Tensor bytes start at multiples of this within a message: sums over aligned views run 5 times faster."""

PIECE = 256 * 1024
"""Size in bytes of the websocket fragments of a long message; 256 KiB was the fastest of 16 KiB to 4 MiB."""

_JOINED = 4 * 1024  # tensors shorter than this are copied: naming them would take longer
_SHORT_HEADER = 4 * 1024
_NIL = 0xC0
_BIN_HEADS = {0xC4: 1, 0xC5: 2, 0xC6: 4}

M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Frame:
    """One encoded message, cut into pieces that can be sent to any number of links."""

    pieces: tuple[bytes | memoryview, ...]
    nbytes: int


@dataclass(frozen=True)
class Decoded(Generic[M]):
    """One message as it came in: its header, and the bytes of its tensors as read-only views."""

    message: M
    segments: tuple[memoryview, ...]
    data: memoryview
    """The whole message as it came over the wire."""
    done: Callable[[], None] = field(default=lambda: None, compare=False)
    """Called when the message is released."""

    nbytes: int = 0
    """Length of the whole message."""

    def release(self) -> None:
        """Need the message no more: its memory is another's then. A hub has room for so many long ones at a time.

        Whoever holds on to this object holds no memory with it; who looks at the views again gets a ValueError.
        """
        for view in (*self.segments, self.data):
            with suppress(BufferError):  # an array made of it is still in use, and keeps its memory until it is not
                view.release()
        self.done()


def encode(message: Message, tensors: Iterable[Array] = ()) -> Frame:
    """Encode `message` followed by `tensors`; the tensors' bytes are referred to, not copied.

    Nil bytes pad the stream so that each tensor's bytes are aligned (see `docs/protocol.md`).
    """
    head = bytearray(msgpack.packb(msgspec.to_builtins(message)))
    pieces: list[bytes | memoryview] = []
    total = 0
    for tensor in tensors:
        body = raw(tensor)
        head += b"\xc0" * (-(total + len(head) + 5) % ALIGNMENT)
        head += b"\xc6" + body.nbytes.to_bytes(4, "big")
        if body.nbytes < _JOINED:
            head += body
        else:
            # What is left of a piece after the head is small, so heads and bodies need not be joined.
            pieces.append(bytes(head))
            pieces.extend(body[at : at + PIECE] for at in range(0, body.nbytes, PIECE))
            total += len(head) + body.nbytes
            head.clear()
        if len(head) >= PIECE:
            pieces.append(bytes(head))
            total += len(head)
            head.clear()
    if head:
        pieces.append(bytes(head))
        total += len(head)
    return Frame(tuple(pieces), total)


def enclose(message: Message, parts: Sequence[bytes | memoryview]) -> Frame:
    """Encode `message` followed by one byte string of less than 4 GiB; its `parts` are referred to, not copied."""
    length = sum(map(len, parts))
    head = msgpack.packb(msgspec.to_builtins(message)) + b"\xc6" + length.to_bytes(4, "big")
    views = [memoryview(part) for part in parts]
    pieces = [view[at : at + PIECE] for view in views for at in range(0, len(view), PIECE)]
    return Frame((head, *pieces), len(head) + length)


def decode(
    data: bytes | memoryview, of: UnionType, *, max_header: int = MAX_HEADER, max_tensors: int = 0
) -> Decoded[Any]:
    """Read one message of the union `of`; nothing is allocated beyond the header and a view for each tensor.

    Args:
        data: the whole websocket message.
        of: the union of messages that may arrive here.
        max_header: longest acceptable header, in bytes.
        max_tensors: how many tensors may follow the header.

    Raises:
        ProtocolError: anything else than one valid header and byte strings after it.
    """
    view = memoryview(data).toreadonly()
    message, at = _header(view, of, max_header)
    segments: list[memoryview] = []
    padding = 0
    while at < view.nbytes:
        byte = view[at]
        at += 1
        if byte == _NIL:
            padding += 1
            if padding >= ALIGNMENT:
                raise ProtocolError(f"{ALIGNMENT} or more bytes of padding in a row at {at - 1}")
            continue
        padding = 0
        width = _BIN_HEADS.get(byte)
        if width is None:
            raise ProtocolError(f"after the header only byte strings may follow, found byte 0x{byte:02x} at {at - 1}")
        length = int.from_bytes(view[at : at + width], "big")
        at += width
        if len(segments) == max_tensors:
            raise ProtocolError(f"more than {max_tensors} tensors came")
        if at + length > view.nbytes:
            raise ProtocolError(f"a tensor of {length} bytes was announced, {max(0, view.nbytes - at)} came")
        segments.append(view[at : at + length])
        at += length
    return Decoded(message, tuple(segments), view, nbytes=view.nbytes)


def _header(view: memoryview, of: UnionType, max_header: int) -> tuple[Any, int]:
    """Give the header and the position after it."""
    # An unpacker copies what it is fed, so it gets a little first: most headers are short, and models long.
    for most in (min(_SHORT_HEADER, max_header), max_header):
        unpacker = msgpack.Unpacker(
            max_buffer_size=most,
            max_str_len=max_header,
            max_bin_len=0,
            max_ext_len=0,
            max_array_len=max_header // 64,  # room is made for as many as are announced, at each of 1,024 depths
            max_map_len=256,
        )
        unpacker.feed(view[:most])
        try:
            header = unpacker.unpack()
            return msgspec.convert(header, of), unpacker.tell()
        except msgpack.OutOfData:
            continue
        except (ValueError, msgpack.UnpackException, msgspec.ValidationError, TypeError) as error:
            raise ProtocolError(f"not a message of this protocol: {error}") from None
    raise ProtocolError(f"the header is cut short or longer than {max_header} bytes")
