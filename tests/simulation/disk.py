"""A disk that forgets, when the power goes, whatever was not synced: all of it, a part, or a part that was torn."""

import errno
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

_BLOCK = 512  # bytes that a disk writes at one stroke


@dataclass
class Inode:
    """What a file holds now, and what it may hold after the power has gone."""

    now: bytearray = field(default_factory=bytearray)
    length: int = 0
    """How long it is for good."""
    before: dict[int, list[bytes]] = field(default_factory=dict)
    """What each block held that was changed since the last sync: for good, and then in between."""

    def put(self, at: int, part: bytes | memoryview) -> None:
        self._change(min(at, len(self.now)), at + len(part))
        self.now[:] = self.now.ljust(at, b"\0")
        self.now[at : at + len(part)] = part

    def cut(self, length: int) -> None:
        self._change(length, len(self.now))
        del self.now[length:]

    def _change(self, start: int, end: int) -> None:
        for at in range(start - start % _BLOCK, end, _BLOCK):
            self.before.setdefault(at, []).append(bytes(self.now[at : at + _BLOCK]))

    def sync(self) -> None:
        self.length = len(self.now)
        self.before.clear()

    def power_cut(self, dice: random.Random) -> tuple[bool, bool]:
        """Keep a legal state; tell whether something was lost, and whether the file is one that never was.

        Each block that was changed is old or new, or what it was in between; and so is the file's length.
        """
        last = bytes(self.now)
        durable = self._with({at: held[0] for at, held in self.before.items()}, self.length)
        length = dice.choice((self.length, len(last), dice.randint(*sorted((self.length, len(last))))))
        chosen = dict[int, bytes]()
        share = dice.choice((0.0, 0.5, 1.0))  # of the blocks that are not new
        for at, held in sorted(self.before.items()):
            if dice.random() < share:
                chosen[at] = held[0] if share == 1.0 else dice.choice(held)
        kept = self._with(chosen, length)
        self.now = bytearray(kept)
        self.sync()
        return kept != last, kept not in (last, durable)

    def _with(self, blocks: dict[int, bytes], length: int) -> bytes:
        """Give what the file holds now but for some blocks, and as long as said: what was never written is zeros."""
        content = self.now.ljust(max([length, *(at + _BLOCK for at in blocks)]), b"\0")
        for at, block in blocks.items():
            content[at : at + _BLOCK] = block.ljust(_BLOCK, b"\0")
        return bytes(content[:length])


@dataclass(frozen=True, eq=False)
class Change:
    """A change of a folder's names: a file got a name, lost it, or both."""

    name: str
    inode: Inode | None
    old: str | None = None
    """The name that was given up for it."""
    with_it: "tuple[Folder, Change] | None" = None
    """The change of another folder that a move between folders makes at the same stroke."""


@dataclass
class Folder:
    """Names, and the changes of them that are not durable yet, in order."""

    now: dict[str, Inode] = field(default_factory=dict)
    durable: dict[str, Inode] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)

    def change(self, change: Change) -> None:
        self.changes.append(change)
        _apply(self.now, change)

    def sync(self) -> None:
        for change in self.changes:
            if change.with_it is not None:
                folder, arrival = change.with_it
                if arrival in folder.changes:  # a journaling file system writes both or neither
                    _apply(folder.durable, arrival)
        self.durable, self.changes = dict(self.now), []


def _apply(names: dict[str, Inode], change: Change) -> None:
    if change.old is not None:
        names.pop(change.old, None)
    if change.inode is None:
        names.pop(change.name, None)
    else:
        names[change.name] = change.inode


class Platters:
    """What is on the disk. Folders are durable when they are made; everything in them only after it was synced."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.folders: dict[Path, Folder] = {}
        self.lost = 0
        """How many power cuts took something away."""
        self.torn = 0
        """How many power cuts left a file that never was."""

    def power_cut(self) -> None:
        """Keep a legal state: names in order or almost, files with none, a part, or a torn part of what is unsynced."""
        kept = {path: self._kept_changes(folder) for path, folder in self.folders.items()}
        gone = {
            id(change) for path, folder in self.folders.items() for change in folder.changes if change not in kept[path]
        }
        for path, folder in self.folders.items():
            self.lost += len(kept[path]) < len(folder.changes)
            names = dict(folder.durable)
            for change in kept[path]:
                if change.with_it is None or id(change.with_it[1]) not in gone:  # a move never loses the file
                    _apply(names, change)
            folder.now, folder.durable, folder.changes = names, dict(names), []
        for folder in self.folders.values():
            for inode in folder.now.values():  # a file of two names is cut once: it is durable after the first time
                lost, torn = inode.power_cut(self.dice)
                self.lost += lost
                self.torn += torn

    def _kept_changes(self, folder: Folder) -> list[Change]:
        """Choose changes that survive: a journaling file system keeps a beginning, others keep what they like.

        A change of a name never survives without the earlier changes of that name.
        """
        if self.dice.random() < 0.5:
            return folder.changes[: self.dice.randint(0, len(folder.changes))]
        kept, dropped = [], set()
        for change in folder.changes:
            touched = {change.name, change.old} - {None}
            if touched & dropped or self.dice.random() < 0.5:
                dropped |= touched
            else:
                kept.append(change)
        return kept


class SimulatedDisk:
    """The `Disk` of one hub: `shared.disk.Disk` on platters that outlive it.

    Args:
        platters: what is there.
        step: called before each change; it raises `Died` when the machine is dead or dies just now.
        broken: verbs that do nothing, for mutants: `sync_folder`, or `sync` and what the file's name ends with.
    """

    def __init__(self, platters: Platters, step: Callable[[str], None], broken: frozenset[str] = frozenset()) -> None:
        self._platters = platters
        self._step = step
        self._broken = broken

    def write(self, path: Path, parts: Iterable[bytes | memoryview]) -> None:
        self._step("write")
        inode, length = self._lay(path, 0, parts)
        if length < len(inode.now):
            inode.cut(length)

    def put(self, path: Path, at: int, parts: Iterable[bytes | memoryview]) -> None:
        self._step("put")
        self._lay(path, at, parts)

    def _lay(self, path: Path, at: int, parts: Iterable[bytes | memoryview]) -> tuple[Inode, int]:
        folder = self._folder(path.parent)
        inode = folder.now.get(path.name)
        if inode is None:
            inode = Inode()
            folder.change(Change(path.name, inode))
        for part in parts:
            self._step("part")
            inode.put(at, part)
            at += len(part)
        return inode, at

    def cut(self, path: Path, length: int) -> None:
        self._step("cut")
        inode = self._inode(path)
        if length < len(inode.now):
            inode.cut(length)

    def sync(self, path: Path) -> None:
        self._step("sync")
        if f"sync {path.suffix}" in self._broken:
            return
        self._inode(path).sync()
        self._step("synced")

    def sync_folder(self, folder: Path) -> None:
        self._step("sync_folder")
        if "sync_folder" in self._broken:
            return
        self._folder(folder).sync()
        self._step("synced_folder")

    def rename(self, path: Path, new: Path) -> None:
        self._step("rename")
        inode = self._inode(path)
        here, there = self._folder(path.parent), self._folder(new.parent)
        if here is there:
            here.change(Change(new.name, inode, path.name))
        else:
            arrival = Change(new.name, inode)
            there.change(arrival)
            here.change(Change(path.name, None, with_it=(there, arrival)))

    def remove(self, path: Path) -> None:
        self._step("remove")
        folder = self._folder(path.parent)
        if path.name in folder.now:
            folder.change(Change(path.name, None))

    def read(self, path: Path) -> bytes:
        self._step("read")
        return bytes(self._inode(path).now)

    def names(self, folder: Path) -> list[str]:
        self._step("names")
        return sorted(self._folder(folder).now)

    def make_folder(self, folder: Path) -> None:
        self._step("make_folder")
        for one in (folder, *folder.parents):
            self._platters.folders.setdefault(one, Folder())

    def _folder(self, path: Path) -> Folder:
        try:
            return self._platters.folders[path]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path)) from None

    def _inode(self, path: Path) -> Inode:
        try:
            return self._folder(path.parent).now[path.name]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path)) from None
