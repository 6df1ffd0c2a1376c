"""Stays connected to the hub with patience: comes back after every loss, and knows when it is not wanted."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from edge.learner import Learner, WentAway
from edge.names import check_name
from edge.session import Desk, EdgeSession
from shared.errors import ExitCode, LinkClosed, ProtocolError, TurnedAway, Unreachable
from shared.link import connect
from shared.messages import Farewell, Goodbye, Role


@dataclass(frozen=True)
class Patience:
    """How long to try. Delays double from `base` to `cap`, each drawn evenly between nothing and that ("full jitter").

    So a fleet whose hub restarts does not come back all at once.

    Args:
        first: seconds to wait for a hub that was never there.
        again: seconds to wait for a hub that was there.
        base, cap: bounds of the delay, in seconds.
    """

    first: float = 0.0
    again: float = 600.0
    base: float = 1.0
    cap: float = 60.0

    def delay(self, attempt: int, dice: random.Random) -> float:
        """Give the seconds to wait before attempt number `attempt`, counted from 1."""
        return dice.uniform(0.0, min(self.cap, self.base * 2.0 ** min(attempt - 1, 30)))


@dataclass
class Agent:
    """One edge's life with a hub.

    Args:
        url: of the hub.
        edge: this edge's id.
        role: what it is there for.
        learner: does the work.
        patience: how long to try.
        dice: for the delays.
        tell: takes a line for the log.
    """

    url: str
    edge: str
    role: Role
    learner: Learner
    patience: Patience
    dice: random.Random
    tell: Callable[[str], None]
    _desk: Desk = field(default_factory=Desk)

    async def live(self) -> None:
        """Serve the hub until it is done.

        Raises:
            Unreachable: no hub answered for as long as patience lasts.
            TurnedAway: the hub does not want this edge.
            ConfigError: this edge's app does not fit the run, or its name or the URL cannot be.
        """
        check_name(self.edge)
        attempts, met = 0, False
        lost = asyncio.get_running_loop().time()
        try:
            while True:
                try:
                    link = await connect(self.url)
                except Unreachable as error:
                    left = lost + (self.patience.again if met else self.patience.first)
                    left -= asyncio.get_running_loop().time()
                    if left <= 0:
                        raise
                    attempts += 1
                    delay = min(left, self.patience.delay(attempts, self.dice))  # once more when patience ends
                    self.tell(f"{error}; trying again in {delay:.1f} s")
                    await asyncio.sleep(delay)
                    continue
                met, attempts = True, 0
                session = EdgeSession(link, self.edge, self.role, self.learner, self._desk, self.tell)
                away = 0.0
                try:
                    goodbye = await session.stay()
                    await link.close()
                    if self._is_last(goodbye):
                        return
                    self.tell(f"the hub says goodbye: {goodbye.reason}; waiting for it to come back")
                    away = self.patience.delay(1, self.dice)
                except LinkClosed as closed:
                    away = self.patience.delay(1, self.dice)
                    self.tell(f"{closed}; joining again in {away:.1f} s")
                except ProtocolError as error:
                    await link.close(1002, str(error))
                    raise TurnedAway(f"the hub at {self.url} does not keep to the protocol: {error}") from None
                except WentAway as offline:
                    self._desk.drop()  # a device that goes away gives its work up
                    away = offline.seconds
                finally:
                    link.abort()
                lost = asyncio.get_running_loop().time() + away
                await asyncio.sleep(away)
        finally:
            self._desk.drop()

    def _is_last(self, goodbye: Goodbye) -> bool:
        """Tell whether the hub is done with everybody; raise if it is done with this edge."""
        match goodbye.code:
            case Farewell.DONE:
                self.tell(f"done: {goodbye.reason}")
                return True
            case Farewell.REFUSED | Farewell.REPLACED:
                raise TurnedAway(f"the hub turned this edge away: {goodbye.reason}")
            case Farewell.PROTOCOL_VERSION:
                raise TurnedAway(goodbye.reason, ExitCode.PROTOCOL_VERSION)
            case Farewell.RESTARTING | Farewell.LEAVING:
                return False
