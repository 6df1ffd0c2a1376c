"""What an edge remembers from round to round: control variates, layers of its own; only of rounds that counted."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np

from shared.errors import ConfigError, JournalError
from shared.messages import ABANDONED, Receipt, Train
from shared.snapshot import read_tensors, write_tensors
from shared.tensors import Tensors

_NOTHING: Tensors = {}
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ROUNDS = "rounds"


@dataclass(frozen=True)
class _Kept:
    round: int
    attempt: int
    tensors: Tensors


_AT_FIRST = _Kept(0, 0, _NOTHING)


@dataclass
class Memory:
    """One edge's memory of one run.

    What a round's training would have it remember is a proposal, until a receipt says that the update counts. If that
    is taken back, or the round is asked again by a hub that knows nothing of it, what was there before is there again.
    So the sum over all edges stays what the hub takes it for, and a round that is trained twice leads to the same.

    A proposal is kept until there is another: a hub says its receipt again to an edge that was away, and an answer that
    was taken back may be handed in once more.

    Args:
        folder: where it is kept from one process to the next, with what is proposed; None keeps it here alone.
        edge: whose it is.
    """

    folder: Path | None = None
    edge: str = ""
    _run: str = ""
    _now: _Kept = _AT_FIRST
    _before: _Kept = _AT_FIRST
    _proposed: _Kept = _AT_FIRST
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    def open(self, run: str) -> None:
        """Remember what belongs to this run, and nothing of another one.

        Raises:
            ConfigError: the file of a former process cannot be read, or the run's name is not for a folder.
        """
        if run == self._run:
            return
        if self.folder and not _FOLDER.fullmatch(run):  # a hub may say anything, and this becomes a path here
            raise ConfigError(f"the hub calls its run {run!r}, which cannot be the name of a folder")
        self._run = run
        self._now = self._before = self._proposed = _AT_FIRST
        file = self._file
        if file and file.is_file():
            self._read(file)

    def at(self, round: int) -> Tensors:
        """Give what is remembered when `round` begins."""
        if round <= self._now.round:  # that it counted was not for long: it is asked again
            self._now = _Kept(min(self._before.round, round - 1), self._before.attempt, self._before.tensors)
        return self._now.tensors

    @property
    def now(self) -> Tensors:
        """What is remembered after the last round that counted."""
        return self._now.tensors

    def propose(self, task: Train, tensors: Tensors) -> None:
        """Remember `tensors` if the answer to `task` counts.

        Raises:
            ConfigError: it cannot be written to its folder.
        """
        with self._lock:
            if tensors or self._now.tensors:
                self._proposed = _Kept(task.round, task.attempt, tensors)
                self._write()

    async def aside(self, act: Callable[[], None]) -> None:
        """Have it `heard`, or `propose`, away from the event loop where that means to wait for a disk (some 10 ms)."""
        await asyncio.to_thread(act) if self.folder else act()

    def heard(self, receipt: Receipt) -> None:
        """Take in what became of an update.

        Raises:
            ConfigError: what is remembered cannot be written to its folder.
        """
        with self._lock:
            if self._takes(receipt):
                self._write()

    def _takes(self, receipt: Receipt) -> bool:
        """Change what is remembered as a receipt says; tell whether it says anything."""
        if receipt.run != self._run:
            return False
        proposed = self._proposed
        this = (proposed.round, proposed.attempt) == (receipt.round, receipt.attempt)
        now = (self._now.round, self._now.attempt)
        if receipt.code == ABANDONED and receipt.round <= self._now.round:
            self._now = self._before
        elif receipt.accepted and this and receipt.round > self._now.round:
            self._before, self._now = self._now, proposed
        elif receipt.accepted and receipt.round <= self._now.round and (receipt.round, receipt.attempt) != now:
            self._now = self._before  # another was the last to count: a hub that was killed knows nothing of this one
        else:
            return False
        return True

    def _read(self, file: Path) -> None:
        try:
            kept = read_tensors(file)
        except JournalError as error:
            raise ConfigError(f"{error}; delete it to begin with nothing remembered") from None
        if _ROUNDS not in kept:
            raise ConfigError(f"{file} was not written by an edge; delete it to begin with nothing remembered")
        self._now, self._before, self._proposed = _apart(kept)

    def _write(self) -> None:
        if file := self._file:
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                write_tensors(file, _together(self._now, self._before, self._proposed))
            except (OSError, JournalError) as error:
                raise ConfigError(f"cannot keep what {self.edge} remembers in {self.folder}: {error}") from None

    @property
    def _file(self) -> Path | None:
        """In a folder of its own: another edge's process may write at the same time."""
        return self.folder / self._run / self.edge / "memory.safetensors" if self.folder else None


def _together(*kept: _Kept) -> Tensors:
    """Put all into one file, so that there is never one without the other."""
    rounds = np.array([(one.round, one.attempt) for one in kept])
    named = {f"{place} {name}": array for place, one in enumerate(kept) for name, array in one.tensors.items()}
    return {_ROUNDS: rounds, **named}


def _apart(tensors: Tensors) -> list[_Kept]:
    return [
        _Kept(round, attempt, {name[2:]: array for name, array in tensors.items() if name.startswith(f"{place} ")})
        for place, (round, attempt) in enumerate(tensors[_ROUNDS].tolist())
    ]
