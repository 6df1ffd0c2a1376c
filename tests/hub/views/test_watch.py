"""Whoever watches sees the board of a real hub, waits for it when it goes away, and knows when it is done."""

import asyncio
import io
import random
from pathlib import Path
from typing import IO, cast

import pytest
from rich.console import Console

from hub.events import RunStarted, WaitingForEdges
from hub.keys import read_keys
from hub.views.watch import View, follow, key_for
from shared.errors import ConfigError, TurnedAway, Unreachable
from tests.support.federation import Adder, agent, edges, raw_edge, running_hub


class Screen:
    """A terminal: what is written on it can be waited for."""

    def __init__(self) -> None:
        self.text = ""
        self._written = asyncio.Event()

    def write(self, text: str) -> int:
        self.text += text
        self._written.set()
        return len(text)

    def flush(self) -> None:
        pass

    async def shows(self, words: str) -> None:
        """Wait until `words` are on the screen, from now on."""
        self.text = ""
        while words not in self.text:
            self._written.clear()
            await self._written.wait()


def view(url: str, runs: Path) -> tuple[View, Screen]:
    """Make a view that draws on such a terminal."""
    screen = Screen()
    console = Console(file=cast(IO[str], screen), force_terminal=True, width=100, height=30, legacy_windows=False)
    return View(url, key_for(url, runs), console, dice=random.Random(0)), screen


async def test_the_board_is_drawn_until_the_hub_is_done_and_its_last_picture_stays(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rounds=3) as hub:
        await hub.until(WaitingForEdges)
        one, screen = view(hub.url, tmp_path)
        looking = asyncio.create_task(one.live())
        await screen.shows("waiting for edges")
        async with edges(agent(hub.url, "laptop", Adder())):
            await hub.ended()
        await looking
    assert [row.number for row in one.state.rows] == [1, 2, 3]
    left_behind = screen.text.split("\x1b[?1049l")[1]
    assert "all 3 rounds are done" in left_behind
    assert "laptop" in left_behind


async def test_a_hub_that_goes_away_is_waited_for(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rounds=2) as hub:
        await hub.until(RunStarted)  # its keys are written down by now
        one, screen = view(hub.url, tmp_path)
        looking = asyncio.create_task(one.live())
        async with raw_edge(hub.url, "laptop") as edge:
            task = await edge.train()
            await screen.shows("0 of 1 answered")
            before = one.state.round
            for shown in hub.hub._screens._screens:
                shown.link.abort()
            await screen.shows("the hub is away, trying again")
            assert one.state.round is before, "the board stays"
            await edge.answer(task)
            await screen.shows("round 2")
            await edge.answer(await edge.train())
            await hub.ended()
        await looking
    assert one.state.head.phase == "ended"
    assert [row.number for row in one.state.rows] == [1, 2]


async def test_a_wrong_key_and_no_hub_at_all_are_told_in_a_sentence(tmp_path: Path) -> None:
    async with running_hub(tmp_path) as hub:
        await hub.until(RunStarted)
        for watching in (
            View(hub.url, "wrong", Console(file=io.StringIO())).live(),
            follow(hub.url, key="", log="json"),
        ):
            with pytest.raises(TurnedAway, match="key"):
                await watching
    one, screen = view(hub.url, tmp_path)
    with pytest.raises(Unreachable, match="nothing listens there"):
        await one.live()
    assert screen.text == ""


def test_the_key_is_in_the_address_or_on_this_machine_beside_the_runs(tmp_path: Path) -> None:
    assert key_for("ws://10.0.0.1:8765#abc", tmp_path) == "abc"
    assert key_for("http://10.0.0.1:8765/#k=abc", tmp_path) == "abc"
    (tmp_path / "keys.json").write_text('{"guest": "guest-of-this-hub", "operator": "operator-of-this-hub"}')
    keys = read_keys(tmp_path)
    assert keys is not None
    for url in ("ws://127.0.0.1:8765", "localhost:8765", "ws://[::1]:8765"):
        assert key_for(url, tmp_path) == keys.guest
    assert key_for("ws://10.0.0.1:8765", tmp_path) == "", "it is not that machine's"
    assert key_for("ws://127.0.0.1:8765", tmp_path / "elsewhere") == ""
    with pytest.raises(ConfigError):
        key_for("ftp://x", tmp_path)
