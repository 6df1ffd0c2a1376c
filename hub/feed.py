"""Tells whoever listens what happened; publishing never waits and never fails, however slow a listener is."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from time import time

from hub.events import Fact, Missed, RunStarted, Stamped

_RECENT = 256  # facts that a late follower is told first


class Feed:
    """Facts, live: published once, offered to each follower."""

    def __init__(self, now: Callable[[], float] = time) -> None:
        """Stamp facts with the time that `now` gives, in seconds since 1970."""
        self._now = now
        self._followers: list[Follower] = []
        self._seq = 0
        self._run = ""
        self._recent: deque[Stamped] = deque(maxlen=_RECENT)

    def publish(self, fact: Fact) -> None:
        """Say that `fact` happened."""
        if isinstance(fact, RunStarted):
            self._run = fact.run
        self.repeat(Stamped(self._seq + 1, self._now(), fact, self._run))

    def repeat(self, stamped: Stamped) -> None:
        """Pass on a fact that another feed published."""
        self._seq, self._run = stamped.seq, stamped.run
        self._recent.append(stamped)
        for follower in self._followers:
            follower.offer(stamped)

    def follow(self, *, recent: bool = False, room: int = 1024) -> "Follower":
        """Begin to follow from now on, or with the most `recent` facts; one that is `room` behind loses the oldest."""
        follower = Follower(room)
        if recent:
            for stamped in self._recent:
                follower.offer(stamped)
        self._followers.append(follower)
        return follower

    def forget(self, follower: "Follower") -> None:
        """Tell `follower` no more; what it was told already can still be read."""
        if follower in self._followers:
            self._followers.remove(follower)
        follower.end()

    def close(self) -> None:
        """End the feed: every follower reads what is left and is done."""
        for follower in list(self._followers):
            self.forget(follower)


class Follower:
    """One listener's queue of facts: `async for stamped in follower`."""

    def __init__(self, room: int) -> None:
        self._facts: deque[Stamped] = deque()
        self._room = room
        self._missed = 0
        self._ended = False
        self._news = asyncio.Event()

    def offer(self, stamped: Stamped) -> None:
        """Take in a fact, dropping the oldest if there is no room."""
        if len(self._facts) >= self._room:
            self._facts.popleft()
            self._missed += 1
        self._facts.append(stamped)
        self._news.set()

    def end(self) -> None:
        """Stop after what is there."""
        self._ended = True
        self._news.set()

    async def __aiter__(self) -> AsyncIterator[Stamped]:
        """Give facts in order; a `Missed` stands where some were lost."""
        while True:
            await self._news.wait()
            while self._facts:
                stamped = self._facts.popleft()
                if self._missed:
                    missed, self._missed = self._missed, 0
                    yield Stamped(stamped.seq - 1, stamped.time, Missed(count=missed), stamped.run)
                yield stamped
            if self._ended:
                return
            self._news.clear()
