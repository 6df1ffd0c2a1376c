"""How the page is made: it fits every screen, can be used by keys alone, names everything, and is small."""

from itertools import pairwise
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.support.facts import MadeUp
from tests.support.federation import raw_edge, running_hub
from tests.support.pages import Look, stage

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(("scheme", "edges", "mode"), [("light", 12, "lanes"), ("dark", 300, "dots")])
async def test_no_width_needs_scrolling_sideways(look: Look, scheme: str, edges: int, mode: str) -> None:
    run = MadeUp(edges)
    run.edges[0] = "an-edge-with-the-longest-name-that-there-can-be-which-is-64-long"
    async with stage() as on, look(on.url, on.key, color_scheme=scheme) as tab:
        await on.play(list(run.opening()))
        for number in range(1, 4):
            await on.play([fact for _, fact in run.round(number)])
        await on.play([fact for at, fact in run.round(4) if at < 0.6])
        await tab.until("s.rows.length === 3 && s.round.number === 4")
        for width in (320, 390, 768, 1440):
            await tab.page.set_viewport_size({"width": width, "height": 5000})
            await expect(tab.get("lanes")).to_have_attribute("data-mode", mode)
            await tab.settled()
            needed, there = await tab.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert needed <= there, f"{needed} px are needed of {width}"
        ink = await tab.page.evaluate("getComputedStyle(document.body).color.match(/\\d+/g).slice(0, 3).map(Number)")
        assert (sum(ink) < 384) == (scheme == "light")


async def tab_through(page: Page) -> list[dict[str, object]]:
    """Press Tab until the focus leaves the page; tell where it was."""
    been: list[dict[str, object]] = []
    for _ in range(200):
        await page.keyboard.press("Tab")
        at = await page.evaluate(
            """() => {
                const here = document.activeElement, style = getComputedStyle(here);
                return here === document.body ? null : {
                    id: here.dataset.testid ?? here.closest("[data-testid]")?.dataset.testid ?? here.tagName,
                    tag: here.tagName,
                    seen: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0,
                };
            }"""
        )
        if at is None:
            break
        been.append(at)
    return been


async def test_everything_can_be_reached_and_used_by_keys(tmp_path: Path, look: Look) -> None:
    async with running_hub(tmp_path, rounds=100_000, wait_for=2, deadline=60) as hub, look(hub) as tab:
        async with raw_edge(hub.url, "a") as a, raw_edge(hub.url, "b") as b:
            for _ in range(2):
                await a.answer(await a.train())
                await b.answer(await b.train())
            await a.train()
            await tab.until("s.rows.length === 2 && s.round.number === 3")
            await expect(tab.get("next")).to_be_enabled()
            await tab.settled()
            been = await tab_through(tab.page)
            order = [str(at["id"]) for at in been]
            wanted = [
                "pause", "next", "deadline-value", "stop", "mode-lanes", "mode-dots", "lanes", "scrubber", "live",
                "edges-filter", "drop", "log-level", "log-filter", "model",
            ]  # fmt: skip
            assert set(wanted) <= set(order), order
            assert [at for at in been if not at["seen"]] == []
            await tab.lane("a").focus()
            await expect(tab.get("lane-detail")).to_contain_text("a: ")
            await tab.page.keyboard.press("ArrowDown")
            await expect(tab.lane("b")).to_be_focused()
            await expect(tab.get("lane-detail")).to_contain_text("b: ")
            await tab.get("scrubber").focus()
            await tab.page.keyboard.press("ArrowLeft")
            await expect(tab.get("lanes")).to_have_attribute("data-round", "2")
            await tab.get("pause").focus()
            await tab.page.keyboard.press("Enter")
            await tab.until("s.head.paused")
            await tab.get("stop").focus()
            await tab.page.keyboard.press("Enter")
            await expect(tab.get("cancel")).to_be_focused()  # the harmless one
            await tab.page.keyboard.press("Escape")
            await expect(tab.get("stop")).to_be_focused()


async def test_everything_has_a_name_for_those_who_do_not_see_it(tmp_path: Path, look: Look) -> None:
    async with running_hub(tmp_path, rounds=100_000, wait_for=1, deadline=60) as hub, look(hub) as tab:
        async with raw_edge(hub.url, "a") as a:
            for _ in range(2):
                await a.answer(await a.train())
            await tab.until("s.rows.length === 2 && s.round.number === 3")
            await tab.settled()
            page = tab.page
            assert await page.locator("html").get_attribute("lang") == "en"
            assert "Fedhub" in await page.title()
            for landmark in ("main", "banner"):
                await expect(page.get_by_role(landmark)).to_have_count(1)
            await expect(page.locator("h1")).to_have_count(1)
            levels = await page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
            assert all(after <= before + 1 for before, after in pairwise(levels))
            session = await page.context.new_cdp_session(page)
            tree = (await session.send("Accessibility.getFullAXTree"))["nodes"]
            roles = {
                "button", "textbox", "searchbox", "slider", "combobox", "spinbutton", "link", "progressbar", "image",
                "region", "table", "dialog", "checkbox",
            }  # fmt: skip
            named = [
                (node["role"]["value"], node.get("name", {}).get("value", ""))
                for node in tree
                if not node["ignored"] and node["role"]["value"] in roles
            ]
            assert len(named) > 15
            assert [role for role, name in named if not name.strip()] == []
            ids = await page.evaluate("[...document.querySelectorAll('[id]')].map(one => one.id)")
            assert len(ids) == len(set(ids))


async def test_colours_differ_enough_to_be_read(look: Look) -> None:
    for scheme in ("light", "dark"):
        async with stage() as on, look(on.url, on.key, color_scheme=scheme) as tab:
            run = MadeUp(30)
            await on.play(list(run.opening()))
            for number in range(1, 4):
                await on.play([fact for _, fact in run.round(number)])
            await tab.until("s.rows.length === 3")
            await tab.settled()
            pale = await tab.page.evaluate(_PALE)
            assert not pale, f"{scheme}: {pale}"


# All text whose contrast with what is behind it is below 4.5 as WCAG 2 counts it, or 3 if it is large or only a sign.
_PALE = """() => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = (colour) => {
        canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
        return [r, g, b, a / 255];
    };
    const over = (top, under) => top.slice(0, 3).map((part, at) => part * top[3] + under[at] * (1 - top[3])).concat(1);
    const behind = (one) => {
        if (!one) return rgba("Canvas");
        const own = rgba(getComputedStyle(one).backgroundColor);
        return own[3] === 1 ? own : over(own, behind(one.parentElement));
    };
    const linear = (part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
    const found = new Set();
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const text = texts.currentNode.data.trim(), one = texts.currentNode.parentElement;
        if (!text || !one.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
        if (one.closest(":disabled, .unseen, option, svg")) continue;
        const style = getComputedStyle(one), ground = behind(one), ink = over(rgba(style.color), ground);
        const [low, high] = [light(ink), light(ground)].sort((a, b) => a - b);
        const size = parseFloat(style.fontSize), ratio = (high + 0.05) / (low + 0.05);
        const easy = size >= 24 || size >= 18.66 && style.fontWeight >= 700 || one.closest("[aria-hidden=true]");
        const where = `${one.parentElement.className}/${one.className}`;
        if (ratio < (easy ? 3 : 4.5)) found.add(`${where} ${text}: ${ratio.toFixed(2)}`);
    }
    return [...found];
}"""
