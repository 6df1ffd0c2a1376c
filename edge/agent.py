"""Stays connected to the hub with patience: comes back after every loss, and knows when it is not wanted."""

import asyncio
import os
import platform
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from edge.learner import Learner, WentAway
from edge.memory import Memory
from edge.names import check_name
from edge.session import Desk, EdgeSession
from shared import __version__
from shared.errors import ExitCode, FedhubError, LinkClosed, ProtocolError, TurnedAway, Unreachable
from shared.link import Link, connect, key_of
from shared.messages import PROTOCOL_VERSIONS, Farewell, Goodbye, Hello, Role, ToEdge


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
    cap: float = 45.0  # of 2,000 edges whose hub was away for 30 s, 95 % are back in 33 s; with 60 it takes 46

    def delay(self, attempt: int, dice: random.Random) -> float:
        """Give the seconds to wait before attempt number `attempt`, counted from 1."""
        return dice.uniform(0.0, min(self.cap, self.base * 2.0 ** min(attempt - 1, 30)))


@dataclass
class Agent:
    """One edge's life with a hub.

    Args:
        url: of the hub, with its key behind a `#` if it needs one and the variable FEDEDGE_KEY does not have it.
        edge: this edge's id.
        role: what it is there for.
        learner: does the work.
        patience: how long to try.
        dice: for the delays.
        tell: takes a line for the log.
        kind: what sort of device this is, in a word.
        memory: what the learner remembers from round to round: it depends on the hub's receipts.
    """

    url: str
    edge: str
    role: Role
    learner: Learner
    patience: Patience
    dice: random.Random
    tell: Callable[[str], None]
    kind: str = field(default_factory=lambda: re.sub("[^a-z0-9-]", "", platform.system().lower())[:16])
    memory: Memory = field(default_factory=Memory)
    _desk: Desk = field(init=False)

    def __post_init__(self) -> None:
        self._desk = Desk(memory=self.memory)

    async def live(self) -> None:
        """Serve the hub until it is done.

        Raises:
            Unreachable: no hub answered for as long as patience lasts.
            TurnedAway: the hub does not want this edge.
            ConfigError: this edge's app does not fit the run, or its name or the URL cannot be.
        """
        check_name(self.edge)
        now = asyncio.get_running_loop().time
        failures, limit, lost = 0, self.patience.first, now()
        try:
            while True:
                session: EdgeSession | None = None
                why: FedhubError | str
                try:
                    link = await connect(self.url)
                    hello = Hello(
                        versions=PROTOCOL_VERSIONS,
                        edge=self.edge,
                        role=self.role,
                        agent=f"fedhub {__version__}",
                        kind=self.kind,
                        key=key_of(self.url) or os.environ.get("FEDEDGE_KEY", ""),
                    )
                    session = EdgeSession(link, hello, self.learner, self._desk, self.tell)
                    goodbye = await self._stay(link, session)
                    if self._is_last(goodbye):
                        return
                    why = f"the hub says goodbye: {goodbye.reason}"
                except (Unreachable, LinkClosed) as error:
                    why = error
                except WentAway as offline:
                    self._desk.drop()  # a device that goes away gives its work up
                    await asyncio.sleep(offline.seconds)
                    failures, limit, lost = 0, self.patience.again, now()
                    continue
                if session and session.welcomed:  # a port that accepts and drops is no hub that was there
                    failures, limit, lost = 0, self.patience.again, now()
                if (left := lost + limit - now()) <= 0:
                    raise why if isinstance(why, Unreachable) else Unreachable(f"gave up on {self._address}: {why}")
                failures += 1
                delay = min(left, self.patience.delay(failures, self.dice))  # once more when patience ends
                self.tell(f"{why}; trying again in {delay:.1f} s")
                await asyncio.sleep(delay)
        finally:
            self._desk.drop()

    @property
    def _address(self) -> str:
        """The hub's URL, less the key: it may be shown."""
        return self.url.partition("#")[0]

    async def _stay(self, link: Link[ToEdge], session: EdgeSession) -> Goodbye:
        try:
            goodbye = await session.stay()
            await link.close()
            return goodbye
        except ProtocolError as error:
            await link.close(1002, str(error))
            raise TurnedAway(f"the hub at {self._address} does not keep to the protocol: {error}") from None
        finally:
            link.abort()

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
