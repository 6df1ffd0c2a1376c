"""Disks that misbehave on demand, and one that remembers all it was told, so that crashes can be tried afterwards."""

import errno
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, chain, combinations, product
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from shared.disk import RealDisk, SyncError

Parts = Iterable[bytes | memoryview]
T = TypeVar("T")


class QuickDisk(RealDisk):
    """A disk for folders that need not outlive the test: it never waits for the metal."""

    def sync(self, path: Path) -> None:
        pass

    def sync_folder(self, folder: Path) -> None:
        pass


@contextmanager
def quick_folder() -> Iterator[Path]:
    """Give a folder in memory where the system has such, for hundreds of SQLite's transactions that need no metal."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@dataclass
class FailingDisk:
    """A real disk that fails at one operation, or from one operation on until it is healed.

    Args:
        code: the system's error: errno.EIO, errno.ENOSPC, ...
        at: which operation fails, counted from 1; 0 for none.
        lasting: whether all that come after it fail too.
        only: the operations that count; all if it is empty.
    """

    code: int = errno.EIO
    at: int = 0
    lasting: bool = False
    only: frozenset[str] = frozenset()
    asked: list[str] = field(default_factory=list)
    """The operations that counted, with the name of what they were for."""
    real: RealDisk = field(default_factory=QuickDisk)

    def heal(self) -> None:
        """Fail no more."""
        self.at = 0

    def _due(self, verb: str, path: Path) -> bool:
        if self.only and verb not in self.only:
            return False
        self.asked.append(f"{verb} {path.name}")
        return 0 < self.at <= len(self.asked) if self.lasting else len(self.asked) == self.at

    def _step(self, verb: str, path: Path) -> None:
        if self._due(verb, path):
            raise (SyncError if verb.startswith("sync") else OSError)(self.code, os.strerror(self.code))

    def write(self, path: Path, parts: Parts) -> None:
        if self._due("write", path):
            whole = b"".join(parts)
            self.real.write(path, [whole[: len(whole) // 2]])
            raise OSError(self.code, os.strerror(self.code))
        self.real.write(path, parts)

    def put(self, path: Path, at: int, parts: Parts) -> None:
        if self._due("put", path):
            whole = b"".join(parts)
            self.real.put(path, at, [whole[: len(whole) // 2]])
            raise OSError(self.code, os.strerror(self.code))
        self.real.put(path, at, parts)

    def cut(self, path: Path, length: int) -> None:
        self._step("cut", path)
        self.real.cut(path, length)

    def sync(self, path: Path) -> None:
        self._step("sync", path)
        self.real.sync(path)

    def sync_folder(self, folder: Path) -> None:
        self._step("sync_folder", folder)
        self.real.sync_folder(folder)

    def rename(self, path: Path, new: Path) -> None:
        self._step("rename", path)
        self.real.rename(path, new)

    def remove(self, path: Path) -> None:
        self._step("remove", path)
        self.real.remove(path)

    def read(self, path: Path) -> bytes:
        self._step("read", path)
        return self.real.read(path)

    def names(self, folder: Path) -> list[str]:
        self._step("names", folder)
        return self.real.names(folder)

    def make_folder(self, folder: Path) -> None:
        self._step("make_folder", folder)
        self.real.make_folder(folder)


CHANGES = frozenset({"write", "put", "cut", "sync", "sync_folder", "rename", "remove", "make_folder"})
"""The operations that need space, or make something durable."""


# --- crashes ---


class Step(NamedTuple):
    """One operation, with paths relative to the disk's root."""

    verb: Literal["write", "put", "cut", "sync", "sync_folder", "rename", "remove"]
    path: Path
    parts: tuple[bytes, ...] = ()
    at: int = 0
    new: Path = Path()

    @property
    def data(self) -> bytes:
        """All that is written."""
        return b"".join(self.parts)


class Moment(NamedTuple):
    """An instant at which the machine may stop."""

    steps: int
    """How many operations had been done."""
    database: bytes | None
    """What SQLite's file held; its transactions are atomic, and durable when `execute` returns."""
    owed: object
    """What had been promised by then."""


class RecordingDisk(RealDisk):
    """A disk in memory of which every operation is written down, with the instants between them.

    A mutant of the code under test can be had here too: operations for which `skip` is true never reach the disk's
    safety, as if the code had not asked for them.
    """

    def __init__(self, root: Path, *, skip: Callable[[Step], bool] = lambda step: False) -> None:
        self._root = root
        self._skip = skip
        self.last: int | None = None
        """After so many operations the process is killed: none is done any more. What was done stays, in memory."""
        self.steps: list[Step] = []
        self.moments: list[Moment] = []
        self.owed: object = None

    def moment(self) -> None:
        """Note an instant at which the machine may stop."""
        database = self._root / "journal.sqlite"
        moment = Moment(len(self.steps), database.read_bytes() if database.exists() else None, self.owed)
        if not self.moments or self.moments[-1] != moment:
            self.moments.append(moment)

    def _note(self, step: Step) -> None:
        self.moment()
        if self.last is not None and len(self.steps) >= self.last:
            raise OSError(errno.EIO, "killed")
        if not self._skip(step):
            self.steps.append(step)

    def _of(self, path: Path) -> Path:
        return path.relative_to(self._root) if path.is_relative_to(self._root) else Path("..")

    def write(self, path: Path, parts: Parts) -> None:
        kept = tuple(bytes(part) for part in parts)
        self._note(Step("write", self._of(path), kept))
        super().write(path, kept)
        self.moment()

    def put(self, path: Path, at: int, parts: Parts) -> None:
        kept = tuple(bytes(part) for part in parts)
        self._note(Step("put", self._of(path), kept, at))
        super().put(path, at, kept)
        self.moment()

    def cut(self, path: Path, length: int) -> None:
        self._note(Step("cut", self._of(path), at=length))
        super().cut(path, length)
        self.moment()

    def sync(self, path: Path) -> None:
        self._note(Step("sync", self._of(path)))
        self.moment()

    def sync_folder(self, folder: Path) -> None:
        self._note(Step("sync_folder", self._of(folder)))
        self.moment()

    def rename(self, path: Path, new: Path) -> None:
        self._note(Step("rename", self._of(path), new=self._of(new)))
        super().rename(path, new)
        self.moment()

    def remove(self, path: Path) -> None:
        self._note(Step("remove", self._of(path)))
        super().remove(path)
        self.moment()

    def make_folder(self, folder: Path) -> None:  # durable when it returns
        folder.mkdir(parents=True, exist_ok=True)


@dataclass
class _Inode:
    """A file's content: what is on the metal, and what was asked for since."""

    durable: bytes = b""
    pending: list[Step] = field(default_factory=list)

    def now(self) -> bytes:
        content = self.durable
        for step in self.pending:
            content = _after(content, step)
        return content

    def possible(self) -> set[bytes]:
        """Give all contents that a crash can leave: any changes lost, or those up to one, and that one torn."""
        contents = set()
        for kept in _subsets(self.pending):
            content = self.durable
            for step in kept:
                content = _after(content, step)
            contents.add(content)
        content = self.durable
        for step in self.pending:
            contents |= _torn(content, step)
            content = _after(content, step)
        return contents


def _after(content: bytes, step: Step) -> bytes:
    match step.verb:
        case "write":
            return step.data
        case "put":
            return _laid(content, step.at, step.data)
        case _:
            return content[: step.at]


def _laid(content: bytes, at: int, data: bytes) -> bytes:
    """Lay `data` over `content`; a file that is too short is filled with zeros."""
    return content[:at].ljust(at, b"\0") + data + content[at + len(data) :]


def _torn(content: bytes, step: Step) -> set[bytes]:
    """Give what a change leaves that is cut off in the middle: its beginning, its end or its length, over the old."""
    size = len(step.data)
    seams = accumulate(len(part) for part in step.parts)
    left = {_laid(content, step.at + size, b"")}  # the length was written, the data was not
    for end in (1, 13, size - 1, *range(0, size, size // 8 + 1), *seams):
        if 0 <= end <= size:
            left.add(_laid(content, step.at, step.data[:end]))
            left.add(_laid(content, step.at + end, step.data[end:]))
            if step.verb == "write":
                left.add(step.data[:end].ljust(size, b"\0"))
                left.add(step.data[:end])
    return left


class _Rename(NamedTuple):
    """A change of names that happens at one stroke: `old` goes, if it still is that file, and `new` is there."""

    inode: _Inode
    old: Path | None
    new: Path | None


class Metal:
    """What a disk's operations may have left on the metal. Names and data become durable separately."""

    def __init__(self) -> None:
        self._now: dict[Path, _Inode] = {}
        self._durable: dict[Path, _Inode] = {}
        self._pending: list[_Rename] = []

    def do(self, step: Step) -> None:
        """Do one operation."""
        inode = self._now.get(step.path)
        match step.verb:
            case "write" | "put" | "cut":
                if inode is None:
                    inode = _Inode()
                    self._change(_Rename(inode, None, step.path))
                inode.pending.append(step)
            case "sync":
                assert inode is not None
                inode.durable = inode.now()
                inode.pending.clear()
            case "rename":
                assert inode is not None
                self._change(_Rename(inode, step.path, step.new))
            case "remove":
                if inode is not None:
                    self._change(_Rename(inode, step.path, None))
            case "sync_folder":
                for change in self._pending:
                    if step.path in {name.parent for name in (change.old, change.new) if name}:
                        _apply(self._durable, change)
                self._pending = [
                    change
                    for change in self._pending
                    if step.path not in {name.parent for name in (change.old, change.new) if name}
                ]

    def _change(self, change: _Rename) -> None:
        _apply(self._now, change)
        self._pending.append(change)

    def possible(self) -> Iterator[dict[Path, bytes]]:
        """Give all sets of files that a crash can leave."""
        seen = set()
        for kept in _subsets(self._pending):
            names = dict(self._durable)
            for change in kept:
                _apply(names, change)
            inodes = list({id(inode): inode for inode in names.values()}.values())
            for contents in product(*(sorted(inode.possible()) for inode in inodes)):
                content = {id(inode): held for inode, held in zip(inodes, contents, strict=True)}
                files = {path: content[id(inode)] for path, inode in names.items()}
                key = frozenset(files.items())
                if key not in seen:
                    seen.add(key)
                    yield files


def _apply(names: dict[Path, _Inode], change: _Rename) -> None:
    if change.old and names.get(change.old) is change.inode:
        del names[change.old]
    if change.new:
        names[change.new] = change.inode


def _subsets(changes: list[T]) -> Iterator[tuple[T, ...]]:
    return chain.from_iterable(combinations(changes, size) for size in range(len(changes) + 1))
