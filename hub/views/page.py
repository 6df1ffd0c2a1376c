"""Answers plain HTTP on the hub's port: the live page, metrics for Prometheus, and whether the hub is well."""

import gzip
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from hub.rules.access import Access, Rank
from shared import __version__
from shared.console import printable
from shared.link import Answer, Asked

BUILT = Path(__file__).parent.parent / "web" / "dist"
"""Where the page is, once it is built."""

NOT_BUILT = "the page is not built (make page builds it, with Node); everything else works, and so does fedhub watch"

_KINDS = {  # the system may have been told others
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".md": "text/plain; charset=utf-8",
}

_STRICT = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class Asset:
    """One file of the page, as it is sent."""

    plain: bytes
    packed: bytes
    headers: Mapping[str, str]

    @classmethod
    def of(cls, path: str, body: bytes) -> "Asset":
        """Compress a file, once and for all."""
        named_by_content = path.startswith("/assets/")
        headers = {
            "Content-Type": _KINDS.get(Path(path).suffix, "application/octet-stream"),
            "ETag": f'W/"{hashlib.sha256(body).hexdigest()[:16]}"',
            "Cache-Control": "public, max-age=31536000, immutable" if named_by_content else "no-cache",
            "Vary": "Accept-Encoding",
        }
        return cls(body, gzip.compress(body, mtime=0), headers)


class Page:
    """What the hub's port says to a browser that does not ask for a websocket."""

    def __init__(
        self,
        access: Access,
        *,
        metrics: Callable[[], tuple[bytes, str]],
        health: Callable[[], Mapping[str, object]],
        folder: Path = BUILT,
    ) -> None:
        """Read the page, if it is built.

        Args:
            access: who may come in.
            metrics: gives Prometheus's text, and its content type.
            health: says how the hub is.
            folder: where the built page is.
        """
        self._access = access
        self._metrics = metrics
        self._health = health
        self._assets: dict[str, Asset] = {}
        for file in sorted(folder.rglob("*")) if (folder / "index.html").is_file() else ():
            if file.is_file():
                path = f"/{file.relative_to(folder).as_posix()}"
                self._assets[path] = Asset.of(path, file.read_bytes())
        if self.built:
            self._assets["/"] = self._assets.pop("/index.html")

    @property
    def built(self) -> bool:
        """Whether there is a page to show."""
        return bool(self._assets)

    def answer(self, asked: Asked) -> Answer | None:
        """Answer a request; None lets a websocket in."""
        host = asked.headers.get("host", "")
        if asked.websocket:
            if self._access.may_call(host, asked.headers.get("origin")):
                return None
            return _plain(HTTPStatus.FORBIDDEN, "a page of another origin may not talk to this hub")
        if not self._access.is_ours(host):
            name = f"this hub is not called {printable(host)!r}"
            return _plain(HTTPStatus.FORBIDDEN, f"{name}; if it is, start it with --hosts and that name")
        if asked.method != "GET":
            return _plain(HTTPStatus.METHOD_NOT_ALLOWED, "this hub answers GET alone", Allow="GET")
        match path := asked.path.partition("?")[0]:
            case "/healthz":
                body = json.dumps({"status": "ok", "version": __version__, **self._health()}).encode()
                return _answer(HTTPStatus.OK, body, {"Content-Type": "application/json", "Cache-Control": "no-store"})
            case "/metrics":
                return self._measured(asked)
            case _ if asset := self._assets.get(path):
                return _asset(asset, asked)
            case "/":
                return _plain(HTTPStatus.NOT_FOUND, NOT_BUILT)
            case _:
                return _plain(HTTPStatus.NOT_FOUND, "there is nothing here; the page is at /")

    def _measured(self, asked: Asked) -> Answer:
        """Give the metrics: to whoever shows a key, where others reach the hub."""
        scheme, _, key = asked.headers.get("authorization", "").partition(" ")
        known = scheme.lower() == "bearer" and self._access.rank(key.strip()) > Rank.STRANGER
        if self._access.open and not known:
            reason = "metrics need one of the hub's keys: authorization: Bearer KEY"
            return _plain(HTTPStatus.UNAUTHORIZED, reason, **{"WWW-Authenticate": "Bearer"})
        body, kind = self._metrics()
        return _answer(HTTPStatus.OK, body, {"Content-Type": kind, "Cache-Control": "no-store"})


def _asset(asset: Asset, asked: Asked) -> Answer:
    known = {tag.strip().removeprefix("W/") for tag in asked.headers.get("if-none-match", "").split(",")}
    if asset.headers["ETag"].removeprefix("W/") in known:
        return _answer(HTTPStatus.NOT_MODIFIED, b"", asset.headers)
    if _takes_gzip(asked.headers.get("accept-encoding", "")):
        return _answer(HTTPStatus.OK, asset.packed, {**asset.headers, "Content-Encoding": "gzip"})
    return _answer(HTTPStatus.OK, asset.plain, asset.headers)


def _takes_gzip(offers: str) -> bool:
    """Read an Accept-Encoding header (RFC 9110, section 12.5.3)."""
    for offer in offers.split(","):
        coding, _, quality = offer.partition(";")
        if coding.strip().lower() == "gzip":
            return quality.replace(" ", "").lower() not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _plain(status: HTTPStatus, sentence: str, **headers: str) -> Answer:
    body = f"{sentence}\n".encode()
    return _answer(status, body, {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store", **headers})


def _answer(status: HTTPStatus, body: bytes, headers: Mapping[str, str]) -> Answer:
    return Answer(status, body, {**_STRICT, **headers})
