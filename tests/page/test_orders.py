"""Keys and orders: who shows the operator's key commands the hub from the page, everybody else looks on."""

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import expect

from hub.events import EdgeJoined, EdgeLeft, Ordered, RoundClosed
from shared.codec import encode
from shared.errors import LinkClosed
from shared.messages import Fetch, Order
from tests.support.federation import Adder, agent, edges, raw_edge, running_hub
from tests.support.pages import Look, Tab

pytestmark = pytest.mark.asyncio(loop_scope="module")

BUTTONS = ("pause", "resume", "next", "deadline-value", "deadline-set", "stop", "drop")


async def say(tab: Tab, message: Order | Fetch) -> None:
    """Say something over the page's own websocket, as its console could."""
    sent = list(b"".join(encode(message).pieces))
    await tab.page.evaluate("bytes => window.sockets.at(-1).send(new Uint8Array(bytes))", sent)


async def test_the_operator_pauses_a_run_and_lets_it_go_on(tmp_path: Path, look: Look) -> None:
    async with running_hub(tmp_path, rounds=3, deadline=60) as hub, look(hub, away=True) as tab:
        await expect(tab.get("page")).to_have_attribute("data-may", "command")
        async with raw_edge(hub.url, "a") as edge:
            task = await edge.train()
            await tab.until("s.round")
            assert await tab.order("pause")
            await expect(tab.get("toast").last).to_have_attribute("data-done", "true")
            await expect(tab.get("phase")).to_have_text("training, then a pause")
            await expect(tab.get("pause")).to_have_count(0)
            await edge.answer(task)
            await expect(tab.get("phase")).to_have_text("paused")
            await tab.order("resume")
            await edge.answer(await edge.train())
            await edge.answer(await edge.train())
            await hub.ended()
        orders = [fact.action for fact in hub.all(Ordered) if isinstance(fact, Ordered)]
        assert orders == ["pause", "resume"]
        await expect(tab.get("over")).to_be_visible()


async def test_the_operator_closes_a_round_with_what_is_in(tmp_path: Path, look: Look) -> None:
    async with running_hub(tmp_path, rounds=2, wait_for=2, deadline=60) as hub, look(hub) as tab:
        await expect(tab.get("next")).to_be_disabled()
        async with raw_edge(hub.url, "a") as quick, raw_edge(hub.url, "b") as slow:
            task = await quick.train()
            await slow.train()
            await tab.until("s.round")
            assert "needs 1" in await tab.order("next")
            await expect(tab.get("toast").last).to_have_attribute("data-done", "false")
            await quick.answer(task)
            await expect(tab.lane("a")).to_have_attribute("data-stage", "done")
            await tab.order("next")
            await hub.until(RoundClosed, outcome="cut-short")
            await expect(tab.get("round")).to_contain_text("2")


async def test_the_operator_changes_the_deadline(tmp_path: Path, look: Look) -> None:
    async with running_hub(tmp_path, rounds=2, wait_for=2, deadline=60) as hub, look(hub) as tab:
        async with raw_edge(hub.url, "a") as quick, raw_edge(hub.url, "b"):
            await quick.answer(await quick.train())
            await tab.until("s.round && s.round.lanes.a.stages.at(-1)[0] === 'done'")
            await expect(tab.get("deadline-set")).to_be_disabled()
            await tab.get("deadline-value").fill("0.5")
            assert "0.5 s" in await tab.order("deadline-set")
            await hub.until(RoundClosed, late=("b",))
            await tab.until("s.head.deadline === 0.5 && s.rows.length === 1")
            assert await tab.get("deadline-value").input_value() == ""


async def test_the_operator_sends_an_edge_away_when_sure(tmp_path: Path, look: Look) -> None:
    async with running_hub(tmp_path, wait_for=3) as hub, look(hub) as tab:
        async with raw_edge(hub.url, "a"), raw_edge(hub.url, "b") as unloved:
            drop = tab.row("b").get_by_test_id("drop")
            await drop.click()
            await expect(tab.page.get_by_role("dialog")).to_contain_text("Send b away?")
            await tab.get("cancel").click()
            await expect(tab.page.get_by_role("dialog")).to_have_count(0)
            await drop.click()
            await tab.get("confirm").click()
            with pytest.raises(LinkClosed):
                while True:
                    await unloved.link.receive()
            await hub.until(EdgeLeft, edge="b")
            await expect(tab.row("b")).to_contain_text("away")
            await expect(drop).to_be_disabled()
            await expect(tab.row("a").get_by_test_id("drop")).to_be_enabled()


async def test_the_operator_stops_the_hub_when_sure(tmp_path: Path, look: Look) -> None:
    async with running_hub(tmp_path, rounds=5, wait_for=2, deadline=60) as hub, look(hub, away=True) as tab:
        async with raw_edge(hub.url, "a") as edge, raw_edge(hub.url, "b"):
            await edge.answer(await edge.train())
            await expect(tab.lane("a")).to_have_attribute("data-stage", "done")
            await tab.get("stop").click()
            await expect(tab.page.get_by_role("dialog")).to_be_visible()
            await tab.page.keyboard.press("Escape")
            await expect(tab.page.get_by_role("dialog")).to_have_count(0)
            await tab.get("stop").click()
            await tab.get("confirm").click()
            ended = await hub.ended()
            assert ended.stopped
            await expect(tab.get("phase")).to_contain_text("stopped by the operator")
            await expect(tab.get("stop")).to_be_disabled()


async def test_each_of_two_quick_orders_gets_its_own_answer(tmp_path: Path, look: Look) -> None:
    async with running_hub(tmp_path, rounds=2, wait_for=2, deadline=60) as hub, look(hub) as tab:
        async with raw_edge(hub.url, "a"), raw_edge(hub.url, "b"):
            await expect(tab.get("next")).to_be_enabled()
            await tab.page.evaluate(
                """() => {
                    for (const id of ["pause", "next"]) document.querySelector(`[data-testid=${id}]`).click();
                }"""
            )
            await expect(tab.get("toast")).to_have_count(2)
            await expect(tab.get("toast").first).to_have_text("no further round begins until you resume")
            await expect(tab.get("toast").last).to_contain_text("needs 1")


async def test_a_refused_order_does_not_end_looking_back(tmp_path: Path, look: Look) -> None:
    async with running_hub(tmp_path, rounds=100, deadline=60) as hub, look(hub) as tab:
        async with raw_edge(hub.url, "a") as edge:
            for _ in range(2):
                await edge.answer(await edge.train())
            await tab.until("s.rows.length === 2 && s.round.number === 3")
            await expect(tab.get("next")).to_be_enabled()
            await expect(tab.get("earlier")).to_be_enabled()
            await expect(tab.get("lanes")).to_have_attribute("data-round", "3")
            await tab.page.evaluate(  # the order is refused before the round before has even been asked for
                """() => {
                    for (const id of ["earlier", "next"]) document.querySelector(`[data-testid=${id}]`).click();
                }"""
            )
            await expect(tab.get("toast").last).to_contain_text("needs 1")
            await expect(tab.get("lanes")).to_have_attribute("data-round", "2")


async def test_what_the_hub_has_not_answered_when_the_line_is_cut_is_told(tmp_path: Path, look: Look) -> None:
    async with running_hub(tmp_path, wait_for=2) as hub, look(hub, away=True) as tab:
        await expect(tab.get("pause")).to_be_enabled()
        await tab.page.evaluate(
            """() => {
                const socket = window.sockets.at(-1);
                socket.send = () => socket.close();
                document.querySelector("[data-testid=pause]").click();
            }"""
        )
        await expect(tab.get("toast")).to_contain_text("before the hub answered")
        await expect(tab.get("toast")).to_have_attribute("data-done", "false")
        await tab.order("pause")
        await expect(tab.get("toast").last).to_have_attribute("data-done", "true")


async def test_a_guest_sees_no_buttons_and_orders_sent_by_hand_are_refused(tmp_path: Path, look: Look) -> None:
    async with running_hub(tmp_path, wait_for=2, rounds=2, deadline=60) as hub:
        async with look(hub, hub.hub.access.keys.guest) as tab, edges(agent(hub.url, "a", Adder())):
            await hub.until(EdgeJoined, edge="a")
            await expect(tab.row("a")).to_be_visible()
            await expect(tab.get("page")).to_have_attribute("data-may", "watch")
            for button in BUTTONS:
                await expect(tab.get(button)).to_have_count(0)
            for number, action in enumerate(("pause", "next", "drop", "stop"), 1):
                await say(tab, Order(action=action, edge="a", seconds=1.0))
                await expect(tab.get("toast")).to_have_count(number)
            for toast in await tab.get("toast").all():
                await expect(toast).to_have_attribute("data-done", "false")
                await expect(toast).to_contain_text("operator")
            await say(tab, Fetch())  # what a guest may do still works over that socket
            await expect(tab.get("toast").filter(has_text="model")).to_have_count(1)
            state = hub.hub._screens.board.state
            assert not state.head.paused
            assert state.edges["a"].here
        assert not hub.life.done()
    assert not hub.all(Ordered)


@pytest.mark.parametrize("key", ["none", "wrong"])
async def test_without_the_right_key_one_is_asked_for_it(tmp_path: Path, look: Look, key: str) -> None:
    async with running_hub(tmp_path, wait_for=2) as hub, look(hub, key) as tab:
        await expect(tab.get("key")).to_be_focused()
        await expect(tab.page.get_by_role("alert")).to_contain_text("key")
        await expect(tab.page.get_by_text("terminal printed it")).to_contain_text("keys.json")
        assert await tab.page.evaluate("window.fedhub.state") is None
        await tab.get("key").fill("wrong again")
        await tab.get("key-enter").click()
        await expect(tab.page.get_by_role("alert")).to_contain_text("key is wrong")
        await tab.get("key").fill(f"  {hub.hub.access.keys.guest} ")
        await tab.page.keyboard.press("Enter")
        await expect(tab.get("run")).to_have_text("run")
        assert tab.page.url.endswith(f"#k={hub.hub.access.keys.guest}")
        await tab.page.reload()
        await expect(tab.get("run")).to_have_text("run")


async def test_another_key_in_the_address_takes_effect_at_once(tmp_path: Path, look: Look) -> None:
    async with running_hub(tmp_path, wait_for=2) as hub, look(hub, hub.hub.access.keys.guest) as tab:
        await expect(tab.get("page")).to_have_attribute("data-may", "watch")
        await tab.page.evaluate("key => { location.hash = `k=${key}` }", hub.hub.access.keys.operator)
        await expect(tab.get("pause")).to_be_visible()


async def test_the_key_is_in_no_address_that_is_asked_for(tmp_path: Path, look: Look) -> None:
    async with running_hub(tmp_path, wait_for=2) as hub, look(hub) as tab:
        await expect(tab.get("run")).to_be_visible()
        assert len(tab.asked) >= 3
        fetched = [url for url in tab.asked if "#" not in url]
        assert hub.hub.access.keys.operator not in "".join(fetched)
        sent = await asyncio.gather(*(tab.page.evaluate(f"fetch('{path}').then(r => r.url)") for path in ("/healthz",)))
        assert hub.hub.access.keys.operator not in "".join(sent)
