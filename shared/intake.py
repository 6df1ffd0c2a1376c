"""Takes messages out of a websocket's bytes; those of a message go from the socket straight to where they stay."""

import threading
from typing import Protocol

import numpy as np
from websockets.frames import CloseCode, Opcode

SMALL = 64 * 1024
"""A message up to this many bytes needs no room: it may hold news, but no model."""

# Where bytes arrive whose place is not known yet: a few small messages, or the head of a long one.
_SCRATCH = 4 * 1024
# What must have come of a long message before it gets room: who drips never does. Of a connection that waits, no more
# than this and a scratch is in memory.
_DOORSTEP = 4 * 1024
_NOTHING = memoryview(b"")
_HEAD = 14  # the longest head of a frame: 2 bytes, 8 of length, 4 of masking key
_END_OF_HANDSHAKE = b"\r\n\r\n"
_KNOWN = {opcode.value for opcode in Opcode}
_LONGEST_CONTROL = 125


class Owner(Protocol):
    """Who has an intake: a connection."""

    @property
    def shaking_hands(self) -> bool:
        """Whether the opening handshake is still under way."""
        ...

    @property
    def limit(self) -> int:
        """Longest message that may come, in bytes."""
        ...

    def allot(self, nbytes: int) -> memoryview | None:
        """Give memory for a long message, or None and call `go_on` with it later: until then nothing may come."""
        ...

    def pass_on(self, data: memoryview) -> None:
        """Give the library bytes that are no part of a message."""
        ...

    def whole(self, message: memoryview) -> None:
        """Take a message."""
        ...

    def refuse(self, code: CloseCode, reason: str) -> None:
        """Fail the connection; whatever comes after this is passed on."""
        ...


class Intake:
    """Splits what comes at the heads of frames (RFC 6455, section 5.2).

    Handshakes and control frames are the library's: it gets their bytes as they are. Data frames it never sees. It
    would hand over each of their bytes five times (kernel, buffer, frame, unmasked frame, message); here it is once:
    the socket writes into the message's own memory, and the mask is taken off in place.

    It knows nothing of sockets: `room` says where the next bytes shall go, `came` says how many did.
    """

    def __init__(self, owner: Owner, *, masked: bool) -> None:
        """Begin with the handshake; `masked` tells whether frames must come masked, as those of clients do."""
        self._owner = owner
        self._masked = masked
        self._handshake: bytes | None = b""
        self._over = False
        self._head = bytearray()
        self._pass = 0
        self._message: memoryview | None = None
        self._begun = _NOTHING
        self._longest = 0
        self._waiting = self._dropping = False
        self._kept = b""
        self._fragmented = False
        self._size = 0
        self._left = 0
        self._last = False
        self._key = b""
        self._phase = 0
        self.ends = 0
        """How often it was between two messages."""

    @property
    def between(self) -> bool:
        """Whether what came ends exactly at the end of a message, and another may follow."""
        return not (self._over or self._head or self._pass or self._fragmented or self._left or self._handshake)

    @property
    def within(self) -> bool:
        """Whether part of a message is there."""
        return self._fragmented

    @property
    def held(self) -> int:
        """How many bytes came of what is not whole."""
        return self._size + len(self._head) + len(self._kept)

    def room(self) -> memoryview:
        """Say where the next bytes shall go."""
        if self._left and self._message is not None:
            return self._message[self._size : self._size + self._left]
        # Between two fragments of a message nothing but the next head is read, so that the rest need not be moved.
        return _scratch.place[:_HEAD] if self._message is not None and not self._over else _scratch.place

    def came(self, count: int) -> None:
        """Take note that `count` bytes are there."""
        if self._left and self._message is not None:
            self._arrived(count)
        else:
            self._read(_scratch.place[:count])

    def go_on(self, memory: memoryview) -> None:
        """Use `memory` for the message that waits for it."""
        self._move_in(memory)
        kept, self._kept = self._kept, b""
        self._read(memoryview(kept))

    def _read(self, data: memoryview) -> None:
        """Go through bytes whose place was not known."""
        while data:
            if self._over:
                self._owner.pass_on(data)
                return
            if self._waiting:
                self._kept += bytes(data)
                return
            if self._handshake is not None:
                data = data[self._shake_hands(data) :]
            elif self._owner.shaking_hands:
                # A client that says more before it was answered has no place to put it, and one that gets an error
                # page instead of a handshake hears the rest of that page.
                if not self._masked:
                    self._owner.pass_on(data)
                return
            elif self._pass:
                now, data = data[: self._pass], data[self._pass :]
                self._pass -= len(now)
                self._owner.pass_on(now)
                self._maybe_between()
            elif self._left:
                data = data[self._read_on(data) :]
            else:
                data = data[self._read_head(data) :]

    def _read_on(self, data: memoryview) -> int:
        """Take what there is of a frame's bytes; tell how many that are."""
        if self._message is None:  # nobody wants them any more
            count = min(self._left, len(data))
            self._left -= count
            if not self._left:
                self._end_of_frame()
            return count
        count = min(self._left, len(data), len(self._message) - self._size)
        self._message[self._size : self._size + count] = data[:count]
        self._arrived(count)
        return count

    def _shake_hands(self, data: memoryview) -> int:
        """Pass on what belongs to the handshake; tell how much that was."""
        assert self._handshake is not None
        seen = self._handshake + bytes(data)
        end = seen.find(_END_OF_HANDSHAKE)
        taken = len(data) if end < 0 else end + len(_END_OF_HANDSHAKE) - len(self._handshake)
        self._handshake = seen[-len(_END_OF_HANDSHAKE) + 1 :] if end < 0 else None
        self._owner.pass_on(data[:taken])
        return taken

    def _read_head(self, data: memoryview) -> int:
        """Read on in the head of a frame; tell how many bytes that took."""
        had = len(self._head)
        self._head += data[: _HEAD - had]
        need = _head_length(self._head)
        if len(self._head) < need:
            return len(self._head) - had
        del self._head[need:]
        head, self._head = bytes(self._head), bytearray()
        self._frame(head)
        return need - had

    def _frame(self, head: bytes) -> None:
        """Begin a frame."""
        opcode, last, length = head[0] & 0x0F, bool(head[0] & 0x80), _payload_length(head)
        if opcode not in _KNOWN:
            self._refuse(CloseCode.PROTOCOL_ERROR, "invalid opcode")
        elif head[0] & 0x70:
            self._refuse(CloseCode.PROTOCOL_ERROR, "reserved bits must be 0")
        elif bool(head[1] & 0x80) is not self._masked:
            self._refuse(CloseCode.PROTOCOL_ERROR, "incorrect masking")
        elif opcode >= Opcode.CLOSE:
            if length > _LONGEST_CONTROL or not last:
                self._refuse(CloseCode.PROTOCOL_ERROR, "a control frame is short, and in one piece")
                return
            self._pass = length
            self._owner.pass_on(memoryview(head))
            self._maybe_between()
        elif (opcode == Opcode.CONT) is not self._fragmented:
            expected = "expected a continuation frame" if self._fragmented else "unexpected continuation frame"
            self._refuse(CloseCode.PROTOCOL_ERROR, expected)
        elif self._size + length > (limit := self._longest if self._fragmented else self._owner.limit):
            self._refuse(CloseCode.MESSAGE_TOO_BIG, f"a message may be {limit} bytes long")
        else:
            self._key, self._phase = head[-4:] if self._masked else b"", 0
            if not self._fragmented:
                self._longest = length if last else limit
                if not self._dropping:
                    self._message = memoryview(bytearray(self._longest if self._longest <= SMALL else _DOORSTEP))
            self._left, self._last, self._fragmented = length, last, True
            if not length:
                self._end_of_frame()
            elif self._message is not None:
                self._ask_in()

    def _ask_in(self) -> None:
        """Ask for the memory of a long message whose doorstep is full."""
        assert self._message is not None
        if self._size == len(self._message):
            self._begun, self._message = self._message, None
            memory = self._owner.allot(self._longest)
            self._waiting = memory is None
            if memory is not None:
                self._move_in(memory)

    def _move_in(self, memory: memoryview) -> None:
        memory[: self._size] = self._begun
        self._message, self._begun, self._waiting = memory, _NOTHING, False

    def _arrived(self, count: int) -> None:
        """Take note that so many bytes of a frame are in their place."""
        assert self._message is not None
        if self._key:
            unmask(self._message, self._size, self._size + count, self._key, self._phase)
            self._phase = (self._phase + count) % 4
        self._size += count
        self._left -= count
        if self._left:
            self._ask_in()
        else:
            self._end_of_frame()

    def _end_of_frame(self) -> None:
        if self._last:
            message = None if self._message is None else self._message[: self._size]
            self._message, self._size, self._fragmented = None, 0, False
            self.ends += 1
            if message is not None:
                self._owner.whole(message)

    def _maybe_between(self) -> None:
        """Take note of the end of a control frame that stands between messages."""
        self.ends += not self._pass and not self._fragmented

    def _refuse(self, code: CloseCode, reason: str) -> None:
        self.end()
        self._owner.refuse(code, reason)

    def drop(self) -> None:
        """Read past all messages from now on: control frames are passed on as ever."""
        self._dropping = True
        self._message, self._begun, self._size = None, _NOTHING, 0
        self._waiting = False
        kept, self._kept = self._kept, b""
        self._read(memoryview(kept))

    def end(self) -> None:
        """Take no more messages, and pass on whatever comes."""
        self._over = True
        self._message, self._fragmented, self._waiting, self._left, self._size = None, False, False, 0, 0
        self._begun, self._kept = _NOTHING, b""


def unmask(memory: memoryview, start: int, end: int, key: bytes, phase: int = 0) -> None:
    """Take the mask off `memory[start:end]`, whose first byte is masked with `key[phase]` (RFC 6455, section 5.3)."""
    data = np.frombuffer(memory, np.uint8)
    turned = np.frombuffer((key[phase:] + key[:phase]) * 4, np.uint8)
    first = min(-(-start // 8) * 8, end)  # from here on, 8 bytes at a time
    last = max(first, end // 8 * 8)
    for some, to in ((start, first), (last, end)):
        at = (some - start) % 4
        np.bitwise_xor(data[some:to], turned[at : at + to - some], out=data[some:to])
    at = (first - start) % 4
    words = data[first:last].view(np.uint64)
    np.bitwise_xor(words, turned[at : at + 8].copy().view(np.uint64), out=words)


def mask(data: bytes | memoryview, place: memoryview, key: bytes) -> None:
    """Put `data` into `place`, masked with `key` (RFC 6455, section 5.3)."""
    whole = len(data) // 8 * 8
    turned = np.frombuffer(key * 4, np.uint8)
    words = np.frombuffer(data, np.uint64, whole // 8)
    np.bitwise_xor(words, turned[:8].view(np.uint64), out=np.frombuffer(place, np.uint64, whole // 8))
    rest = np.frombuffer(data, np.uint8)[whole:]
    np.bitwise_xor(rest, turned[: rest.size], out=np.frombuffer(place, np.uint8)[whole : len(data)])


def _head_length(head: bytearray) -> int:
    """Tell how long the head of a frame is that begins like `head`."""
    if len(head) < 2:
        return _HEAD + 1  # not known yet
    return 2 + {126: 2, 127: 8}.get(head[1] & 0x7F, 0) + (4 if head[1] & 0x80 else 0)


def _payload_length(head: bytes) -> int:
    short = head[1] & 0x7F
    width = {126: 2, 127: 8}.get(short, 0)
    return int.from_bytes(head[2 : 2 + width], "big") if width else short


class _Scratch(threading.local):
    """One for all connections of a thread: what arrives here is taken away before anything else can arrive."""

    def __init__(self) -> None:
        self.place = memoryview(bytearray(_SCRATCH))


_scratch = _Scratch()
