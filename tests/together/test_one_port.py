"""The port that edges join by also serves the page, metrics and health: plainly, and to nobody who should not see."""

import gzip
import json
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hub.events import EdgeJoined, WaitingForEdges
from hub.rules.access import Access, Keys
from hub.views.page import Page
from shared.link import Answer, Asked
from tests.support.federation import Adder, agent, edges, running_hub
from tests.support.viewers import get, http

KEYS = Keys(guest="guests-key-12", operator="operators-key")


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A page as Vite builds it, made small."""
    folder = tmp_path / "dist"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>Fedhub</title>" + " " * 2000)
    (folder / "assets" / "index-1a2b3c.js").write_text("export const one = 1;\n" * 100)
    return folder


def page(folder: Path, *, open: bool = False) -> Page:
    access = Access(KEYS, open=open, names=frozenset({"hub.local"}))
    return Page(access, metrics=lambda: (b"fedhub_rounds_total 1\n", "text/plain"), health=lambda: {}, folder=folder)


def told(shown: Page, request: Asked) -> Answer:
    """Give what a request is answered that asks for no websocket."""
    given = shown.answer(request)
    assert given is not None
    return given


def asked(path: str = "/", method: str = "GET", host: str = "127.0.0.1:8765", **headers: str) -> Asked:
    return Asked(method, path, {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}})


def test_assets_are_compressed_once_and_tagged(built: Path) -> None:
    shown = page(built)
    plain, packed = told(shown, asked()), told(shown, asked(accept_encoding="br;q=1, gzip, *;q=0"))
    assert gzip.decompress(packed.body) == plain.body == (built / "index.html").read_bytes()
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    again = told(shown, asked(if_none_match=f'"other", {plain.headers["ETag"]}'))
    assert (again.status, again.body) == (304, b"")
    assert "Content-Encoding" not in told(shown, asked(accept_encoding="gzip;q=0, br")).headers
    assert packed.body is told(shown, asked(accept_encoding="gzip")).body


def test_what_is_named_by_its_content_is_kept_by_browsers_and_the_rest_is_asked_for_again(built: Path) -> None:
    shown = page(built)
    script, start = told(shown, asked("/assets/index-1a2b3c.js?v=2")), told(shown, asked("/"))
    assert "immutable" in script.headers["Cache-Control"]
    assert "javascript" in script.headers["Content-Type"]
    assert start.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("path", ["/", "/assets/index-1a2b3c.js", "/metrics", "/healthz", "/nothing"])
def test_every_answer_forbids_what_a_page_of_ours_never_does(built: Path, path: str) -> None:
    given = told(page(built), asked(path))
    assert given
    assert "default-src 'none'" in given.headers["Content-Security-Policy"]
    assert "unsafe" not in given.headers["Content-Security-Policy"]
    assert given.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["/nothing", "/../pyproject.toml", "/assets/../../x", "/%2e%2e/x", "/index.html", "//"]
)
def test_nothing_but_the_page_is_served(built: Path, path: str) -> None:
    given = told(page(built), asked(path))
    assert given.status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "BREW"])
def test_only_get_is_answered(built: Path, method: str) -> None:
    given = told(page(built), asked("/", method))
    assert given.status == 405
    assert given.headers["Allow"] == "GET"


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz"])
def test_a_name_that_was_made_to_lead_here_gets_nothing(built: Path, path: str) -> None:
    given = told(page(built), asked(path, host="evil.example"))
    assert given.status == 403
    assert told(page(built), asked(path, host="hub.local:8765")).status == 200


def test_a_page_of_another_origin_gets_no_websocket_and_an_edge_does(built: Path) -> None:
    shown = page(built)
    refused = told(shown, asked(upgrade="WebSocket", origin="http://evil.example"))
    assert refused.status == 403
    assert shown.answer(asked(upgrade="websocket", origin="http://127.0.0.1:8765")) is None
    assert shown.answer(asked(upgrade="websocket", host="whatever.example")) is None


def test_metrics_need_a_key_where_others_reach_the_hub(built: Path) -> None:
    shown = page(built, open=True)
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic x"}, {"authorization": KEYS.guest}):
        refused = told(shown, asked("/metrics", **headers))
        assert refused.status == 401
    assert told(shown, asked("/metrics", authorization=f"Bearer {KEYS.guest}")).status == 200
    assert told(page(built), asked("/metrics")).status == 200
    assert told(shown, asked("/healthz")).status == 200


def test_a_hub_without_the_page_says_so_and_serves_the_rest(tmp_path: Path) -> None:
    shown = page(tmp_path / "none")
    assert not shown.built
    missing = told(shown, asked("/"))
    assert missing.status == 404
    assert b"not built" in missing.body
    assert told(shown, asked("/healthz")).status == 200


async def test_health_and_metrics_come_from_the_port_that_edges_join_by(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rounds=2, wait_for=2) as hub, edges(agent(hub.url, "a", Adder())):
        await hub.until(EdgeJoined, edge="a")
        status, headers, body = await get(hub.url, "/healthz")
        assert (status, headers["content-type"]) == (200, "application/json")
        assert json.loads(body)["status"] == "ok"
        status, _, body = await get(hub.url, "/metrics", accept_encoding="gzip")
        assert status == 200
        names = {family.name for family in text_string_to_metric_families(body.decode())}
        assert any(name.startswith("fedhub_") for name in names)
        async with edges(agent(hub.url, "b", Adder())):
            await hub.ended()


@pytest.mark.parametrize(
    ("request_", "body"),
    [
        ("POST / HTTP/1.1\nhost: 127.0.0.1", b""),
        ("POST / HTTP/1.1\nhost: 127.0.0.1\ncontent-length: 5", b"hello"),
        ("POST / HTTP/1.1\nhost: 127.0.0.1\ncontent-length: 5000000", b"x" * 5_000_000),
        ("PUT / HTTP/1.1\nhost: 127.0.0.1\ntransfer-encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n"),
        ("HELLO", b""),
    ],
)
async def test_whatever_is_no_get_is_answered_and_not_dropped(tmp_path: Path, request_: str, body: bytes) -> None:
    async with running_hub(tmp_path, wait_for=2) as hub:
        status, headers, said = await http(hub.url, request_, body=body)
        assert (status, headers["allow"]) == (405, "GET")
        assert b"GET" in said


async def test_a_refused_name_is_shown_without_control_characters(tmp_path: Path) -> None:
    async with running_hub(tmp_path, wait_for=2) as hub:
        status, _, body = await get(hub.url, "/", host="\x1b]0;evil\x07<script>\x9b31m")
        assert status in (400, 403, 405)
        assert body.decode().replace("\n", "").isprintable()


async def test_keys_are_not_in_what_a_hub_says_to_a_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async with running_hub(tmp_path, wait_for=2) as hub:
        await hub.until(WaitingForEdges)
        keys = json.loads((tmp_path / "keys.json").read_text())
        said = "".join(capfd.readouterr())
        assert hub.url in said
        assert keys["guest"] not in said
        assert keys["operator"] not in said
    for kept in ("config.json", "events.jsonl"):
        assert keys["guest"] not in (hub.folder / kept).read_text()
    assert (tmp_path / "keys.json").stat().st_mode & 0o077 == 0
