"""Plays a finished run again, as it was or faster, to whoever opens its page."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from hub.config import Settings
from hub.connections.inbox import Inbox
from hub.connections.movements import Movements
from hub.connections.roster import Roster
from hub.connections.session import Reception
from hub.events import Stamped
from hub.feed import Feed
from hub.keys import keep_keys
from hub.rules.access import Rank
from hub.server import access_of, reachable
from hub.views.archive import read_facts
from hub.views.banner import banner
from hub.views.board import Board
from hub.views.metrics import Metrics
from hub.views.page import Page
from hub.views.screens import Screens
from shared.console import say
from shared.errors import JournalError, LinkClosed
from shared.link import Traffic, listen, port_of
from shared.messages import Order, Reply
from shared.snapshot import read_tensors
from shared.tensors import Tensors

_LONGEST_WAIT = 2.0  # for the next fact: nobody wants to see a night in which nothing happened


class Replay:
    """A run that is over, and where it stands."""

    def __init__(self, run: Path, settings: Settings, *, speed: float) -> None:
        """Get ready.

        Args:
            run: its folder.
            settings: where to listen.
            speed: how many times as fast as it was; 0 shows its end at once.
        """
        self._run = run
        self._settings = settings
        self._speed = speed
        self._feed = Feed()
        self._board = Board()

    async def serve(self) -> None:
        """Show the run until it is stopped.

        Raises:
            ConfigError: there is no such run, or the address cannot be bound to.
        """
        access, metrics = access_of(self._settings), Metrics(self._board)
        screens = Screens(command=_no_order, newest=self._model, now=lambda: self._board.state.time)
        page = Page(access, metrics=metrics.page, health=lambda: {"replay": self._run.name})
        clock = asyncio.get_running_loop().time
        reception = Reception(
            welcome=_nobody,
            roster=Roster(),
            inbox=Inbox(clock),
            feed=self._feed,
            movements=Movements(self._feed, clock),
            access=access,
            show=lambda link, _: screens.show(link, Rank.GUEST),  # there is nothing to give orders to
            clock=clock,
        )
        facts = read_facts(self._run / "events.jsonl")
        server = await listen(
            reception.receive,
            host=self._settings.address,
            port=self._settings.port,
            traffic=Traffic(),
            answer=page.answer,
        )
        url = f"ws://{reachable(self._settings.address)}:{port_of(server)}"
        say(f"replay of {self._run} · listening on {url}")
        access.keys = keep_keys(Path(self._settings.runs), access.keys)
        for line in banner(url, access, page=page.built, runs=self._settings.runs):
            say(line)
        showing = asyncio.create_task(screens.follow(self._feed.follow(room=1_000_000), self._board, metrics.take))
        try:
            before: float | None = None
            for stamped in facts:
                before = await self._wait(stamped, before)
                self._feed.repeat(stamped)
            say("that was all; the page stays until Ctrl-C")
            await asyncio.get_running_loop().create_future()
        finally:
            self._feed.close()
            await showing
            server.close()
            await server.wait_closed()

    async def _wait(self, stamped: Stamped, before: float | None) -> float:
        """Wait as long as there was between two facts; give the time of this one."""
        gap = 0.0 if before is None or not self._speed else (stamped.time - before) / self._speed
        await asyncio.sleep(min(max(gap, 0.0), _LONGEST_WAIT))
        return stamped.time

    def _model(self) -> tuple[int, Tensors] | None:
        """Give the model that the run left, if it did."""
        try:
            return self._board.state.head.committed, read_tensors(self._run / "model.safetensors")
        except JournalError:
            return None


def _no_order(order: Order, reply: Callable[[Reply], None]) -> None:
    reply(Reply(done=False, reason="this run is over"))


async def _nobody(version: int) -> NoReturn:
    raise LinkClosed(1013, "this is the replay of a run that is over: nobody can join it")
