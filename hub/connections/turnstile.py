"""Slows down an edge that joins again and again, so that one that loops costs no more than one that works."""

from collections.abc import Callable


class Turnstile:
    """Lets each edge id in: `burst` times at once, and once every `every` seconds after that.

    A phone on a bad line joins a few times a minute. An edge that fails right after each Welcome and does not wait
    joins 300 times a second, and each time the hub encodes a Welcome and publishes two facts.
    """

    def __init__(
        self, clock: Callable[[], float], *, burst: int = 20, every: float = 0.5, patience: float = 30.0
    ) -> None:
        """Let nobody wait for more than `patience` seconds by `clock`; whoever would is turned away."""
        self._clock = clock
        self._burst = burst
        self._every = every
        self._patience = patience
        self._free: dict[str, float] = {}
        self._swept = 0.0

    def wait(self, edge: str) -> float | None:
        """Give the seconds that an edge must wait before it may join; None if it may not even wait."""
        now = self._clock()
        self._sweep(now)
        free = max(self._free.get(edge, now), now) + self._every
        wait = max(0.0, free - now - self._burst * self._every)
        if wait > self._patience:
            return None
        self._free[edge] = free
        return wait

    def _sweep(self, now: float) -> None:
        """Forget, now and then, who has not come for a while: names cost nothing to make up."""
        if now - self._swept > self._burst * self._every:
            self._swept = now
            self._free = {edge: free for edge, free in self._free.items() if free > now}
