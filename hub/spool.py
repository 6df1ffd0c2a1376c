"""Keeps the open round on the disk: who was asked, and every accepted update before it is acknowledged."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from shared.disk import Disk, SyncError
from shared.messages import Plan

_SUFFIX = ".spool"
_LENGTH, _HASH = 12, 32  # 4 bytes for the head's length, 8 for the message's


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """A round as it was asked: the first record of its spool."""

    run: str
    round: int
    attempt: int
    model: str
    cohort: tuple[str, ...]
    goal: int
    quorum: int
    seconds: float
    """Time that the cohort was given."""
    weight_cap: int
    """The largest weight that an update of this round can have."""
    algorithm: str
    plan: Plan
    """How the cohort was told to train."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """Who sent an accepted update and when: the head of each further record."""

    edge: str
    after: float
    """Seconds between the round's beginning and the update's arrival."""


@dataclass(frozen=True)
class Spooled:
    """A round as it was found on the disk."""

    opening: Opening
    updates: tuple[tuple[Kept, memoryview], ...]
    """Each update's head, and its message as it came over the wire."""


class Spool:
    """One file for each try at a round: records of a length, a SHA-256, a head and a body.

    A record is whole or it does not count: a crash in the middle of one leaves a tail that fails its hash, and was
    never acknowledged. One sync makes all records durable that were added before it, so updates that arrive together
    share it (one sync of 6.6 MB costs 7.6 ms).

    Methods raise OSError as the disk does.
    """

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk
        self._path = folder / "none"
        self._length = 0
        self.is_open = False
        """Whether a round is open here."""

    def open(self, opening: Opening) -> None:
        """Begin a round: durable when this returns."""
        self._path = self._folder / f"r{opening.round:05d}-{opening.attempt}{_SUFFIX}"
        record = _record(msgspec.msgpack.encode(opening), memoryview(b""))
        self._disk.write(self._path, record)
        self._disk.sync(self._path)
        self._disk.sync_folder(self._folder)
        self._length = sum(len(part) for part in record)
        self.is_open = True

    def add(self, kept: Kept, message: memoryview) -> None:
        """Add an accepted update; it is durable after the next `sync`. If it fails, the spool is as it was."""
        record = _record(msgspec.msgpack.encode(kept), message)
        try:
            self._disk.append(self._path, record)
        except OSError:
            self._cut()
            raise
        self._length += sum(len(part) for part in record)

    def sync(self) -> None:
        """Return when all updates that were added are durable."""
        self._disk.sync(self._path)

    def _cut(self) -> None:
        """Take back what was added of a record. If that fails, nothing may be added any more: it could not be read."""
        try:
            self._disk.cut(self._path, self._length)
        except OSError as error:
            raise SyncError(error.errno, error.strerror) from None

    def find(self, *, round: int, model: str) -> tuple[Spooled | None, str]:
        """Take up the newest try at `round` that began with `model`, and remove what belongs to no open round.

        Returns:
            it, durable, or None; and a sentence if more was written of the round than can be read, or nothing.
        """
        found: Spooled | None = None
        lost: list[str] = []
        for name in self._disk.names(self._folder):
            if not name.endswith(_SUFFIX):
                continue
            body = self._disk.read(self._folder / name)
            spooled, length = read_spool(body)
            if length < len(body) and name.startswith(f"r{round:05d}-"):
                lost.append(
                    f"{self._folder / name} ends in {len(body) - length} bytes that are no whole update, cut short by "
                    "a crash or damaged; whose answer that was is asked again"
                )
            opening = spooled.opening if spooled else None
            if spooled and opening and opening.round == round and opening.model == model:
                if found and found.opening.attempt > opening.attempt:
                    continue
                found, self._path, self._length = spooled, self._folder / name, length
        for name in self._disk.names(self._folder):
            if name.endswith(_SUFFIX) and not (found and name == self._path.name):
                self._disk.remove(self._folder / name)
        if found:
            # A hub that was killed leaves what it wrote in the system's memory only. From now on it counts, so it is
            # made durable, less a torn record at its end.
            self._disk.cut(self._path, self._length)
            self._disk.sync(self._path)
            self._disk.sync_folder(self._folder)
            self.is_open = True
        return found, ". ".join(lost)

    def close(self, *, keep_as: Path | None = None) -> None:
        """End the round: remove its file, or keep it under another name. Neither needs to be durable at once."""
        if keep_as is None:
            self._disk.remove(self._path)
        else:
            self._disk.rename(self._path, keep_as)
        self.is_open = False


def read_spool(body: bytes) -> tuple[Spooled | None, int]:
    """Read a spool's records as far as they are whole.

    Returns:
        what it holds, or None if not even its opening is whole; and how many bytes that took.
    """
    records = list(_records(memoryview(body)))
    if not records:
        return None, 0
    try:
        opening = msgspec.msgpack.decode(records[0][0], type=Opening)
        updates = tuple((msgspec.msgpack.decode(head, type=Kept), message) for head, message, _ in records[1:])
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None, 0
    return Spooled(opening, updates), records[-1][2]


def _record(head: bytes, message: memoryview) -> list[bytes | memoryview]:
    digest = hashlib.sha256(head)
    digest.update(message)
    lengths = len(head).to_bytes(4, "big") + message.nbytes.to_bytes(8, "big")
    return [lengths, digest.digest(), head, message]


def _records(body: memoryview) -> Iterator[tuple[memoryview, memoryview, int]]:
    """Give head, message and end of each whole record, up to the first that is not."""
    at = 0
    while at + _LENGTH + _HASH <= len(body):
        head_length = int.from_bytes(body[at : at + 4], "big")
        message_length = int.from_bytes(body[at + 4 : at + _LENGTH], "big")
        start = at + _LENGTH + _HASH
        end = start + head_length + message_length
        if end > len(body) or hashlib.sha256(body[start:end]).digest() != body[at + _LENGTH : start]:
            return
        yield body[start : start + head_length], body[start + head_length : end], end
        at = end
