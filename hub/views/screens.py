"""Shows the board to whoever looks: all of it to a newcomer, then what changes, made once for everybody."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Literal, assert_never

import msgspec

from hub.events import RunEnded, Stamped
from hub.feed import Follower
from hub.rules.access import Rank
from hub.views.board import Board
from shared.codec import Frame, enclose, encode
from shared.errors import JournalError, LinkClosed, ProtocolError
from shared.link import Link
from shared.messages import (
    Evaluation,
    Farewell,
    Fetch,
    Goodbye,
    Hello,
    Look,
    Order,
    Ready,
    Reply,
    Shown,
    ToHub,
    Update,
)
from shared.snapshot import parts_of_file
from shared.tensors import Tensors

_EVERY = 0.1
_RATE = 4e6  # bytes a second to all screens together: twenty that watch 300 edges shall not be felt by a round
_MOST_WAITING = 64  # frames; a screen that is this far behind is shown the whole board again
_MOST_SCREENS = 256
_MOST_FETCHING = 4
_LAST_LOOK = 3.0
_TOO_LARGE = 2**32

Command = Callable[[Order, Callable[[Reply], None]], None]
"""Has an order carried out, and calls back with what came of it."""


class Screen:
    """One viewer, and what it shall be sent."""

    def __init__(self, link: Link[ToHub], rank: Rank) -> None:
        self.link = link
        self.rank = rank
        self.stale = True
        """Whether it must be shown the whole board."""
        self.changes: deque[Frame] = deque()
        self.answers: deque[Frame] = deque()
        self.answering: Frame | None = None
        """The answer that is being sent."""
        self.answered = asyncio.Event()
        """Set while no wish is waiting for its answer."""
        self.answered.set()
        self.fetching = False
        """Whether a model is among the answers."""
        self.farewell: Goodbye | None = None
        self.news = asyncio.Event()

    def answer(self, frame: Frame) -> None:
        """Answer a wish."""
        self.answers.append(frame)
        self.news.set()

    def show(self, changes: Frame) -> None:
        """Show what has changed, unless the whole board is due anyway."""
        if len(self.changes) >= _MOST_WAITING:
            self.stale = True
        if not self.stale:
            self.changes.append(changes)
        self.news.set()

    def end(self, farewell: Goodbye) -> None:
        """Send what is there, and say goodbye."""
        self.farewell = farewell
        self.news.set()


class Screens:
    """All viewers, and the board that they see."""

    def __init__(
        self, *, command: Command, newest: Callable[[], tuple[int, Tensors] | None], now: Callable[[], float]
    ) -> None:
        """Begin with an empty board.

        Args:
            command: has an operator's order carried out.
            newest: gives the newest model and its round, if there is one.
            now: the clock that facts are stamped by, in seconds since 1970.
        """
        self.board = Board()
        self._command = command
        self._newest = newest
        self._now = now
        self._screens: dict[Screen, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._pause = _EVERY
        self._whole: bytes | None = None
        """The board as it was when changes were last shown, once somebody has asked for it."""
        self._ended = False

    async def follow(self, follower: Follower, board: Board, heard: Callable[[Stamped], None]) -> None:
        """Fold facts into `board`, and show it, until the feed ends; then say goodbye to all viewers.

        Args:
            follower: gives the facts.
            board: takes the place of the one that was shown.
            heard: is told each fact too, once it is on the board.
        """
        self.board, self._whole = board, None
        for screen in self._screens:
            screen.stale = True
            screen.news.set()
        loop = asyncio.get_running_loop()
        farewell = Goodbye(code=Farewell.RESTARTING, reason="the hub has stopped")
        async for stamped in follower:
            board.take(stamped)
            heard(stamped)
            if isinstance(stamped.fact, RunEnded) and stamped.fact.finished:
                farewell = Goodbye(code=Farewell.DONE, reason="the run is over")
            if self._timer is None:
                self._timer = loop.call_later(self._pause, self._show_changes)
        self._show_changes()
        self._ended = True
        for screen in self._screens:
            screen.end(farewell)
        if self._screens:
            await asyncio.wait(self._screens.values(), timeout=_LAST_LOOK)

    def _show_changes(self) -> None:
        """Have every screen show what is new; encoded once, however many there are."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        self._whole = None
        if not self._screens:
            self.board.forget_changes()
        elif changes := self.board.changes():
            frame = enclose(Shown(what="changes", now=self._now()), [msgspec.msgpack.encode(changes)])
            for screen in self._screens:
                screen.show(frame)
            self._pause = max(_EVERY, frame.nbytes * len(self._screens) / _RATE)

    async def show(self, link: Link[ToHub], rank: Rank) -> None:
        """Show the board to a viewer, and hear its wishes, until it leaves or the hub stops."""
        full = len(self._screens) >= _MOST_SCREENS
        if self._ended or (full and rank is not Rank.OPERATOR):
            reason = "the hub has stopped" if self._ended else f"{_MOST_SCREENS} others are watching"
            await link.send(Goodbye(code=Farewell.RESTARTING, reason=reason))
            await link.close(1013, reason)
            return
        if full:
            self._make_place()
        screen = Screen(link, rank)
        writing = asyncio.create_task(self._write(screen))
        self._screens[screen] = writing
        screen.news.set()
        reading = asyncio.create_task(self._read(screen))
        try:
            await asyncio.wait([writing, reading], return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
        except LinkClosed:
            pass
        finally:
            del self._screens[screen]
            for task in (writing, reading):
                task.cancel()
            await asyncio.gather(writing, reading, return_exceptions=True)

    def _make_place(self) -> None:
        """Have a guest leave for the operator, who must be able to stop the hub whoever else is looking."""
        for screen in self._screens:
            if screen.rank is Rank.GUEST and not screen.farewell:
                screen.end(Goodbye(code=Farewell.RESTARTING, reason="the operator took this place"))
                return

    async def _write(self, screen: Screen) -> None:
        """Send a viewer what is new, as fast as it takes it."""
        try:
            while True:
                await screen.news.wait()
                screen.news.clear()
                while frame := self._next(screen):
                    await screen.link.send(frame)
                    if frame is screen.answering and not screen.answers:
                        screen.fetching, screen.answering = False, None
                        screen.answered.set()
                if screen.farewell:
                    await screen.link.send(screen.farewell)
                    await screen.link.close(1000, screen.farewell.reason)
                    return
        except LinkClosed:
            pass  # the reading side hears of it too

    def _next(self, screen: Screen) -> Frame | None:
        """Give what a viewer is sent next, if there is anything."""
        if screen.stale:
            if self._whole is None:
                self._show_changes()  # or this viewer would see twice what is on the board already
                self._whole = msgspec.msgpack.encode(self.board.state)
            screen.stale = False
            screen.changes.clear()
            may: Literal["watch", "command"] = "command" if screen.rank is Rank.OPERATOR else "watch"
            return enclose(Shown(what="board", may=may, now=self._now()), [self._whole])
        if screen.answers:
            screen.answering = screen.answers.popleft()
            return screen.answering
        return screen.changes.popleft() if screen.changes else None

    async def _read(self, screen: Screen) -> None:
        """Hear a viewer's wishes until it leaves, one at a time: who does not take the answers is not heard."""
        while True:
            await screen.answered.wait()
            heard = await screen.link.receive()
            heard.release()
            screen.answered.clear()
            match heard.message:
                case Order() as order if screen.rank is Rank.OPERATOR:
                    self._command(order, lambda reply: screen.answer(encode(reply)))
                case Order():
                    refusal = "this key only lets you watch: orders need the operator's, from the hub's own terminal"
                    screen.answer(encode(Reply(done=False, reason=refusal)))
                case Look(round=number):
                    screen.answer(self._past(number))
                case Fetch():
                    screen.answer(await self._model(screen))
                case Goodbye():
                    return
                case Hello() | Ready() | Update() | Evaluation():
                    raise ProtocolError("a viewer only looks, and gives orders")
                case message:
                    assert_never(message)

    def _past(self, number: int) -> Frame:
        view = self.board.past(number)
        if view is None:
            return encode(Reply(done=False, reason=f"round {number} is not remembered any more"))
        return enclose(Shown(what="past", round=number), [view])

    async def _model(self, screen: Screen) -> Frame:
        """Give the newest model to a viewer; it stays in memory until it is sent, so only to a few at a time."""
        if sum(other.fetching for other in self._screens) >= _MOST_FETCHING:
            return encode(Reply(done=False, reason="others are downloading the model: try again in a while"))
        screen.fetching = True
        try:
            newest = await asyncio.to_thread(self._newest)  # it may have to be read
        except JournalError as error:
            return encode(Reply(done=False, reason=str(error)))
        if newest is None:
            return encode(Reply(done=False, reason="there is no model yet"))
        number, model = newest
        parts = parts_of_file(model)
        if sum(map(len, parts)) >= _TOO_LARGE:
            return encode(Reply(done=False, reason="the model is too large to be sent; it is in the run's folder"))
        screen.fetching = True  # still: another answer may have gone out in between
        return enclose(Shown(what="model", round=number), parts)
