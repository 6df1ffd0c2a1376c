"""Whatever an edge calls itself or says: nothing of it is executed, no control character reaches a page or a log."""

import asyncio
import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.async_api import expect

from hub.events import (
    DiskTrouble,
    EdgeJoined,
    EdgeLeft,
    Fact,
    Ordered,
    RoundClosed,
    RoundCommitted,
    RoundStarted,
    RunEnded,
    RunStarted,
    StrangerRefused,
    UpdateAccepted,
    UpdateRefused,
)
from shared.console import printable
from shared.errors import LinkClosed
from shared.link import connect
from shared.messages import Farewell, Goodbye, Hello, Role
from tests.support.federation import Adder, agent, edges, raw_edge, running_hub
from tests.support.pages import Look, Tab, stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

_PWN = "window.__pwned=1"
_HOSTILE = [
    f"<script>{_PWN}</script>", f"<img src=x onerror={_PWN}>", f"<svg/onload={_PWN}>",
    f'"><img src=x onerror="{_PWN}">', f"javascript:{_PWN}", f"<a href=javascript:{_PWN}>x</a>",
    f"<iframe srcdoc='<script>parent.{_PWN[7:]}</script>'>", f"';{_PWN};//", f"${{{_PWN}}}",
    f"{{{{constructor.constructor('{_PWN}')()}}}}", "</title><h1>x</h1>", "<!--", "]]>",
    f"<style>@import 'javascript:{_PWN}'</style>", "<b>bold</b>", "&lt;b&gt;",
    "<link rel=stylesheet href=//evil.example>", "<meta http-equiv=refresh content=0;url=//evil.example>",
    "<base href=//evil.example>", "<form action=//evil.example>", "\x1b[31mred\x1b[0m", "\x1b[2J\x1b[H",
    "\x1b]0;title\x07", "\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\", "\x1b]52;c;cm0gLXJm\x07", "\x9b31mC1",
    "\x9d0;C1 title\x9c", "\x90q\x9c", "\x07bell", "\x08\x08\x08back", "\rover", "\x00null", "nu\x00ll",
    "\n[ERROR] forged line", "\r\nforged: header", "\x7fdelete", "\x85next line", "\x0b\x0c", "\u202egnp.exe",
    "\u202aLRE", "\u202bRLE", "\u202dLRO", "\u2066LRI", "\u2067RLI", "\u2068FSI", "\u2069\u202cPDI",
    "\u200e\u200fmarks", "\u200bzero\u200bwidth", "\u2028line", "\u2029paragraph", "\ufeffbom", "soft\u00adhyphen",
    "\U000e0041\U000e007f tags", "\ufff9annotation\ufffb", "\u061cALM", "e\u0301\u0301\u0301\u0301", "\U0001f4a9",
    "עברית", "ﷺ", "__proto__", "constructor", "prototype", "../../etc/passwd", "CON", "%00", "%s%n", "' OR 1=1 --",
    "{}", "[]", "0", "-0", "NaN", "undefined", "null", "true", "x" * 300, "", " ", ".", "..", "-", "\t", "<" * 64,
    "\ud7ff", "\ue000", "\uffff",
]  # fmt: skip
INVISIBLE = r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]"


def hostile_names() -> list[str]:
    """Give 200 of them: each of those above, and some joined."""
    dice = random.Random(0)
    names = dict.fromkeys(name for name in _HOSTILE if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name))
    while len(names) < 200:
        names["".join(dice.sample(list(names), 2))] = None
    return list(names)


async def check_harmless(tab: Tab) -> None:
    """Fail if anything on the page was executed, is an element that somebody else wrote, or turns text around."""
    await tab.settled()
    found = await tab.page.evaluate(
        """() => ({
            pwned: "__pwned" in window,
            written: [...document.body.querySelectorAll("script, img, iframe, style, link, meta, base, object, h1 h1")]
                .map((one) => one.outerHTML),
            handlers: [...document.querySelectorAll("*")].filter((one) => one.getAttributeNames()
                .some((name) => name.startsWith("on"))).length,
            addresses: [...document.querySelectorAll("[href], [src], [action]")]
                .map((one) => one.getAttribute("href") ?? one.getAttribute("src") ?? one.getAttribute("action"))
                .filter((address) => !/^\\.?\\/[\\w./-]*$/.test(address)),
            seen: [document.title, document.body.innerText, ...[...document.querySelectorAll("[title],[aria-label]")]
                .flatMap((one) => [one.title, one.ariaLabel ?? ""])].join("\\n"),
        })"""
    )
    assert not found["pwned"]
    assert found["written"] == []
    assert found["handlers"] == 0
    assert found["addresses"] == []
    assert re.findall(INVISIBLE, found["seen"].replace("\t", "")) == []  # between the cells of a table stands a tab
    assert await tab.page.locator("h1").count() == 1


def check_printable(log: str) -> None:
    """Fail if a terminal would obey something in a log."""
    assert {character for character in log if printable(character) != character} == set()


@pytest.mark.parametrize("style", ["json", "pretty"])
async def test_two_hundred_hostile_names_are_turned_away_and_the_hub_goes_on(
    tmp_path: Path, look: Look, style: str, capfd: pytest.CaptureFixture[str]
) -> None:
    names = hostile_names()
    assert len(names) == 200

    async def try_to_join(url: str, name: str) -> None:
        link = await connect(url)
        with pytest.raises(LinkClosed) as closed:
            await link.send(Hello(versions=(1,), edge=name, role=Role.TRAINER))
            await link.receive()
        assert closed.value.code == 1002
        check_printable(closed.value.reason)

    async with running_hub(tmp_path, rounds=3, wait_for=2, log=style) as hub, look(hub, away=True) as tab:
        for at in range(0, len(names), 20):
            await asyncio.gather(*(try_to_join(hub.url, name) for name in names[at : at + 20]))
        await tab.until("s.head.strangers === 200")
        assert (await tab.state()).edges == {}
        await check_harmless(tab)
        async with edges(agent(hub.url, "a", Adder()), agent(hub.url, "b", Adder())):
            await hub.ended()
        await tab.until("s.rows.length === 3")
        await check_harmless(tab)
    check_printable(capfd.readouterr().err)
    check_printable((hub.folder / "events.jsonl").read_text())


@pytest.mark.parametrize("style", ["json", "pretty"])
async def test_whatever_an_edge_may_say_freely_is_shown_as_text(
    tmp_path: Path, look: Look, style: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async with running_hub(tmp_path, rounds=100_000, wait_for=2, deadline=60, log=style) as hub, look(hub) as tab:
        hub.hub._coordinator.evaluator_expected = True  # type: ignore[union-attr]
        judge = Adder(
            metrics=lambda _: {name: 1.0 for name in hostile_names()[:30] if len(name) <= 256} | {"loss": 0.1}
        )
        async with edges(agent(hub.url, "judge", judge, role=Role.EVALUATOR), agent(hub.url, "good", Adder())):
            for at, text in enumerate(name for name in hostile_names() if len(name) <= 256):
                if at % 4:  # each way for a part of them
                    async with raw_edge(hub.url, f"edge-{at}") as edge:
                        match at % 4:
                            case 1:
                                await edge.link.send(Goodbye(code=Farewell.LEAVING, reason=text))
                            case 2:
                                await edge.link.close(4000, text)
                            case 3:
                                task = await edge.train()
                                await edge.answer(task, run=text)
                                await edge.answer(task, spec=text)
                                await edge.answer(task, metrics={text: 1.0, "loss": 1.0})
            await tab.until("s.rows.length >= 3")
            await check_harmless(tab)
            text = await tab.page.locator("body").inner_text()
            assert "<img src=x onerror" in text
            await tab.order("pause")
            await expect(tab.get("phase")).to_have_text("paused")
            await tab.until_like(lambda: hub.hub._screens.board.state)
    check_printable(capfd.readouterr().err)
    check_printable((hub.folder / "events.jsonl").read_text())


async def test_a_page_would_bear_hostile_names_even_if_the_hub_let_them_in(look: Look) -> None:
    names = [name for name in hostile_names() if name]
    async with stage() as on, look(on.url, on.key) as tab:
        await on.play(list(hostile_run(names, lambda at: names[at % len(names)])))
        await tab.until("s.rows.length === 1 && s.round.number === 2")
        await tab.get("mode-lanes").click()
        await expect(tab.get("lanes").locator("li")).to_have_count(len(names))
        await check_harmless(tab)
        rows = tab.get("lanes").locator("li")
        for at in range(0, len(names), 40):
            await rows.nth(at).hover()
            await expect(tab.get("lane-detail")).not_to_be_empty()
        await check_harmless(tab)
        await tab.get("earlier").click()
        await expect(tab.get("lanes")).to_have_attribute("data-round", "1")
        await check_harmless(tab)
        await tab.get("edges-filter").fill("<img")
        await check_harmless(tab)
        await tab.get("drop").first.click()
        await expect(tab.page.get_by_role("dialog")).to_be_visible()
        await check_harmless(tab)


def hostile_run(names: list[str], word: Callable[[int], str]) -> list[Fact]:
    """Make up a round in which every text that any fact carries is a hostile one."""
    facts: list[Fact] = [
        RunStarted(run=word(0), name=word(1), algorithm=word(2), parameters=1, model_bytes=4, model=word(3), round=0,
                   rounds=2, metric=word(4), deadline=1.0),
        StrangerRefused(peer=word(5), reason=word(6)),
        DiskTrouble(reason=word(7)),
    ]  # fmt: skip
    for at, name in enumerate(names):
        facts.append(
            EdgeJoined(
                edge=name, role="trainer", agent=word(at + 1), examples=1, data_bytes=1, here=1, kind=word(at + 2)
            )
        )
    started = RoundStarted(round=1, attempt=1, cohort=tuple(names), goal=1, quorum=1, seconds=1.0)
    facts.append(started)
    for at, name in enumerate(names):
        match at % 3:
            case 0:
                facts.append(UpdateAccepted(round=1, edge=name, examples=1, weight=1, loss=1.0, seconds=0.1, nbytes=1))
            case 1:
                facts.append(
                    UpdateRefused(round=1, edge=name, code=word(at), reason=word(at + 9), attempt=1, final=True,
                                  seconds=0.1, nbytes=1)
                )  # fmt: skip
            case 2:
                facts.append(EdgeLeft(edge=name, role="trainer", reason=word(at), here=1))
    facts += [
        Ordered(action="drop", round=1, edge=word(8)),
        RoundCommitted(round=1, model=word(3), listened=1.0),
        RoundClosed(round=1, attempt=1, outcome=word(10), asked=len(names), answered=1, late=tuple(names[:5]),
                    left=tuple(names[2::3]), refused={name: word(11) for name in names[1::3]}, loss=1.0,
                    metrics=dict.fromkeys(names[:20], 0.5) | {word(4): 0.5}, evaluated="central", best=True,
                    seconds=1.0, bytes_down=1, bytes_up=1, model=word(3)),
        RoundStarted(round=2, attempt=1, cohort=tuple(names), goal=1, quorum=1, seconds=1.0),
    ]  # fmt: skip
    return facts


async def test_a_run_that_ends_for_a_hostile_reason_says_so_harmlessly(look: Look) -> None:
    async with stage() as on, look(on.url, on.key) as tab:
        reason = "".join(hostile_names()[:60])
        await on.play([RunEnded(reason=reason, finished=True, rounds=0, model="0" * 64, seconds=1.0)])
        await tab.until("s.head.phase === 'ended'")
        await check_harmless(tab)
        assert json.loads(await tab.page.evaluate("JSON.stringify(window.fedhub.state.head.note)")) == reason
