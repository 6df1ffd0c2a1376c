"""Whoever looks, at a run or at its replay, from whenever on, sees the same: what the hub's own board has."""

import asyncio
import socket
from pathlib import Path

import pytest
from playwright.async_api import expect

from hub.config import Layer, resolve
from hub.events import EdgeLeft, RunEnded
from hub.replay import Replay
from hub.views.archive import board_of
from shared.messages import Farewell, Goodbye, Role
from tests.support.facts import MadeUp
from tests.support.federation import Adder, Running, agent, edges, raw_edge, running_hub
from tests.support.pages import Look, Tab, stage
from tests.together.bad_updates import BAD

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def an_eventful_run(hub: Running) -> None:
    """Play three rounds with an edge that is late, one that is refused, one that leaves, and one that measures."""
    hub.hub._coordinator.evaluator_expected = True  # type: ignore[union-attr]
    judge = Adder(metrics=lambda model: {"accuracy": 0.5 + float(model["bias"][0]) / 100, "loss": 0.25})
    async with (
        edges(agent(hub.url, "judge", judge, role=Role.EVALUATOR), agent(hub.url, "good", Adder(examples=3))),
        raw_edge(hub.url, "bad") as bad,
        raw_edge(hub.url, "late"),
    ):
        async with raw_edge(hub.url, "leaves") as leaves:
            await bad.answer(await bad.train(), **BAD["not-finite"])  # type: ignore[arg-type]
            await leaves.train()
            await leaves.link.send(Goodbye(code=Farewell.LEAVING, reason="the battery is low"))
            await hub.until(EdgeLeft, edge="leaves")
        while True:
            task = await bad.train()
            await bad.answer(task)
            if task.round == 3:
                break
        await bad.receive(Goodbye)


def board(hub: Running):  # type: ignore[no-untyped-def]
    return hub.hub._screens.board.state


async def test_the_page_makes_of_the_changes_what_the_hub_does(tmp_path: Path, look: Look) -> None:
    async with running_hub(tmp_path, rounds=3, wait_for=4, deadline=0.5, quorum=0.2) as hub:
        async with look(hub, away=True) as tab:
            await tab.until("s.head.phase === 'waiting'")
            playing = asyncio.create_task(an_eventful_run(hub))
            await tab.until("s.rows.length >= 1")
            async with look(hub, away=True) as late:
                await late.until("s.head.phase === 'ended'")
                await tab.until("s.head.phase === 'ended'")
                await hub.life
                state = await tab.until_like(lambda: board(hub))
                assert await late.until_like(lambda: board(hub)) == state
                await playing
                assert state.head.fates.keys() >= {"accepted", "late", "refused"}
                assert [row.metrics["accuracy"] for row in state.rows]
                assert await late.text() == await tab.text()


async def test_a_page_that_comes_late_shows_what_one_shows_that_was_there_all_the_time(
    tmp_path: Path, look: Look
) -> None:
    async with running_hub(tmp_path, rounds=100_000, wait_for=3, deadline=0.3) as hub, look(hub) as early:
        async with edges(agent(hub.url, "a", Adder()), agent(hub.url, "b", Adder())), raw_edge(hub.url, "late"):
            await early.until("s.rows.length >= 3")
            await early.order("pause")
            await expect(early.get("phase")).to_have_text("paused")
            async with look(hub) as late:
                await late.until("s.rows.length >= 3")
                assert await late.until_like(lambda: board(hub)) == await early.until_like(lambda: board(hub))
                assert await late.text() == await early.text()


async def test_the_replay_of_a_run_shows_the_same_final_board_as_the_run_did(tmp_path: Path, look: Look) -> None:
    async with running_hub(tmp_path, rounds=3, wait_for=4, deadline=0.5, quorum=0.2) as hub:
        async with look(hub, away=True) as tab:
            await an_eventful_run(hub)
            await hub.life
            await expect(tab.get("page")).to_have_attribute("data-connection", "ended")
            live, said = await tab.state(), await final_text(tab)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = resolve(Layer("test", {"port": port, "runs": str(tmp_path)})).settings
    replaying = asyncio.create_task(Replay(hub.folder, settings, speed=0).serve())
    try:
        await until_open(port)
        async with look(f"ws://127.0.0.1:{port}", hub.hub.access.keys.operator, away=True) as again:
            await again.until("s.head.phase === 'ended'")
            replayed = await again.until_like(lambda: board_of(hub.folder).state)
            assert replayed == live
            assert await final_text(again) == said
            await expect(again.get("page")).to_have_attribute("data-may", "watch")  # there is nothing to command
    finally:
        replaying.cancel()
        await asyncio.wait([replaying])


async def final_text(tab: Tab) -> list[str]:
    """Give what a page says, without the buttons of those who may drop an edge."""
    return [said for said in await tab.text() if said != "orders" and not said.startswith("drop")]


async def until_open(port: int) -> None:
    """Wait until somebody listens on a port."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0)
            continue
        writer.close()
        return


async def test_a_run_of_very_many_rounds_edges_and_lines_is_cut_as_the_hub_cuts_it(look: Look) -> None:
    run = MadeUp(3, rounds=2200)
    crowd = MadeUp(2_010)
    async with stage() as on, look(on.url, on.key) as tab:
        await on.play(list(run.opening()))
        for number in range(1, 2101):  # of which the older half is thinned out
            await on.play([fact for _, fact in run.round(number)])
            if number % 100 == 0:  # the hub thins out only what pages have
                await tab.until(f"s.rows.at(-1)?.number === {number}")
        for fact in list(crowd.opening())[1:]:  # more than are remembered
            left = EdgeLeft(edge=fact.edge, role="trainer", reason="gone", here=3)  # type: ignore[union-attr]
            await on.play([fact, left])
        await on.play([RunEnded(reason="done", finished=True, rounds=2100, model="0" * 64, seconds=1.0)])
        state = await tab.until_like(lambda: on.state)
        assert len(state.rows) < 2000 < state.rows[-1].number
        assert "edge-0005" not in state.edges
        assert "edge-2009" in state.edges
        assert len(state.lines) == 300
        await expect(tab.get("edges-count")).to_have_text(f"{len(state.edges):,}")
        assert await tab.get("edge").count() < 200  # only those in view are in the document


async def test_names_that_mean_something_to_javascript_are_only_names(look: Look) -> None:
    names = ["__proto__", "constructor", "toString", "hasOwnProperty", "length", "0", "-1", "edge"]
    async with stage() as on, look(on.url, on.key) as tab:
        run = MadeUp(len(names))
        run.edges = names
        await on.play(list(run.opening()))
        for number in range(1, 4):
            await on.play([fact for _, fact in run.round(number)])
        await tab.until("s.rows.length === 3")
        await expect(tab.get("lanes").locator("li")).to_have_count(len(names))
        for name in names[1:]:
            await expect(tab.row(name)).to_have_count(1)
            await expect(tab.lane(name)).to_have_attribute("data-fate", "accepted")
        assert await tab.page.evaluate("({}).here === undefined && Object.prototype.here === undefined")
