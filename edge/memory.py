"""What an edge remembers from round to round: control variates, layers of its own; only of rounds that counted."""

from dataclasses import dataclass, field
from pathlib import Path

from shared.errors import ConfigError, JournalError
from shared.messages import ABANDONED, Receipt, Train
from shared.snapshot import read_tensors, write_tensors
from shared.tensors import Tensors

_NOTHING: Tensors = {}


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
        folder: where it is kept from one process to the next; None keeps it here alone.
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
            ConfigError: the file of a former process cannot be read.
        """
        if run == self._run:
            return
        self._run, self._counted, self._proposed = run, 0, None
        self._now = self._before = _NOTHING
        file = self._file
        if file and file.is_file():
            try:
                self._now = self._before = read_tensors(file)
            except JournalError as error:
                raise ConfigError(f"{error}; delete it to begin with nothing remembered") from None

    def at(self, round: int) -> Tensors:
        """Give what is remembered when `round` begins."""
        if round <= self._counted:  # that it counted was not for long: it is asked again
            self._now, self._counted = self._before, round - 1
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

    def _write(self) -> None:
        if file := self._file:
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                write_tensors(file, self._now)
            except (OSError, JournalError) as error:
                raise ConfigError(f"cannot keep what {self.edge} remembers in {self.folder}: {error}") from None

    @property
    def _file(self) -> Path | None:
        return self.folder / self._run / f"{self.edge}.safetensors" if self.folder else None
