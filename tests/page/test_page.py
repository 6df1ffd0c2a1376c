"""What one sees on the page, in a real browser beside a real hub."""

import asyncio
import json
from pathlib import Path

import pytest
from playwright.async_api import expect
from safetensors.numpy import load_file

from hub.events import UpdateRefused
from shared.messages import Farewell, Goodbye, Role
from tests.support.federation import MODEL, Adder, agent, edges, raw_edge, running_hub
from tests.support.pages import Look
from tests.support.strangers import head_of, stranger
from tests.together.bad_updates import BAD

pytestmark = pytest.mark.asyncio(loop_scope="module")

MANY = 100_000  # rounds: the hub plays until the test has seen enough


async def test_a_run_appears_and_its_rounds_advance(tmp_path: Path, look: Look) -> None:
    async with running_hub(tmp_path, rounds=MANY, name="first") as hub, look(hub) as tab:
        await expect(tab.get("phase")).to_contain_text("waiting for edges")
        await expect(tab.get("run")).to_have_text("first")
        async with edges(agent(hub.url, "a", Adder()), agent(hub.url, "b", Adder())):
            await tab.until("s.rows.length >= 3 && s.rows.at(-1).asked === 2")
            await expect(tab.get("lanes").locator("li")).to_have_count(2)
            await expect(tab.get("answered")).to_contain_text("/ 2")
            await expect(tab.get("connection")).to_have_text("live")
            first = await tab.page.title()
            await expect(tab.page).not_to_have_title(first)
            assert "first · Fedhub" in first


async def test_lanes_show_what_each_edge_is_doing(tmp_path: Path, look: Look) -> None:
    async with (
        running_hub(tmp_path, wait_for=5) as hub,
        look(hub) as tab,
        raw_edge(hub.url, "done") as done,
        raw_edge(hub.url, "refused") as refused,
        raw_edge(hub.url, "training") as training,
        raw_edge(hub.url, "leaving") as leaving,
        stranger(hub.url) as uploading,
    ):
        await uploading.join("uploading")
        await done.answer(await done.train())
        await refused.answer(await refused.train(), **BAD["not-finite"])  # type: ignore[arg-type]
        await training.train()
        await expect(tab.lane("leaving")).to_have_attribute("data-stage", "training")
        await leaving.link.send(Goodbye(code=Farewell.LEAVING, reason="bye"))
        await expect(tab.lane("uploading")).to_have_attribute("data-stage", "training")
        uploading.writer.write(head_of(400) + b"\x80" * 100)
        for edge, stage in (
            ("done", "done"), ("refused", "refused"), ("training", "training"), ("leaving", "away"),
            ("uploading", "uploading"),
        ):  # fmt: skip
            await expect(tab.lane(edge)).to_have_attribute("data-stage", stage)
        await expect(tab.get("answered")).to_contain_text("1 / 5")
        await tab.lane("done").hover()
        await expect(tab.get("lane-detail")).to_contain_text("done: ")
        await expect(tab.get("lane-detail")).to_contain_text("loss 1")
        await tab.get("mode-dots").click()
        await expect(tab.get("lanes")).to_have_attribute("data-mode", "dots")
        await expect(tab.lane("uploading")).to_have_attribute("data-stage", "uploading")


async def test_an_edge_that_leaves_as_soon_as_it_is_asked_is_shown_as_away(tmp_path: Path, look: Look) -> None:
    async with running_hub(tmp_path, wait_for=2) as hub, look(hub) as tab, raw_edge(hub.url, "here"):
        async with raw_edge(hub.url, "leaving") as leaving:
            await leaving.train()
            await leaving.link.send(Goodbye(code=Farewell.LEAVING, reason="bye"))
            await expect(tab.row("leaving")).to_contain_text("away: bye")
            await expect(tab.lane("here")).to_have_attribute("data-stage", "training")
            await expect(tab.lane("leaving")).to_have_attribute("data-stage", "away", timeout=3000)


async def test_a_late_edge_is_shown_as_late(tmp_path: Path, look: Look) -> None:
    async with running_hub(tmp_path, rounds=2, wait_for=2, deadline=0.5) as hub, look(hub) as tab:
        async with raw_edge(hub.url, "quick") as quick, raw_edge(hub.url, "slow"):
            await quick.answer(await quick.train())
            await tab.order("pause")
            await expect(tab.get("phase")).to_have_text("paused")
            await expect(tab.lane("slow")).to_have_attribute("data-fate", "late")
            await expect(tab.lane("slow")).to_contain_text("late")
            await expect(tab.lane("quick")).to_have_attribute("data-fate", "accepted")
            await expect(tab.get("line").filter(has_text="late: slow")).to_have_count(1)
            late = await tab.page.locator("th", has_text="late").last.evaluate("cell => cell.cellIndex")
            await expect(tab.row("slow").locator("th, td").nth(late)).to_have_text("1")
            await expect(tab.get("answers")).to_contain_text("50% never do")


@pytest.mark.parametrize("bad", ["not-finite", "misshapen (shape)", "bad-examples (negative)"])
async def test_a_refused_update_is_shown_with_its_reason(tmp_path: Path, look: Look, bad: str) -> None:
    async with running_hub(tmp_path, wait_for=2) as hub, look(hub) as tab:
        async with raw_edge(hub.url, "good") as good, raw_edge(hub.url, "bad") as poisoner:
            await good.train()
            await poisoner.answer(await poisoner.train(), **BAD[bad])  # type: ignore[arg-type]
            fact = await hub.until(UpdateRefused, edge="bad")
            assert isinstance(fact, UpdateRefused)
            await expect(tab.lane("bad")).to_have_attribute("data-why", fact.code)
            await expect(tab.lane("bad")).to_contain_text(fact.code)
            line = tab.get("line").filter(has_text=f"refused bad ({fact.code}): {fact.reason}")
            await expect(line).to_have_attribute("data-level", "bad")


async def test_one_can_look_back_at_a_round_that_is_over_and_return(tmp_path: Path, look: Look) -> None:
    async with running_hub(tmp_path, rounds=4, wait_for=2, deadline=60) as hub, look(hub) as tab:
        async with raw_edge(hub.url, "a") as a, raw_edge(hub.url, "b") as b:
            await b.answer(await b.train(), **BAD["not-finite"])  # type: ignore[arg-type]
            await a.answer(await a.train())
            for _ in range(2):
                await a.answer(await a.train())
                await b.answer(await b.train())
            await tab.until("s.rows.length === 3 && s.round.number === 4")
            await tab.get("earlier").click()
            await expect(tab.get("lanes")).to_have_attribute("data-round", "3")
            await tab.get("scrubber").fill("1")
            await expect(tab.get("lanes")).to_have_attribute("data-round", "1")
            await expect(tab.lane("b")).to_have_attribute("data-fate", "refused")
            await expect(tab.lane("b")).to_have_attribute("data-why", "not-finite")
            await expect(tab.get("live")).to_have_attribute("aria-pressed", "false")
            await expect(tab.get("round")).to_contain_text("4")  # the header stays with what happens now
            await tab.get("later").click()
            await expect(tab.get("lanes")).to_have_attribute("data-round", "2")
            await expect(tab.lane("b")).to_have_attribute("data-fate", "accepted")
            await tab.get("live").click()
            await expect(tab.get("lanes")).to_have_attribute("data-round", "4")
            await expect(tab.get("live")).to_have_attribute("aria-pressed", "true")


async def test_a_click_on_a_curve_looks_back_at_its_round(tmp_path: Path, look: Look) -> None:
    async with running_hub(tmp_path, rounds=MANY, wait_for=1) as hub, look(hub) as tab:
        async with raw_edge(hub.url, "a") as a:
            for _ in range(5):
                await a.answer(await a.train())
            await tab.until("s.rows.length === 5")
            await tab.settled()
            over = tab.get("chart-seconds").locator(".u-over")
            await over.click(position={"x": 2, "y": 20})
            await expect(tab.get("lanes")).to_have_attribute("data-round", "1")


async def test_the_model_can_be_downloaded(tmp_path: Path, look: Look) -> None:
    async with running_hub(tmp_path, rounds=2, wait_for=1) as hub, look(hub, accept_downloads=True) as tab:
        async with raw_edge(hub.url, "a") as edge:
            await edge.answer(await edge.train())
            await tab.until("s.rows.length === 1")
            async with tab.page.expect_download() as coming:
                await tab.get("model").click()
            download = await coming.value
            assert download.suggested_filename == "model-r1.safetensors"
            model = load_file(await download.path())
            assert {name: array.shape for name, array in model.items()} == {
                name: array.shape for name, array in MODEL.items()
            }
            assert model["bias"].tolist() == [1.0, 1.0, 1.0]
            await expect(tab.get("toast").last).to_contain_text("round 1")


async def test_edges_can_be_filtered_and_sorted(tmp_path: Path, look: Look) -> None:
    names = ["edge-2", "edge-10", "phone-1"]
    async with running_hub(tmp_path, rounds=MANY, wait_for=4) as hub, look(hub) as tab:
        several = [agent(hub.url, name, Adder(examples=number)) for number, name in enumerate(names, 1)]
        async with edges(*several):
            await tab.until("Object.keys(s.edges).length === 3")
            rows = tab.get("edge")
            await expect(rows.locator("th")).to_have_text(["edge-2", "edge-10", "phone-1"])
            await tab.page.get_by_role("button", name="examples").click()
            await expect(rows.locator("th")).to_have_text(["phone-1", "edge-10", "edge-2"])
            await tab.page.get_by_role("button", name="examples").click()
            await expect(rows.locator("th")).to_have_text(["edge-2", "edge-10", "phone-1"])
            await tab.get("edges-filter").fill("EDGE")
            await expect(rows).to_have_count(2)
            await expect(tab.get("edges-count")).to_have_text("2 of 3")


async def test_the_log_can_be_filtered(tmp_path: Path, look: Look) -> None:
    async with running_hub(tmp_path, wait_for=3) as hub, look(hub) as tab:
        async with raw_edge(hub.url, "a"), raw_edge(hub.url, "b"):
            await expect(tab.get("line").filter(has_text="b joined")).to_have_count(1)
            await tab.get("log-filter").fill("b JOINED")
            await expect(tab.get("line")).to_have_count(1)
            await tab.get("log-filter").fill("")
            await tab.get("log-level").select_option("failures")
            await expect(tab.get("line")).to_have_count(0)


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_the_page_comes_back_when_the_hub_does_and_keeps_its_curves(tmp_path: Path, look: Look, how: str) -> None:
    async with running_hub(tmp_path, rounds=4, deadline=60) as hub, look(hub, away=True) as tab:
        port = int(tab.origin.rpartition(":")[2])
        async with raw_edge(hub.url, "a") as edge:
            for _ in range(2):
                await edge.answer(await edge.train())
            await edge.train()
            await tab.until("s.rows.length === 2 && s.round.number === 3")
            before = await tab.state()
            if how == "killed":
                for screen in hub.hub._screens._screens:
                    screen.link.abort()
                hub.die()
            else:
                hub.hub.stop()
        await asyncio.wait([hub.life])
        await expect(tab.get("page")).to_have_attribute("data-connection", "away")
        await expect(tab.get("lanes")).to_be_visible()  # what was known stays
        async with running_hub(tmp_path, resume=hub.folder, port=port):
            await expect(tab.get("page")).to_have_attribute("data-connection", "open")
            async with raw_edge(hub.url, "a") as edge:
                for _ in range(2):
                    await edge.answer(await edge.train())
                await tab.until("s.rows.length === 4")
        after = await tab.state()
        assert after.rows[:2] == before.rows
        assert [row.number for row in after.rows] == [1, 2, 3, 4]
        assert after.edges["a"].fates == {"accepted": 4}


async def test_what_is_measured_is_shown(tmp_path: Path, look: Look) -> None:
    async with running_hub(tmp_path, rounds=2, wait_for=1) as hub, look(hub) as tab:
        hub.hub._coordinator.evaluator_expected = True  # type: ignore[union-attr]
        judge = Adder(metrics=lambda model: {"accuracy": 0.5 + float(model["bias"][0]) / 10, "loss": 0.25})
        async with edges(agent(hub.url, "judge", judge, role=Role.EVALUATOR)):
            await tab.until("Object.keys(s.edges).length === 1")
            async with raw_edge(hub.url, "a") as edge:
                await edge.answer(await edge.train())
                await tab.until("s.rows.length === 1")
                await expect(tab.get("metric")).to_have_text("60.0%")
                await expect(tab.get("chart-metric")).to_contain_text("60.0%")
                await expect(tab.row("judge")).to_contain_text("measures")


async def test_a_page_of_another_origin_gets_nothing(tmp_path: Path, look: Look) -> None:
    async with running_hub(tmp_path, wait_for=2) as hub, look(hub) as tab:
        # The same machine under another name is another origin; it is one of ours, so only the origin differs.
        key = json.dumps(hub.hub.access.keys.operator)
        elsewhere = await tab.page.context.new_page()
        await elsewhere.goto(f"http://localhost:{tab.origin.rpartition(':')[2]}/healthz")
        closed = await elsewhere.evaluate(
            f"""new Promise(done => {{
                const socket = new WebSocket("ws://{tab.origin}/", []);
                socket.onopen = () => done("open " + {key}); socket.onerror = () => done("refused");
            }})"""
        )
        assert closed == "refused"
