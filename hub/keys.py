"""Keeps a hub's two keys beside its runs, for nobody else to read: a hub that comes back is known by the same ones."""

import json
import os
import secrets
from contextlib import suppress
from pathlib import Path

from hub.rules.access import Keys

_FILE = "keys.json"


def read_keys(folder: Path) -> Keys | None:
    """Give the keys of the hub that keeps its runs in `folder`; None if there are none, or none that can be read."""
    try:
        kept = json.loads((folder / _FILE).read_text("utf-8"))
        guest, operator = kept["guest"], kept["operator"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    sound = all(isinstance(key, str) and 12 <= len(key) <= 64 for key in (guest, operator)) and guest != operator
    return Keys(guest, operator) if sound else None


def keys_of(folder: Path) -> Keys:
    """Give the keys of the hub that keeps its runs in `folder`; new ones if there are none."""
    return read_keys(folder) or Keys(guest=secrets.token_urlsafe(9), operator=secrets.token_urlsafe(12))


def keep_keys(folder: Path, keys: Keys) -> str:
    """Write a hub's keys down, and say where. If that cannot be done they hold until it stops."""
    file = folder / _FILE
    if read_keys(folder) != keys:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            file.unlink(missing_ok=True)
            only_mine = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(only_mine, "w", encoding="utf-8") as kept:
                json.dump({"guest": keys.guest, "operator": keys.operator}, kept)
    return str(file)
