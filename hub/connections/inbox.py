"""What edges say, waiting in one line for the coordinator; a full line makes the speakers wait, not the memory grow."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from shared.codec import Decoded
from shared.messages import Evaluation, Order, Reply, Update


@dataclass(frozen=True)
class Joined:
    """An edge has become ready."""

    edge: str
    arrived: float


@dataclass(frozen=True)
class Left:
    """An edge's session has ended."""

    edge: str
    arrived: float


@dataclass(frozen=True)
class Answered:
    """An edge has sent an update or an evaluation."""

    edge: str
    heard: Decoded[Update] | Decoded[Evaluation]
    arrived: float
    """When it had come in whole, in seconds of the hub's steady clock: a long queue makes nobody late."""


@dataclass(frozen=True)
class Stop:
    """The operator wants the hub to stop."""

    arrived: float


@dataclass(frozen=True)
class Told:
    """The operator wants the hub to do something else."""

    order: Order
    reply: Callable[[Reply], None]
    """Takes what came of it."""
    arrived: float


Item = Joined | Left | Answered | Told | Stop


class Inbox:
    """Items in the order of their arrival.

    An item is lent: with the call for the next, its reader has done with it, and the memory of its message is free
    for another. So no path through the reader can forget it.
    """

    def __init__(self, clock: Callable[[], float], *, room: int = 64) -> None:
        """Make speakers wait while more than `room` items are there; `clock` is the hub's steady clock."""
        self._clock = clock
        self._room = room
        self._items: deque[Item] = deque()
        self._filled = asyncio.Event()
        self._drained = asyncio.Event()
        self._lent: Item | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether nothing is taken in any more."""
        return self._closed

    def close(self) -> None:
        """Take nothing in any more: the coordinator has gone, and nobody shall wait for it."""
        self._closed = True
        for item in (self._lent, *self._items):
            _release(item)
        self._items.clear()
        self._drained.set()

    def post(self, item: Item) -> None:
        """Put an item in and never wait."""
        if self._closed:
            _release(item)
        else:
            self._items.append(item)
            self._filled.set()

    async def has_room(self) -> None:
        """Wait until there is room: the session that waits here reads no further.

        It must not hold on to what it has put in: the reader may have done with that long before there is room.
        """
        while len(self._items) > self._room and not self._closed:
            self._drained.clear()
            await self._drained.wait()

    def done(self) -> None:
        """Have done with the item that was taken last, without asking for the next."""
        _release(self._lent)
        self._lent = None

    @property
    def empty(self) -> bool:
        """Whether nothing is waiting."""
        return not self._items

    async def next(self, until: float | None = None) -> Item | None:
        """Take the next item, or None if there is none and the time `until` has come. What is there is given first."""
        self.done()
        while not self._items:
            self._filled.clear()
            left = None if until is None else until - self._clock()
            if left is not None and left <= 0:
                return None
            try:
                async with asyncio.timeout(left):
                    await self._filled.wait()
            except TimeoutError:
                pass
        item = self._lent = self._items.popleft()
        if len(self._items) <= self._room:
            self._drained.set()
        return item


def _release(item: Item | None) -> None:
    """Give back the memory of an item's message."""
    if isinstance(item, Answered):
        item.heard.release()
