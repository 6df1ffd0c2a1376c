"""Tells where each edge of the cohort is, in few facts: a thousand that are asked at once are one piece of news."""

import asyncio
from collections.abc import Callable

from hub.events import EdgesMoved, Move, Stage
from hub.feed import Feed
from shared.messages import Evaluate, Train

_EVERY = 0.05


class Movements:
    """Gathers what sessions notice about the open round, and publishes it at most every 50 ms."""

    def __init__(self, feed: Feed, clock: Callable[[], float]) -> None:
        """Publish to `feed`; `clock` is the hub's steady clock, in seconds."""
        self._feed = feed
        self._clock = clock
        self._round = (0, 0)
        self._began = 0.0
        self._moves: list[Move] = []
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, round: int, attempt: int, began: float) -> None:
        """Take note of a round that opens; its seconds count from `began`."""
        self.flush()
        self._round, self._began = (round, attempt), began

    def note(self, edge: str, task: Train | Evaluate, to: Stage, *, nbytes: int = 0) -> None:
        """Take note that `edge` goes on to another stage of its `task`; only the open round's matter."""
        if isinstance(task, Evaluate) or (task.round, task.attempt) != self._round:
            return
        self._moves.append(Move(edge, to, self._clock() - self._began, nbytes))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_EVERY, self.flush)

    def flush(self) -> None:
        """Publish what was gathered: what is said next may be what came of it."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._moves:
            moves, self._moves = tuple(self._moves), []
            self._feed.publish(EdgesMoved(round=self._round[0], attempt=self._round[1], moves=moves))

    def end(self) -> None:
        """Take note that nobody is listened to any more."""
        self.flush()
        self._round = (0, 0)
