"""Keeps the open round on the disk: who was asked, and every accepted update before it is acknowledged."""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import xxhash

from shared.disk import Disk
from shared.messages import Plan

_SUFFIX = ".spool"
SPARE = f"spare{_SUFFIX}"
"""Name of the file that the next round is opened in: that of a former one, to be overwritten, or none."""
_LENGTHS, _HASH = 12, 16  # 4 bytes for the head's length, 8 for the message's
_END = _LENGTHS + _HASH  # bytes of a record of nothing
_NOTHING = memoryview(b"")


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
    fleet: int = 0
    """How many trainers were there when the cohort was chosen."""
    averaged: tuple[str, ...] = ()
    """Tensors that the algorithm's step leaves alone."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """Who sent an accepted update and when: the head of each further record."""

    edge: str
    after: float
    """Seconds between the round's beginning and the update's arrival."""
    allowed: float | None = None
    """Seconds from the round's beginning to its deadline, as it was then: the operator may change it."""


@dataclass(frozen=True)
class Spooled:
    """A round as it was found on the disk."""

    opening: Opening
    updates: tuple[tuple[Kept, memoryview], ...]
    """Each update's head, and its message as it came over the wire."""


@dataclass(frozen=True)
class Reading:
    """What there is to read in a spool's file."""

    spooled: Spooled | None
    """What it holds as far as it is whole, or None if not even its opening is."""
    length: int
    """Where a further record belongs."""
    hash: bytes
    """What a further record goes on from."""
    ended: bool
    """Whether the spool ends there as it should; otherwise what follows was cut short, or is damaged."""


class Spool:
    """One file for each try at a round: records of lengths, a hash, a head and a body, and an end: a record of nothing.

    The file of a round that is over is used again, as overwriting takes half the time of making one (`RealDisk`). So
    what is behind the end may be anything. Each record's hash also covers the hash before it, and the first of all is
    the last that was used here: a record of a former round never fits, wherever it lies.

    A record is whole or it does not count: a crash in the middle of one leaves a torn record or none, and neither was
    acknowledged. An end that is not there tells that something is missing. One sync makes all records durable that were
    added before it, so updates that arrive together share it (one sync of 6.6 MB costs 2.5 to 7.6 ms).

    The hash is XXH3, for torn writes and rot, and no defence against enemies: whoever can write into the run folder
    could hash anew as well. It takes 0.1 to 0.3 ms for 6.65 MB; SHA-256 takes 3.2 to 3.8.

    Methods raise OSError as the disk does.
    """

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk
        self._path = folder / "none"
        self._length = 0
        self._hash = bytes(_HASH)
        self.is_open = False
        """Whether a round is open here."""

    def open(self, opening: Opening) -> None:
        """Begin a round: durable when this returns."""
        spare = self._folder / SPARE
        front, after = _record(self._hash, msgspec.msgpack.encode(opening))
        self._disk.put(spare, 0, [self._hash, front, _end(after)])
        self._disk.sync(spare)
        self._path = self._folder / _name(opening.round, opening.attempt)
        self._disk.rename(spare, self._path)
        self._disk.sync_folder(self._folder)
        self._length, self._hash = _HASH + len(front), after
        self.is_open = True

    def add(self, kept: Kept, message: memoryview) -> None:
        """Add an accepted update; it is durable after the next `sync`. If it fails, the next takes the same place."""
        front, after = _record(self._hash, msgspec.msgpack.encode(kept), message)
        self._disk.put(self._path, self._length, [front, message, _end(after)])
        self._length, self._hash = self._length + len(front) + message.nbytes, after

    def sync(self) -> None:
        """Return when all updates that were added are durable."""
        self._disk.sync(self._path)

    def find(self, *, round: int, model: str) -> tuple[Spooled | None, str]:
        """Take up the newest try at `round` that began with `model`, and remove what belongs to no open round.

        Returns:
            it, durable, or None; and a sentence if more was written of the round than can be read, or nothing.
        """
        found: Reading | None = None
        attempt = 0
        lost: list[str] = []
        names = [name for name in self._disk.names(self._folder) if name.endswith(_SUFFIX)]
        for name in names:
            if not name.startswith(f"r{round:05d}-"):
                continue
            body = self._disk.read(self._folder / name)
            reading = read_spool(body)
            opening = reading.spooled.opening if reading.spooled else None
            if opening and name != _name(opening.round, opening.attempt):
                continue  # it was overwritten for another round, and the power went before its new name was durable
            if not reading.ended and reading.length < len(body):
                lost.append(
                    f"{self._folder / name} ends in {len(body) - reading.length} bytes that are no whole update, cut "
                    "short by a crash or damaged; whose answer that was is asked again"
                )
            if opening and opening.model == model and opening.attempt > attempt:
                found, attempt = reading, opening.attempt
        path = self._folder / _name(round, attempt)
        for name in names:
            if name != path.name:
                self._disk.remove(self._folder / name)
        if found:
            self._path, self._length, self._hash = path, found.length, found.hash
            # A hub that was killed leaves what it wrote in the system's memory only. From now on it counts, so it is
            # made durable, with an end in place of a torn record.
            if not found.ended:
                self._disk.put(path, found.length, [_end(found.hash)])
            self._disk.sync(path)
            self._disk.sync_folder(self._folder)
            self.is_open = True
        return found.spooled if found else None, ". ".join(lost)

    def close(self, *, keep_as: Path | None = None) -> None:
        """End the round: spare its file, or keep it under another name. Neither needs to be durable at once."""
        if keep_as:
            self._disk.cut(self._path, self._length + _END)
        self._disk.rename(self._path, keep_as or self._folder / SPARE)
        self.is_open = False

    def close_left(self, *, round: int, attempt: int, keep_as: Path) -> None:
        """Do what a crash has kept `close` from, if it has: keep the updates of a try that counted.

        If they are not all there, the file was being overwritten for the next round: nobody asked to keep them.
        """
        name = _name(round, attempt)
        if name not in self._disk.names(self._folder):
            return
        reading = read_spool(self._disk.read(self._folder / name))
        opening = reading.spooled.opening if reading.spooled else None
        if opening and name == _name(opening.round, opening.attempt) and reading.ended:
            self._path, self._length = self._folder / name, reading.length
            self.close(keep_as=keep_as)


def read_spool(body: bytes) -> Reading:
    """Read a spool's records as far as they are whole."""
    records: list[tuple[memoryview, memoryview]] = []
    at, before, ended = _HASH, body[:_HASH], False
    while record := _read(memoryview(body)[at:], before):
        head, message, after = record
        if not head:
            ended = True
            break
        records.append((head, message))
        at, before = at + _END + len(head) + len(message), after
    try:
        opening = msgspec.msgpack.decode(records[0][0], type=Opening)
        updates = tuple((msgspec.msgpack.decode(head, type=Kept), message) for head, message in records[1:])
    except (IndexError, msgspec.DecodeError, msgspec.ValidationError):
        return Reading(None, 0, before, ended=False)
    return Reading(Spooled(opening, updates), at, before, ended)


def _name(round: int, attempt: int) -> str:
    return f"r{round:05d}-{attempt}{_SUFFIX}"


def _record(before: bytes, head: bytes, message: memoryview = _NOTHING) -> tuple[bytes, bytes]:
    """Give all of a record but its message, and its hash."""
    lengths = len(head).to_bytes(4, "big") + message.nbytes.to_bytes(8, "big")
    after = _hash(before, lengths, head, message)
    return lengths + after + head, after


def _end(before: bytes) -> bytes:
    return _record(before, b"")[0]


def _read(body: memoryview, before: bytes) -> tuple[memoryview, memoryview, bytes] | None:
    """Give head, message and hash of the record that `body` begins with, if that is whole."""
    lengths, after = body[:_LENGTHS], bytes(body[_LENGTHS:_END])
    middle = _END + int.from_bytes(lengths[:4], "big")
    end = middle + int.from_bytes(lengths[4:], "big")
    head, message = body[_END:middle], body[middle:end]
    if len(body) < max(end, _END) or _hash(before, lengths, head, message) != after:
        return None
    return head, message, after


def _hash(before: bytes, *parts: bytes | memoryview) -> bytes:
    state = xxhash.xxh3_128(before)
    for part in parts:
        state.update(part)
    return state.digest()
