"""The hub's page in a real browser, which notes whatever it complains of and every address that it asks for."""

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from time import time
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec
from playwright.async_api import Browser, Locator, Page, async_playwright, expect

from hub.connections.inbox import Inbox
from hub.connections.movements import Movements
from hub.connections.roster import Roster
from hub.connections.session import Reception
from hub.events import Fact, Stamped
from hub.feed import Feed
from hub.rules.access import Access, Keys
from hub.views import page
from hub.views.board import Board, State
from hub.views.screens import Screens
from shared.errors import LinkClosed
from shared.link import Traffic, listen, port_of
from shared.messages import Order, Reply
from tests.support.federation import Running

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE = 20_000  # ms: of a machine that has more to do
TALL = {"width": 1440, "height": 5000}
"""So high that all of the page is in view: it does not draw what nobody sees."""

expect.set_options(timeout=PATIENCE)


def browser_here() -> str | None:
    """Give the path of the Chromium that is installed."""
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    return next((path for path in found if path), None)


def missing() -> str:
    """Say why the page cannot be looked at; empty if it can."""
    if browser_here() is None:
        return "no Chromium is installed"
    if not (page.BUILT / "index.html").is_file():
        return "the page is not built (make page)"
    return ""


@asynccontextmanager
async def chromium(*more: str) -> AsyncIterator[Browser]:
    """Start the browser with a fresh profile."""
    async with async_playwright() as playwright:
        # pytest names the running test in the environment, in which a test's null character cannot be.
        environment: dict[str, Any] = {name: text for name, text in os.environ.items() if "\0" not in text}
        browser = await playwright.chromium.launch(
            executable_path=browser_here(), args=[*FLAGS, *more], env=environment
        )
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Tab:
    """A tab of the browser, with the hub's page in it."""

    page: Page
    origin: str
    away: bool
    """Whether the hub goes away meanwhile: of that a browser complains by itself, and no page can keep it from it."""
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """All addresses."""

    def watch(self) -> None:
        """Note from now on what a page of ours never does."""
        self.page.set_default_timeout(PATIENCE)
        self.page.on("console", lambda said: said.type in ("error", "warning") and self.complain(said.text))
        self.page.on("pageerror", lambda error: self.complain(f"uncaught: {error}"))
        self.page.on("crash", lambda _: self.complain("it crashed"))
        self.page.on("dialog", lambda dialog: self.complain(f"it asked in a dialog: {dialog.message}"))
        self.page.on("popup", lambda popup: self.complain(f"it opened a window: {popup.url}"))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("websocket", lambda socket: self.asked.append(socket.url))

    def complain(self, of: str) -> None:
        """Note something, unless it is the browser's own word about a hub that is away."""
        if not (self.away and re.match(r"WebSocket connection to 'ws://\S+' failed: ", of)):
            self.complaints.append(of)

    def check(self) -> None:
        """Fail if the page did anything that it never should."""
        assert not self.complaints
        elsewhere = [url for url in self.asked if not url.startswith("data:") and not self.ours(url)]
        assert not elsewhere, f"it asked for something that is not the hub's: {elsewhere}"
        assert self.asked

    def ours(self, url: str) -> bool:
        """Tell whether an address is the hub's."""
        return urlsplit(url.removeprefix("blob:")).netloc == self.origin

    def get(self, test_id: str) -> Locator:
        """Give the elements of that name (`hub/web/src/main.tsx` lists them)."""
        return self.page.get_by_test_id(test_id)

    def lane(self, edge: str) -> Locator:
        """Give an edge's lane in the round that is shown."""
        return self.get("lanes").locator(f"li[data-edge='{edge}']")

    def row(self, edge: str) -> Locator:
        """Give an edge's row of the table."""
        return self.page.locator(f"[data-testid=edge][data-edge='{edge}']")

    async def until(self, seen: str) -> None:
        """Wait until something is true of the board `s`, in JavaScript."""
        await self.page.wait_for_function(f"() => {{ const s = window.fedhub?.state; return s && ({seen}); }}")

    async def state(self) -> State:
        """Give the board that the page has."""
        return msgspec.json.decode(await self.page.evaluate("JSON.stringify(window.fedhub.state)"), type=State)

    async def until_like(self, wanted: Callable[[], State]) -> State:
        """Wait until the page's board is up to date; it must be the same then."""
        state = await self.state()
        while state.time < wanted().time:
            await self.until(f"s.time >= {json.dumps(wanted().time)}")
            state = await self.state()
        for part in State.__struct_fields__:
            here, there = getattr(state, part), getattr(wanted(), part)
            assert here == there, f"{part}: the page has {here!r:.1000}, the hub has {there!r:.1000}"
        return state

    async def text(self) -> list[str]:
        """Give all that the page says, to the eye or to a screen reader."""
        await self.settled()
        return await self.page.evaluate(_TEXT)

    async def settled(self) -> None:
        """Wait until everything that is due is drawn: the page draws a part in each frame."""
        await self.page.evaluate(
            "async () => { for (let n = 0; n < 20; n++) await new Promise(requestAnimationFrame); }"
        )

    async def order(self, test_id: str) -> str:
        """Press a button; give the notice of what became of it."""
        before = await self.get("toast").count()
        await self.get(test_id).click()
        await expect(self.get("toast")).to_have_count(before + 1)
        return await self.get("toast").last.inner_text()


_TEXT = """() => {
    const said = [];
    const walk = (node) => {
        if (node.nodeType === Node.TEXT_NODE) { if (node.data.trim()) said.push(node.data.trim()); return; }
        if (node.nodeType !== Node.ELEMENT_NODE || node.ariaHidden === "true" || node.hidden) return;
        for (const name of ["aria-label", "title"]) if (node.getAttribute(name)) said.push(node.getAttribute(name));
        for (const child of node.childNodes) walk(child);
    };
    for (const part of document.querySelectorAll(".tiles, main")) walk(part);
    return said;
}"""


class Look(Protocol):
    """Opens the page of a hub, with a key; what the tab did is checked at the end."""

    def __call__(
        self, hub: Running | str, key: str = "", *, away: bool = False, start: str = "", **context: Any
    ) -> AbstractAsyncContextManager[Tab]:
        """Open a page."""


def looks(browser: Browser) -> Look:
    """Make what opens pages in `browser`, each with a profile of its own."""

    @asynccontextmanager
    async def look(
        hub: Running | str, key: str = "", *, away: bool = False, start: str = "", **context: Any
    ) -> AsyncIterator[Tab]:
        url = hub if isinstance(hub, str) else hub.url
        key = key or ("" if isinstance(hub, str) else hub.hub.access.keys.operator)
        origin = urlsplit(url).netloc
        profile = await browser.new_context(**{"viewport": TALL, **context})
        try:
            await profile.add_init_script(_KEEP_SOCKETS + start)
            tab = Tab(await profile.new_page(), origin, away)
            tab.watch()
            await tab.page.goto(f"http://{origin}/{f'#k={key}' if key != 'none' else ''}")
            yield tab
            await tab.page.evaluate("0")  # what it says is here then
            tab.check()
        finally:
            await profile.close()

    return look


# Notes each websocket of the page, so that a test can say something over it that the page would not.
_KEEP_SOCKETS = """
    window.sockets = [];
    window.WebSocket = class extends WebSocket {
        constructor(...how) { super(...how); window.sockets.push(this); }
    };
"""


@dataclass
class Stage:
    """A hub's views without a hub: facts that a test makes up reach the page as real ones do."""

    url: str
    key: str
    feed: Feed
    screens: Screens

    @property
    def state(self) -> State:
        """The board."""
        return self.screens.board.state

    folded: asyncio.Queue[int] = field(default_factory=asyncio.Queue)
    """The numbers of the facts that are on the board."""
    _played: int = 0

    async def play(self, facts: Iterable[Fact]) -> None:
        """Have facts happen, and wait until they are on the board."""
        for fact in facts:
            self._played += 1
            self.feed.publish(fact)
        while self._played and await self.folded.get() < self._played:
            pass


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """Open a stage on a port of its own."""
    access = Access(Keys(guest="a-guest-of-the-stage", operator="an-operator-of-the-stage"), open=False)
    clock = asyncio.get_running_loop().time
    feed = Feed()
    screens = Screens(command=_no_order, newest=lambda: None, now=time)
    reception = Reception(
        welcome=_nobody,
        roster=Roster(),
        inbox=Inbox(clock),
        feed=feed,
        movements=Movements(feed, clock),
        access=access,
        show=screens.show,
        clock=clock,
    )
    shown = page.Page(access, metrics=lambda: (b"", "text/plain"), health=lambda: {})
    server = await listen(reception.receive, host="127.0.0.1", port=0, traffic=Traffic(), answer=shown.answer)
    open_ = Stage(f"ws://127.0.0.1:{port_of(server)}", access.keys.operator, feed, screens)

    def folded(stamped: Stamped) -> None:
        open_.folded.put_nowait(stamped.seq)

    following = asyncio.create_task(screens.follow(feed.follow(room=1_000_000), Board(), folded))
    try:
        yield open_
    finally:
        feed.close()
        await following
        server.close()
        await server.wait_closed()


def _no_order(order: Order, reply: Callable[[Reply], None]) -> None:
    reply(Reply(done=False, reason="nobody plays this run"))


async def _nobody(version: int) -> Any:
    raise LinkClosed(1013, "nobody can join a stage")
