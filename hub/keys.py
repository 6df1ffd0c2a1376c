"""Keeps a hub's two keys beside its runs, for nobody else to read: a hub that comes back is known by the same ones."""

import json
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path

from hub.rules.access import Keys

FILE = "keys.json"


def read_keys(folder: Path) -> Keys | None:
    """Give the keys of the hub that keeps its runs in `folder`; None if there are none, or none that can be read."""
    try:
        kept = json.loads((folder / FILE).read_text("utf-8"))
        guest, operator = kept["guest"], kept["operator"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    sound = all(isinstance(key, str) and 12 <= len(key) <= 64 for key in (guest, operator)) and guest != operator
    return Keys(guest, operator) if sound else None


def keys_of(folder: Path) -> Keys:
    """Give the keys of the hub that keeps its runs in `folder`; new ones if there are none."""
    return read_keys(folder) or Keys(guest=secrets.token_urlsafe(9), operator=secrets.token_urlsafe(12))


def keep_keys(folder: Path, keys: Keys) -> Keys:
    """Write a hub's keys down, unless another hub was first; give those that hold.

    If they cannot be written, they hold until the hub stops.
    """
    if kept := read_keys(folder):
        return kept
    file = folder / FILE
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, whole = tempfile.mkstemp(dir=folder)  # readable for its owner alone
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as writing:
                json.dump({"guest": keys.guest, "operator": keys.operator}, writing)
            try:
                os.link(whole, file)
            except FileExistsError:  # another hub's, or one that makes no sense
                if read_keys(folder) is None:
                    Path(whole).replace(file)
        finally:
            Path(whole).unlink(missing_ok=True)
    return read_keys(folder) or keys
