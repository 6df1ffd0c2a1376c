"""Decides who may join, watch and command, and which addresses a browser may call this hub by."""

import hmac
import ipaddress
import re
from dataclasses import dataclass
from enum import IntEnum
from urllib.parse import urlsplit

from shared.messages import Role

_HOST = re.compile(r"[A-Za-z0-9._:\[\]-]+")


class Rank(IntEnum):
    """What a key lets its bearer do."""

    STRANGER = 0
    GUEST = 1
    """Join and watch."""
    OPERATOR = 2
    """Give orders too."""


@dataclass(frozen=True)
class Keys:
    """The two keys of a hub; they travel in the fragment of its address, and so reach no log."""

    guest: str
    operator: str


@dataclass
class Access:
    """Who may come in.

    Args:
        keys: of this hub; they are exchanged if another hub that keeps its runs in the same place was first.
        open: whether others than this machine reach the hub: then edges must show a key too.
        names: host names, in lower case, by which the hub is reached, besides localhost and plain addresses.
    """

    keys: Keys
    open: bool
    names: frozenset[str] = frozenset()

    def rank(self, key: str) -> Rank:
        """Tell what `key` allows; comparing takes as long for a key that is nearly right as for any other."""
        if hmac.compare_digest(key.encode(), self.keys.operator.encode()):
            return Rank.OPERATOR
        return Rank.GUEST if hmac.compare_digest(key.encode(), self.keys.guest.encode()) else Rank.STRANGER

    def admits(self, role: Role, key: str) -> bool:
        """Tell whether somebody may come in. Whoever watches shows a key, an edge only where others reach the hub."""
        watches = role in (Role.WATCHER, Role.VIEWER)
        return self.rank(key) > Rank.STRANGER or not (watches or self.open)

    def is_ours(self, host: str) -> bool:
        """Tell whether a Host header names this hub.

        A page elsewhere can have a name of its own lead to this machine ("DNS rebinding"), and its visitors' browsers
        then take the hub for a part of it; but it cannot make them say another name.
        """
        if not _HOST.fullmatch(host):
            return False
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if name in self.names or name == "localhost":
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def may_call(self, host: str, origin: str | None) -> bool:
        """Tell whether a browser's page may talk to the hub; `origin` is None for whoever is no browser.

        A page of another origin may not: its visitor would lend it what this hub only tells its own.
        """
        if origin is None:
            return True
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower() and self.is_ours(host)
