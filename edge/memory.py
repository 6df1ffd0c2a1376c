"""What an edge remembers from round to round: control variates, layers of its own; only of rounds that counted."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shared.errors import ConfigError, JournalError
from shared.messages import ABANDONED, Receipt, Train
from shared.snapshot import read_tensors, write_tensors
from shared.tensors import Tensors

_NOTHING: Tensors = {}
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ROUND, _NOW, _BEFORE = "round", "now ", "before "


@dataclass(frozen=True)
class _Proposed:
    round: int
    attempt: int
    tensors: Tensors


@dataclass
class Memory:
    """One edge's memory of one run.

    What a round's training would have it remember is a proposal, until a receipt says that the update counts. If that
    is taken back, or the round is asked again by a hub that knows nothing of it, what was there before is there again.
    So the sum over all edges stays what the hub takes it for, and a round that is trained twice leads to the same.

    Args:
        folder: where it is kept from one process to the next, with what it was a round before; None keeps it here
            alone.
        edge: whose it is.
    """

    folder: Path | None = None
    edge: str = ""
    _run: str = ""
    _now: Tensors = field(default_factory=dict)
    _before: Tensors = field(default_factory=dict)
    _counted: int = 0
    """The round after which `_now` was remembered."""
    _proposed: _Proposed | None = None

    def open(self, run: str) -> None:
        """Remember what belongs to this run, and nothing of another one.

        Raises:
            ConfigError: the file of a former process cannot be read, or the run's name is not for a folder.
        """
        if run == self._run:
            return
        if self.folder and not _FOLDER.fullmatch(run):  # a hub may say anything, and this becomes a path here
            raise ConfigError(f"the hub calls its run {run!r}, which cannot be the name of a folder")
        self._run, self._counted, self._proposed = run, 0, None
        self._now = self._before = _NOTHING
        file = self._file
        if file and file.is_file():
            self._read(file)

    def at(self, round: int) -> Tensors:
        """Give what is remembered when `round` begins.

        Raises:
            ConfigError: what is remembered cannot be written to its folder.
        """
        if round <= self._counted:  # that it counted was not for long: it is asked again
            self._now, self._counted = self._before, round - 1
            self._write()
        return self._now

    @property
    def now(self) -> Tensors:
        """What is remembered after the last round that counted."""
        return self._now

    def propose(self, task: Train, tensors: Tensors) -> None:
        """Remember `tensors` if the answer to `task` counts."""
        self._proposed = _Proposed(task.round, task.attempt, tensors) if tensors or self._now else None

    def heard(self, receipt: Receipt) -> None:
        """Take in what became of an update.

        Raises:
            ConfigError: what is remembered cannot be written to its folder.
        """
        if receipt.run != self._run:
            return
        if receipt.code == ABANDONED:
            self.at(receipt.round)
        proposed = self._proposed
        if proposed is None or (proposed.round, proposed.attempt) != (receipt.round, receipt.attempt):
            return
        self._proposed = None
        if receipt.accepted:
            self._before, self._now, self._counted = self._now, proposed.tensors, receipt.round
            self._write()

    def _read(self, file: Path) -> None:
        try:
            kept = read_tensors(file)
        except JournalError as error:
            raise ConfigError(f"{error}; delete it to begin with nothing remembered") from None
        if _ROUND not in kept:
            raise ConfigError(f"{file} was not written by an edge; delete it to begin with nothing remembered")
        self._counted = int(kept[_ROUND])
        self._now, self._before = (
            {name.removeprefix(what): array for name, array in kept.items() if name.startswith(what)}
            for what in (_NOW, _BEFORE)
        )

    def _write(self) -> None:
        if file := self._file:
            now, before = (
                {f"{what}{name}": array for name, array in tensors.items()}
                for what, tensors in ((_NOW, self._now), (_BEFORE, self._before))
            )
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                write_tensors(file, {_ROUND: np.array(self._counted), **now, **before})
            except (OSError, JournalError) as error:
                raise ConfigError(f"cannot keep what {self.edge} remembers in {self.folder}: {error}") from None

    @property
    def _file(self) -> Path | None:
        # In a folder of its own: a file is written beside its place first, and other edges may keep theirs here too.
        return self.folder / self._run / self.edge / "memory.safetensors" if self.folder else None
