"""Memory for the long messages that come in: given out in turn, taken back, and used again."""

import asyncio
import ctypes
import weakref
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from shared.codec import ALIGNMENT
from shared.tensors import Array

AT_ONCE = 2
"""Messages that are let in at the same time as long as they keep the hub busy: one comes in, one is summed."""

_M_MMAP_THRESHOLD = -3
_TICK = 0.05
_PATIENCE = 4  # ticks: of 100 edges that begin to write at once, the first is not heard for 150 ms
_SLOW = 20 * 2**20  # bytes a second: two of them would leave a line of 1 Gbit/s half empty


def return_large_memory() -> None:
    """Have the allocator give memory of a MiB and more back to the system as soon as it is free.

    After the first large piece is freed, glibc keeps the next ones in its heap, and they lie there between small ones:
    a hub of 100 edges x 1.66 M parameters grew by 90 MB in 5 rounds. Asking the system anew costs 0.2 ms for 13 MB, as
    numpy asks for huge pages. Other systems' allocators do so by themselves, or not at all.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(_M_MMAP_THRESHOLD, 2**20)


class Store:
    """Memory that is used again: what was faulted in once need not be a second time (0.25 ms a MiB)."""

    def __init__(self, keep: int = 1) -> None:
        """Keep up to `keep` pieces that nobody uses."""
        self._keep = keep
        self._free: list[Array] = []

    def take(self, nbytes: int) -> memoryview:
        """Give memory of `nbytes`, aligned. It is free for others when the last view of it is gone, and not before."""
        memory, others = None, list[Array]()
        while self._free and memory is None:
            one = self._free.pop()  # first of all, for the last view of another may die in a thread at any time
            # Twice as large as needed would be waste: a hub's messages are all as long as its model.
            if nbytes <= one.nbytes - ALIGNMENT <= 2 * nbytes:
                memory = one
            else:
                others.append(one)
        self._free[:0] = others
        if memory is None:
            memory = np.empty(nbytes + ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % ALIGNMENT
        lease = memory[start : start + nbytes].view(_Lease)
        weakref.finalize(lease, self._back, memory).atexit = False
        return lease.data

    def clear(self) -> None:
        """Keep nothing."""
        self._free.clear()

    def _back(self, memory: Array) -> None:
        self._free.append(memory)
        del self._free[: -self._keep]


class _Lease(np.ndarray):
    """Memory in use: a type of its own, so that numpy's views of its views do not skip it."""


class Budget:
    """Room for long messages, given out in the order in which it is asked for.

    Few are let in at a time, as long as they keep the hub busy: a hub that hears 100 fast edges needs the memory of
    two updates. Who brings little does not count among them, so slow edges hold up nobody: beside two fast uploads,
    or instead of them, there are as many slow ones as the budget has room for. The rest waits in its sockets.
    """

    def __init__(self, nbytes: int) -> None:
        """Give out up to `nbytes` at a time."""
        self.nbytes = nbytes
        self.taken = 0
        self._store = Store(AT_ONCE)
        self._waiting: OrderedDict[Room, None] = OrderedDict()
        self._out: dict[Room, None] = {}
        self._slow = 0
        self._most = AT_ONCE
        self._ticking = False
        self._giving = False

    def ask(self, nbytes: int, granted: Callable[[], None]) -> "Room":
        """Ask for room. If it is not there at once, it has no memory yet, and `granted` is called when it has.

        A message that is longer than the whole budget gets all of it: then it is alone.
        """
        room = Room(self, nbytes, granted)
        self._waiting[room] = None
        self._give_out(asking=room)
        if self._waiting and not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(_TICK, self._tick)
        return room

    def is_whole(self, room: "Room") -> None:
        """Take note that a message came in whole: it is the hub's turn now."""
        room.whole = True
        self._call(room, slow=False)

    def take_back(self, room: "Room") -> None:
        """Have the room that one message took, or stood in line for; a second time does nothing."""
        if room in self._out:
            del self._out[room]
            self.taken -= room.charge
            self._call(room, slow=False)
        self._waiting.pop(room, None)
        room.memory = None
        self._give_out()
        if not self._out:
            self._store.clear()  # between rounds, the hub needs the memory for other things

    def _call(self, room: "Room", *, slow: bool) -> None:
        self._slow += slow - room.slow
        room.slow = slow

    def _give_out(self, *, asking: "Room | None" = None) -> None:
        if self._giving:
            return  # whoever was just served gave back or asked at once: not deeper, but next
        self._giving = True
        try:
            while self._waiting:
                room = next(iter(self._waiting))
                if self.taken + room.charge > self.nbytes or len(self._out) - self._slow >= self._most:
                    return  # nobody overtakes: whoever needs much would wait for ever
                del self._waiting[room]
                self.taken += room.charge
                self._out[room] = None
                room.memory = self._store.take(room.nbytes)
                if room is not asking:
                    room.granted()
        finally:
            self._giving = False

    def _tick(self) -> None:
        """While somebody waits, look who of those who were let in is slow, and let others in beside them."""
        for room in self._out:
            if not room.whole:
                room.patience = room.patience - 1 if room.came < _SLOW * _TICK else _PATIENCE
                room.came = 0
                self._call(room, slow=room.patience < 0)
        # A whole fleet of slow ones is let in by halves of those who are here, and not two by two.
        self._most = max(AT_ONCE, self._slow // 2) if self._slow == len(self._out) else AT_ONCE
        self._give_out()
        self._most = AT_ONCE
        self._ticking = bool(self._waiting)
        if self._ticking:
            asyncio.get_running_loop().call_later(_TICK, self._tick)


@dataclass(eq=False)
class Room:
    """Memory that one message takes, or stands in line for."""

    budget: Budget
    nbytes: int
    granted: Callable[[], None]
    memory: memoryview | None = None
    whole: bool = False
    """Whether the message is here, and waits to be used."""
    slow: bool = False
    came: int = 0
    """Bytes that came since the budget looked last."""
    patience: int = _PATIENCE
    """How often it may look and find little before this room counts as slow."""
    charge: int = field(init=False)

    def __post_init__(self) -> None:
        self.charge = min(self.nbytes, self.budget.nbytes)

    def give_back(self) -> None:
        """Have no more need of it."""
        self.budget.take_back(self)
