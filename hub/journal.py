"""Remembers what must survive a crash: every committed round, the model it led to, and the answers of the open one."""

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from hub.spool import SPARE as SPARE_SPOOL
from hub.spool import Kept, Opening, Spool, Spooled, read_spool
from shared.disk import Disk, RealDisk, failure
from shared.errors import ConfigError, Damaged, DiskFull, JournalError
from shared.snapshot import SPARE, read_tensors, write_tensors_as
from shared.tensors import Tensors, sha256

_SCHEMA = """
CREATE TABLE IF NOT EXISTS run (
    id TEXT PRIMARY KEY, format INTEGER NOT NULL, settings TEXT NOT NULL, proof TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS round (
    number INTEGER PRIMARY KEY, attempt INTEGER NOT NULL, snapshot TEXT NOT NULL, model TEXT NOT NULL,
    proof TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS evaluation (
    number INTEGER PRIMARY KEY REFERENCES round (number), metrics TEXT NOT NULL, proof TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS counted (
    number INTEGER PRIMARY KEY REFERENCES round (number), edges TEXT NOT NULL, proof TEXT NOT NULL
);
"""
_FORMAT = 4
_KEPT_SNAPSHOTS = 3
_KEPT_COUNTS = 100  # rounds of which it is known who counted: whoever was away for longer does not hear of it
_LOCK_WITHIN = 0.5  # seconds to wait for another process to let go of the database
_TRY_AGAIN = 1.0  # seconds between two looks at a full disk
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
class Counted:
    """Whose updates the committed rounds are made of."""

    since: int
    """The first round of which that is known."""
    newest: dict[str, tuple[int, int]]
    """Round and try of the newest update that counts, by edge, of those that have one."""


@dataclass(frozen=True)
class Remembered:
    """A run as the journal gives it back."""

    run: str
    settings: dict[str, Any]
    newest: Committed
    evaluations: dict[int, dict[str, float]]
    """Metrics by round."""
    open: Spooled | None
    """The round that was open, with the updates that were accepted."""
    counted: "Counted"
    fell_back: str
    """What could not be read, if an older round or fewer updates had to be taken; empty otherwise."""


class Journal:
    """A run's memory in its folder: safetensors snapshots, a spool, and an SQLite database of the rounds that count.

    The order makes it safe against a crash at any instant: an update is in the spool before it is acknowledged, and a
    snapshot is on the disk under its name before one transaction makes its round count. A snapshot that no row names is
    a leftover and is removed. Each row carries a proof, the hash of itself and of the row before. One thread does all
    the work; a full disk makes it wait until there is space.

    Every method raises JournalError if the disk does not keep, or give back, what it must.
    """

    def __init__(
        self,
        folder: Path,
        *,
        disk: Disk | None = None,
        full: Callable[[str], None] = lambda reason: None,
        again: float = _TRY_AGAIN,
    ) -> None:
        """Be the journal in `folder`.

        Args:
            folder: the run's.
            disk: what it is on.
            full: called with a sentence each time there is no space.
            again: seconds until it is tried again.
        """
        self._folder = folder
        self._snapshots = folder / "snapshots"
        self._updates = folder / "updates"
        self._disk = disk or RealDisk()
        self._spool: Spool | None = None
        self._keep_updates = 0
        self._full = full
        self._again = again
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._hasher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal-hash")
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
        await self._do(self._leave)
        self._thread.shutdown()
        self._hasher.shutdown()

    async def begin(self, *, run: str, settings: dict[str, Any], model: Tensors) -> Committed:
        """Begin a new run with its first model, as round 0."""
        return await self._do(self._begin, run, settings, model)

    async def resume(self) -> Remembered:
        """Give back the run, its newest committed round, and the round that was open.

        Raises:
            ConfigError: the folder holds no run that this version can go on with.
        """
        return await self._do(self._resume)

    async def retain(self, rounds: int) -> None:
        """Keep the updates of so many rounds, for `verify`; what nobody will ask for is removed now and at commits."""
        self._keep_updates = rounds
        await self._do(self._tidy)

    @property
    def round_is_open(self) -> bool:
        """Whether a round is open here, which a resumed run goes on with."""
        return self._spooling.is_open

    async def open_round(self, opening: Opening) -> None:
        """Keep who is asked; when this returns, a crash cannot change it."""
        await self._do(self._spooling.open, opening)

    async def keep(self, kept: Kept, message: memoryview) -> None:
        """Take in an accepted update, as it came over the wire; it is kept for good after the next `settle`.

        In a round that was not opened here (`durability = round`), nothing is kept.
        """
        if self._spooling.is_open:
            await self._do(self._spooling.add, kept, message)

    async def settle(self) -> None:
        """Return when all updates taken in are kept for good, and may be acknowledged."""
        if self._spooling.is_open:
            await self._do(self._spooling.sync)

    async def abandon_round(self) -> None:
        """Forget the open round."""
        if self._spooling.is_open:
            await self._do(self._spooling.close)

    async def commit(
        self, *, number: int, attempt: int, model: Tensors, memory: Tensors, counted: Collection[str] = ()
    ) -> Committed:
        """Keep a round's model, and whose updates it is made of.

        When this returns, the round is committed whatever happens next.
        """
        committed = await self._do(self._commit, number, attempt, model, memory, counted)
        if self._spooling.is_open:
            kept = self._updates_of(number) if self._keep_updates else None
            await self._do(lambda: self._spooling.close(keep_as=kept))
        await self._do(self._tidy)
        return committed

    async def evaluated(self, number: int, metrics: dict[str, float]) -> None:
        """Keep what an evaluation of a committed round's model found."""
        await self._do(self._evaluated, number, metrics)

    async def proved(self) -> list[tuple[int, str]]:
        """List all committed rounds with the hash of their model, once the proofs of all rows were checked."""
        return await self._do(lambda: [(number, model) for number, _, _, model in self._rounds()])

    async def snapshot(self, number: int) -> Committed | None:
        """Give a committed round's model and memory, if its snapshot is still kept."""
        return await self._do(self._snapshot, number)

    async def updates(self, number: int) -> Spooled | None:
        """Give the updates that a committed round was made of, if they are still kept."""
        return await self._do(self._kept_updates, number)

    async def _do(self, work: Callable[P, T], *arguments: P.args, **_: P.kwargs) -> T:
        """Work in the journal's thread; wait as long as there is no space."""
        while True:
            try:
                return await asyncio.get_running_loop().run_in_executor(self._thread, self._work, work, *arguments)
            except DiskFull as full:
                self._full(f"{full}; waiting until there is space")
                await asyncio.sleep(self._again)

    # --- below: in the journal's thread ---

    def _work(self, work: Callable[..., T], *arguments: Any) -> T:
        try:
            return work(*arguments)
        except OSError as error:
            raise failure(error, f"use the run folder {self._folder}") from None
        except UnicodeDecodeError:  # SQLite cites a damaged schema
            raise self._damaged("its schema is no text") from None
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
                raise DiskFull(f"cannot write {self._folder / 'journal.sqlite'}: no space left") from None
            words = " ".join(str(error).split())  # SQLite cites its schema, which has many lines
            raise JournalError(f"the run folder {self._folder} cannot be used: {words}") from None

    def _open(self) -> None:
        for folder in (self._snapshots, self._updates, self._folder / "spool"):
            self._disk.make_folder(folder)
        for folder in (self._folder, self._folder.parent):  # whoever made them may not have made them durable
            self._disk.sync_folder(folder)
        self._close()  # of a try that found the disk full
        self._database = sqlite3.connect(
            self._folder / "journal.sqlite", isolation_level=None, timeout=_LOCK_WITHIN, check_same_thread=False
        )
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
        self._check_format()
        self._sql.executescript(_SCHEMA)
        self._spool = Spool(self._folder / "spool", self._disk)

    def _leave(self) -> None:
        if self._spool:  # so the folder is ours
            for spare in (self._snapshots / SPARE, self._folder / "spool" / SPARE_SPOOL):
                with suppress(OSError):  # it would do no harm
                    self._disk.remove(spare)
        self._close()

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    @property
    def _sql(self) -> sqlite3.Connection:
        assert self._database is not None, "the journal is not open"
        return self._database

    @property
    def _spooling(self) -> Spool:
        assert self._spool is not None, "the journal is not open"
        return self._spool

    def _check_format(self) -> None:
        """Refuse what another version wrote before anything is touched."""
        if self._sql.execute("SELECT 1 FROM sqlite_master WHERE name = 'run'").fetchone():
            row = self._sql.execute("SELECT format FROM run").fetchone()
            if row is not None and row[0] != _FORMAT:
                raise ConfigError(
                    f"{self._folder} was written by another version of Fedhub (format {row[0]}, not {_FORMAT}); "
                    "go on with that version, or start a new run"
                )

    def _begin(self, run: str, settings: dict[str, Any], model: Tensors) -> Committed:
        if self._sql.execute("SELECT 1 FROM round").fetchone():
            raise ConfigError(f"{self._folder} holds a run already; go on with --resume, or choose another --name")
        self._sql.execute("DELETE FROM run")  # of a beginning that a crash cut short, if any
        kept = json.dumps(settings)
        self._sql.execute("INSERT INTO run VALUES (?, ?, ?, ?)", (run, _FORMAT, kept, _proof("", run, _FORMAT, kept)))
        return self._commit(0, 1, model, {})

    def _resume(self) -> Remembered:
        row = self._sql.execute("SELECT id, format, settings, proof FROM run").fetchone()
        rounds = self._rounds()
        if row is None or not rounds:
            raise ConfigError(f"{self._folder} holds no run to resume; start it without --resume")
        run, version, settings, proof = row
        if proof != _proof("", run, version, settings):
            raise self._damaged("its settings are not what was written")
        evaluations = self._evaluations()  # before any is deleted, which a damaged number could look like
        newest, fell_back = None, ""
        for number, _, _, _ in reversed(rounds):
            try:
                newest = self._snapshot(number)
                why = f"the snapshot of round {number} is gone"
            except Damaged as error:  # not what cannot be read now, and perhaps can later: nothing is given up for that
                why = str(error)
            if newest:
                break
            fell_back = fell_back or why
        if newest is None:
            raise JournalError(f"no snapshot of {self._folder} can be read: {fell_back}")
        counted = self._counted(rounds[: newest.number + 1])
        with self._sql:  # rounds whose model is lost are played again
            self._sql.execute("DELETE FROM counted WHERE number > ?", (newest.number,))
            self._sql.execute("DELETE FROM evaluation WHERE number > ?", (newest.number,))
            self._sql.execute("DELETE FROM round WHERE number > ?", (newest.number,))
        number, attempt, _, _ = rounds[newest.number]
        self._spooling.close_left(round=number, attempt=attempt, keep_as=self._updates_of(number))
        spooled, cut_short = self._spooling.find(round=newest.number + 1, model=newest.sha256)
        lost = [fell_back and f"{fell_back}; going on after round {newest.number}", cut_short]
        return Remembered(
            run=run,
            settings=json.loads(settings),
            newest=newest,
            evaluations={number: found for number, found in evaluations.items() if number <= newest.number},
            open=spooled,
            counted=counted,
            fell_back=". ".join(filter(None, lost)),
        )

    def _counted(self, rounds: list[tuple[int, int, str, str]]) -> Counted:
        since, newest = len(rounds), dict[str, tuple[int, int]]()
        for number, edges, proof in self._sql.execute("SELECT * FROM counted ORDER BY number"):
            if proof != _proof("", number, edges):
                raise self._damaged(f"who counted in round {number} is not what was written")
            if number < len(rounds):
                since = min(since, max(1, number))
                newest |= dict.fromkeys(json.loads(edges), (number, rounds[number][1]))
        return Counted(since, newest)

    def _rounds(self) -> list[tuple[int, int, str, str]]:
        """List number, attempt, snapshot and model of all rounds, with their proofs checked."""
        if (found := self._sql.execute("PRAGMA integrity_check").fetchone()) != ("ok",):
            raise self._damaged(str(found[0]).splitlines()[-1])
        before = ""
        rounds: list[tuple[int, int, str, str]] = []
        for number, attempt, snapshot, model, proof in self._sql.execute("SELECT * FROM round ORDER BY number"):
            if number != len(rounds) or proof != _proof(before, number, attempt, snapshot, model):
                raise self._damaged(f"the row of round {len(rounds)} is not what was written")
            rounds.append((number, attempt, snapshot, model))
            before = proof
        return rounds

    def _damaged(self, how: str) -> JournalError:
        return JournalError(f"{self._folder / 'journal.sqlite'} is damaged: {how}. Put back a copy, or start a new run")

    def _evaluations(self) -> dict[int, dict[str, float]]:
        found = {}
        for number, metrics, proof in self._sql.execute("SELECT * FROM evaluation ORDER BY number"):
            if proof != _proof("", number, metrics):
                raise self._damaged(f"the evaluation of round {number} is not what was written")
            found[number] = json.loads(metrics)
        return found

    def _snapshot(self, number: int) -> Committed | None:
        row = self._sql.execute("SELECT snapshot, model FROM round WHERE number = ?", (number,)).fetchone()
        if row is None or row[0] not in self._disk.names(self._snapshots):
            return None
        snapshot, committed = row
        everything = read_tensors(self._snapshots / snapshot, self._disk)
        model = {name: array for name, array in everything.items() if not name.startswith(_MEMORY)}
        memory = {name.removeprefix(_MEMORY): array for name, array in everything.items() if name.startswith(_MEMORY)}
        digest = sha256(model)
        if digest != committed or snapshot != _name(number, sha256(everything) if memory else digest):
            raise Damaged(f"snapshot {snapshot} is damaged: it is not the model that was committed")
        return Committed(number, model, memory, committed)

    def _commit(
        self, number: int, attempt: int, model: Tensors, memory: Tensors, counted: Collection[str] = ()
    ) -> Committed:
        everything = {**model, **{_MEMORY + key: array for key, array in memory.items()}}
        hashing = self._hasher.submit(lambda: (sha256(model), sha256(everything) if memory else None))

        def name() -> str:
            of_model, of_everything = hashing.result()
            return _name(number, of_everything or of_model)

        # Hashing 6.65 MB takes as long as writing them, so the one is done beside the other.
        snapshot = write_tensors_as(
            name, self._snapshots, everything, self._disk, what=f"{self._snapshots}/r{number:05d}"
        )
        digest, _ = hashing.result()
        row = self._sql.execute("SELECT proof FROM round WHERE number = ?", (number - 1,)).fetchone()
        proof = _proof(row[0] if row else "", number, attempt, snapshot, digest)
        edges = json.dumps(sorted(counted))
        self._sql.execute("BEGIN IMMEDIATE")
        try:
            self._sql.execute("INSERT INTO round VALUES (?, ?, ?, ?, ?)", (number, attempt, snapshot, digest, proof))
            self._sql.execute("INSERT INTO counted VALUES (?, ?, ?)", (number, edges, _proof("", number, edges)))
            self._sql.execute("DELETE FROM counted WHERE number <= ?", (number - _KEPT_COUNTS,))
            self._sql.execute("COMMIT")
        except BaseException:
            if self._sql.in_transaction:  # SQLite takes some back by itself
                self._sql.execute("ROLLBACK")
            raise
        return Committed(number, model, memory, digest)

    def _evaluated(self, number: int, metrics: dict[str, float]) -> None:
        kept = json.dumps(metrics)
        row = (number, kept, _proof("", number, kept))
        self._sql.execute("INSERT OR REPLACE INTO evaluation VALUES (?, ?, ?)", row)

    def _kept_updates(self, number: int) -> Spooled | None:
        file = self._updates_of(number)
        if file.name not in self._disk.names(self._updates):
            return None
        reading = read_spool(self._disk.read(file))
        if not reading.ended:
            raise JournalError(f"the kept updates {file.name} are damaged")
        return reading.spooled

    def _tidy(self) -> None:
        """Remove what nobody will ask for again: all but the newest snapshots and updates, and leftovers of a crash.

        The newest of those snapshots becomes the spare one, which the next commit overwrites. Its old name must be gone
        for good by then: `verify` would call it damaged after a crash. That takes 0.1 ms.
        """
        wanted = max(_KEPT_SNAPSHOTS, self._keep_updates + 1)
        rows = self._sql.execute(
            "SELECT number, snapshot FROM round ORDER BY number DESC LIMIT ?", (wanted,)
        ).fetchall()
        snapshots = {SPARE, *(snapshot for _, snapshot in rows)}
        updates = {self._updates_of(number).name for number, _ in rows[: self._keep_updates]}
        old = [name for name in self._disk.names(self._snapshots) if name not in snapshots]
        if old:
            self._disk.rename(self._snapshots / old.pop(), self._snapshots / SPARE)
            self._disk.sync_folder(self._snapshots)
        for name in old:
            self._disk.remove(self._snapshots / name)
        for name in self._disk.names(self._updates):
            if name not in updates:
                self._disk.remove(self._updates / name)

    def _updates_of(self, number: int) -> Path:
        return self._updates / f"r{number:05d}.updates"


def _name(number: int, everything: str) -> str:
    """Name a snapshot after the hash of everything in it: so it proves the optimizer's memory as well as the model."""
    return f"r{number:05d}-{everything[:12]}.safetensors"


def _proof(before: str, *values: object) -> str:
    """Hash a row together with the proof of the row before, so that no bit of either can change unnoticed."""
    # Only in a damaged row is there anything that JSON does not know: bytes.
    return hashlib.sha256(json.dumps([before, *values], default=repr).encode()).hexdigest()


def look_at(folder: Path) -> tuple[bool, str]:
    """Tell whether a hub has the journal in `folder` open, and what is wrong with it, if anything is.

    Only the lock is of interest: it is opened for reading, and whatever a crash left behind stays as it is.
    """
    file = folder / "journal.sqlite"
    if not file.is_file():
        return False, f"{file.name} is not there"
    database = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=0.0)
    try:
        database.execute("SELECT id FROM run").fetchone()
    except sqlite3.DatabaseError as error:
        code = error.sqlite_errorcode & 0xFF
        damaged = code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
        return code == sqlite3.SQLITE_BUSY, f"{file.name} is damaged" if damaged else ""
    finally:
        database.close()
    return False, ""
