"""Remembers what must survive a crash: every committed round, and the model it led to."""

import asyncio
import json
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from shared.errors import ConfigError, JournalError
from shared.snapshot import read_tensors, write_tensors
from shared.tensors import Tensors, sha256

_SCHEMA = """
CREATE TABLE IF NOT EXISTS run (id TEXT PRIMARY KEY, format INTEGER NOT NULL, settings TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS round (
    number INTEGER PRIMARY KEY, attempt INTEGER NOT NULL, snapshot TEXT NOT NULL, model TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS evaluation (
    number INTEGER PRIMARY KEY REFERENCES round (number), metrics TEXT NOT NULL
);
"""
_FORMAT = 1
_KEPT_SNAPSHOTS = 3
_PATIENCE = 0.5  # seconds to wait for another process to let go of the database
_MEMORY = "server optimizer/"  # prefix of the names under which a snapshot keeps the server optimizer's memory

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Committed:
    """A committed round; number 0 is the model that the run began with."""

    number: int
    model: Tensors
    memory: Tensors
    """What the server optimizer remembers."""
    sha256: str


@dataclass(frozen=True)
class Remembered:
    """A run as the journal gives it back."""

    run: str
    settings: dict[str, Any]
    newest: Committed
    evaluations: dict[int, dict[str, float]]
    """Metrics by round."""


class Journal:
    """A run's memory in its folder: safetensors snapshots, and an SQLite database that says which of them count.

    The order makes it safe against a crash at any instant: a snapshot is on the disk under its name before one
    transaction makes its round count. A snapshot that no row names is a leftover and is removed. One thread owns the
    database.

    Every method raises JournalError if the disk does not keep, or give back, what it must.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._snapshots = folder / "snapshots"
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._database: sqlite3.Connection | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._do(self._open)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._do(self._close)
        self._thread.shutdown()

    async def begin(self, *, run: str, settings: dict[str, Any], model: Tensors) -> Committed:
        """Begin a new run with its first model, as round 0."""
        return await self._do(self._begin, run, settings, model)

    async def resume(self) -> Remembered:
        """Give back the run and its newest committed round.

        Raises:
            ConfigError: the folder holds no run that this version can go on with.
        """
        return await self._do(self._resume)

    async def commit(self, *, number: int, attempt: int, model: Tensors, memory: Tensors) -> Committed:
        """Keep a round's model; when this returns, the round is committed whatever happens next."""
        return await self._do(self._commit, number, attempt, model, memory)

    async def evaluated(self, number: int, metrics: dict[str, float]) -> None:
        """Keep what an evaluation of a committed round's model found."""
        await self._do(self._evaluated, number, metrics)

    async def _do(self, work: Callable[P, T], *arguments: P.args, **_: P.kwargs) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        except (OSError, sqlite3.Error) as error:
            raise JournalError(f"the run folder {self._folder} cannot be used: {error}") from None

    # --- below: in the journal's thread ---

    def _open(self) -> None:
        self._snapshots.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(self._folder / "journal.sqlite", isolation_level=None, timeout=_PATIENCE)
        try:
            # Two hubs in one folder would remove each other's snapshots. The lock lasts until the database is closed.
            self._sql.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._sql.executescript("BEGIN EXCLUSIVE; COMMIT")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise JournalError(f"another hub uses this run folder: {self._folder}") from None
            raise
        # Not WAL: SQLite before 3.51.3 has a published corruption race. EXTRA also syncs the folder (1.3 ms a commit).
        self._sql.execute("PRAGMA journal_mode = DELETE")
        self._sql.execute("PRAGMA synchronous = EXTRA")
        self._sql.executescript(_SCHEMA)

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    @property
    def _sql(self) -> sqlite3.Connection:
        assert self._database is not None, "the journal is not open"
        return self._database

    def _begin(self, run: str, settings: dict[str, Any], model: Tensors) -> Committed:
        if self._sql.execute("SELECT 1 FROM round").fetchone():
            raise ConfigError(f"{self._folder} holds a run already; go on with --resume, or choose another --name")
        self._sql.execute("DELETE FROM run")  # of a beginning that a crash cut short, if any
        self._sql.execute("INSERT INTO run VALUES (?, ?, ?)", (run, _FORMAT, json.dumps(settings)))
        return self._commit(0, 1, model, {})

    def _resume(self) -> Remembered:
        row = self._sql.execute("SELECT id, format, settings FROM run").fetchone()
        if row is not None and row[1] != _FORMAT:
            raise ConfigError(
                f"{self._folder} was written by another version of Fedhub (format {row[1]}, not {_FORMAT})"
            )
        newest = self._sql.execute("SELECT number, snapshot, model FROM round ORDER BY number DESC").fetchone()
        if row is None or newest is None:
            raise ConfigError(f"{self._folder} holds no run to resume; start it without --resume")
        run, _, settings = row
        number, snapshot, committed = newest
        everything = read_tensors(self._snapshots / snapshot)
        model = {name: array for name, array in everything.items() if not name.startswith(_MEMORY)}
        memory = {name.removeprefix(_MEMORY): array for name, array in everything.items() if name.startswith(_MEMORY)}
        if sha256(model) != committed or snapshot != _name(number, everything):
            raise JournalError(f"snapshot {snapshot} is damaged: it is not the model that was committed")
        self._tidy()
        evaluations = self._sql.execute("SELECT number, metrics FROM evaluation ORDER BY number")
        return Remembered(
            run=run,
            settings=json.loads(settings),
            newest=Committed(number, model, memory, committed),
            evaluations={number: json.loads(metrics) for number, metrics in evaluations},
        )

    def _commit(self, number: int, attempt: int, model: Tensors, memory: Tensors) -> Committed:
        digest = sha256(model)
        everything = {**model, **{_MEMORY + key: array for key, array in memory.items()}}
        name = _name(number, everything)
        write_tensors(self._snapshots / name, everything)
        self._sql.execute("INSERT INTO round VALUES (?, ?, ?, ?)", (number, attempt, name, digest))
        self._tidy()
        return Committed(number, model, memory, digest)

    def _evaluated(self, number: int, metrics: dict[str, float]) -> None:
        self._sql.execute("INSERT OR REPLACE INTO evaluation VALUES (?, ?)", (number, json.dumps(metrics)))

    def _tidy(self) -> None:
        """Remove snapshots that nobody will ask for again: all but the newest few, and leftovers of a crash."""
        rows = self._sql.execute("SELECT snapshot FROM round ORDER BY number DESC LIMIT ?", (_KEPT_SNAPSHOTS,))
        kept = {name for (name,) in rows}
        for path in sorted(self._snapshots.iterdir()):
            if path.name not in kept:
                path.unlink()


def _name(number: int, everything: Tensors) -> str:
    """Name a snapshot after what is in it, so that the file proves the optimizer's memory as well as the model."""
    return f"r{number:05d}-{sha256(everything)[:12]}.safetensors"
