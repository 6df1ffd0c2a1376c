"""Follows a hub from another terminal or another machine: its board, drawn as it changes, or its log."""

import asyncio
import random
import secrets
from collections.abc import Callable
from pathlib import Path
from time import time
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
from rich.console import Console
from rich.live import Live

from hub.feed import Feed
from hub.keys import read_keys
from hub.views.archive import fact_of
from hub.views.board import Changes, State
from hub.views.log import follow_log
from hub.views.terminal import draw
from shared.codec import Decoded
from shared.errors import ExitCode, LinkClosed, ProtocolError, TurnedAway, Unreachable
from shared.link import Link, connect, key_of, websocket_url
from shared.messages import PROTOCOL_VERSIONS, Farewell, Goodbye, Hello, News, Role, Shown, ToViewer

_FRAME, _STILL = 0.1, 0.25  # seconds between two pictures, while there is news and while there is none
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 5.0
_LARGEST = 64 * 2**20  # bytes of a board; one of 5,000 edges and 2,000 rounds has five million
_LAST_PICTURE = 40  # lines, at most

T = TypeVar("T")


async def watch(url: str, *, key: str, log: str) -> None:
    """Show a hub until it stops: on a terminal its board, elsewhere its log.

    Args:
        url: of the hub.
        key: that lets its bearer watch.
        log: auto; or pretty or json, to have the log on a terminal too.

    Raises:
        Unreachable, ConfigError: there is no hub at `url`.
        TurnedAway: it does not let us watch.
        LinkClosed: the connection was lost; where the board is drawn, only if that is before it was shown.
    """
    console = Console(stderr=True, highlight=False)
    if log == "auto" and console.is_terminal:
        await View(url, key, console).live()
    else:
        await follow(url, key=key, log=log)


async def follow(url: str, *, key: str, log: str) -> None:
    """Write a hub's log until it stops."""
    link = await connect(url)
    await link.send(_hello(Role.WATCHER, key))
    feed = Feed()
    showing = asyncio.create_task(follow_log(feed.follow(), log, own=False))
    try:
        while not isinstance(message := (await link.receive()).message, Goodbye):
            if isinstance(message, News):
                for stamped in filter(None, map(fact_of, message.facts)):  # a newer hub may say what we do not know
                    feed.repeat(stamped)
        _stay_away(message)
    finally:
        feed.close()
        await showing
        link.abort()


class View:
    """The board of a hub, drawn on a terminal. A hub that goes away is waited for."""

    def __init__(
        self,
        url: str,
        key: str,
        console: Console,
        *,
        now: Callable[[], float] = time,
        dice: random.Random | None = None,
    ) -> None:
        """Get ready.

        Args:
            url: of the hub.
            key: that lets its bearer watch.
            console: where to draw.
            now: this machine's clock, in seconds since 1970.
            dice: for the delays before it is tried again.
        """
        self.state = State()
        self._url = url
        self._key = key
        self._console = console
        self._now = now
        self._dice = dice or random.Random()
        self._ahead = 0.0
        """How many seconds the hub's clock is ahead of ours, as far as its news tells."""
        self._lost: float | None = None
        """When the hub went away, by its own clock; None while it is here."""
        self._news = asyncio.Event()

    async def live(self) -> None:
        """Draw until the hub says that it is done, and leave the last picture behind."""
        link = await self._join()
        staying = asyncio.create_task(self._stay(link))
        try:
            with Live(console=self._console, screen=True, auto_refresh=False) as screen:
                while not staying.done():
                    self._news.clear()
                    screen.update(self._picture(self._console.height), refresh=True)
                    await asyncio.sleep(_FRAME)
                    await _within(_STILL, self._news.wait())
            staying.result()
        finally:
            staying.cancel()
            await asyncio.gather(staying, return_exceptions=True)
        self._console.print(self._picture(min(_LAST_PICTURE, self._console.height - 2)))

    def _picture(self, height: int) -> Any:
        note = "" if self._lost is None else "the hub is away, trying again"
        return draw(self.state, self._clock(), self._console.width, height, note=note)

    def _clock(self) -> float:
        """Give the time by the hub's clock; while it is away, that stands still."""
        if self._lost is not None:
            return self._lost
        return max(self.state.time, self._now() + self._ahead)

    async def _stay(self, link: Link[Any]) -> None:
        """Hear of every change, and come back after every loss, until the hub is done."""
        try:
            while True:
                try:
                    while (goodbye := await self._hear(link)) is None:
                        pass
                    _stay_away(goodbye)
                    if goodbye.code is Farewell.DONE:
                        return
                except LinkClosed:
                    pass
                finally:
                    link.abort()
                link = await self._come_back()
        finally:
            self._news.set()

    async def _come_back(self) -> Link[Any]:
        self._lost, failures = self._clock(), 0
        self._news.set()
        while True:
            longest = min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** min(failures, 30))
            await asyncio.sleep(self._dice.uniform(0.0, longest))  # not all viewers at once
            try:
                link = await self._join()
            except (LinkClosed, Unreachable):
                failures += 1
                continue
            self._lost = None
            return link

    async def _join(self) -> Link[Any]:
        """Connect, and be shown the board."""
        link = await connect(self._url, incoming=ToViewer)
        link.expect_bytes(_LARGEST)
        try:
            await link.send(_hello(Role.VIEWER, self._key))
            if goodbye := await self._hear(link):
                _stay_away(goodbye)
                raise LinkClosed(1000, goodbye.reason)
        except BaseException:
            link.abort()
            raise
        return link

    async def _hear(self, link: Link[Any]) -> Goodbye | None:
        """Take in one message; give it if it is a goodbye."""
        heard = await link.receive()
        match heard.message:
            case Shown(what="board") as shown:
                self.state, self._ahead = _read(heard, State), shown.now - self._now()
            case Shown(what="changes") as shown:
                self.state.apply(_read(heard, Changes))
                self._ahead = max(self._ahead, shown.now - self._now())  # or more: it was on its way for a while
            case Goodbye() as goodbye:
                return goodbye
            case _:
                pass
        heard.release()
        self._news.set()
        return None


def key_for(url: str, runs: Path) -> str:
    """Give the key for the hub at `url`: what its address says, or on this machine what it keeps beside its `runs`.

    Raises:
        ConfigError: `url` is not the address of a hub.
    """
    host = urlsplit(websocket_url(url)).hostname
    keys = read_keys(runs) if host in ("127.0.0.1", "localhost", "::1") else None
    return key_of(url) or (keys.guest if keys else "")


def _hello(role: Role, key: str) -> Hello:
    return Hello(versions=PROTOCOL_VERSIONS, edge=f"{role}-{secrets.token_hex(4)}", role=role, key=key)


def _stay_away(goodbye: Goodbye) -> None:
    """Raise if the hub does not want us."""
    if goodbye.code is Farewell.PROTOCOL_VERSION:
        raise TurnedAway(goodbye.reason, ExitCode.PROTOCOL_VERSION)
    if goodbye.code is Farewell.REFUSED:
        raise TurnedAway(f"the hub turned us away: {goodbye.reason}")


def _read(heard: Decoded[Any], kind: type[T]) -> T:
    """Read what is shown."""
    try:
        (segment,) = heard.segments
        return msgspec.msgpack.decode(segment, type=kind)
    except ValueError:  # of msgspec, or not one segment
        raise ProtocolError("this hub is of another release: watch it with its own, or with --log pretty") from None


async def _within(seconds: float, happening: Any) -> None:
    """Wait for something, but not longer than that."""
    try:
        async with asyncio.timeout(seconds):
            await happening
    except TimeoutError:
        pass
