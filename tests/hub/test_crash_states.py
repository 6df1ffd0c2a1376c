"""Whatever instant the power fails at, and whatever the disk made of it: no round that was committed is lost (D3).

A short run is played on a disk that writes down every operation. For every instant, every state that a crash may leave
is then built: data that was not synced is absent, torn or whole, names that were not synced are old or new. A fresh
journal is opened on each. That the checks can fail is seen by planting mistakes into the journal.
"""

import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import hub.journal
import hub.spool
from hub.journal import Committed, Journal
from hub.spool import Opening, Spool
from shared.disk import Disk
from shared.errors import ConfigError, FedhubError, JournalError
from shared.snapshot import SPARE, write_tensors
from shared.tensors import Tensors, sha256
from tests.support.disks import Metal, QuickDisk, RecordingDisk, Step, quick_folder
from tests.support.journals import Answers, answer, memory, model, opening, plain


@pytest.fixture
def folder() -> Iterator[Path]:
    with quick_folder() as folder:
        yield folder


@dataclass(frozen=True)
class Owed:
    """What the journal had promised at some instant, and what it had not but may have done already."""

    committed: tuple[str, ...] = ()
    """Hashes of the models of committed rounds."""
    coming: str = ""
    """Hash of the model that is being committed."""
    open: Opening | None = None
    """The open round."""
    durable: int = 0
    """How many of its updates were acknowledged."""
    answers: tuple[tuple[Opening, Answers], ...] = ()
    """All updates that were ever accepted, by the try at a round that they answer."""
    evaluated: tuple[int, ...] = ()
    evaluating: int = -1


class Run:
    """A run that is played on a recording disk, and notes what it is owed."""

    def __init__(self, folder: Path, disk: RecordingDisk, *, hasty: bool = False) -> None:
        self.folder = folder
        self.disk = disk
        self.hasty = hasty
        self.owe(Owed())

    @property
    def owed(self) -> Owed:
        assert isinstance(self.disk.owed, Owed)
        return self.disk.owed

    def owe(self, owed: Owed) -> None:
        self.disk.owed = owed
        self.disk.moment()

    @asynccontextmanager
    async def journal(self) -> AsyncIterator[Journal]:
        async with Journal(self.folder, disk=self.disk) as journal:
            yield journal

    async def begin(self, journal: Journal) -> None:
        self.owe(replace(self.owed, coming=sha256(model(0))))
        first = await journal.begin(run="r1", settings={"a": 1}, model=model(0))
        self.owe(replace(self.owed, committed=(first.sha256,), coming=""))

    async def open(self, journal: Journal, attempt: int) -> None:
        number = len(self.owed.committed)
        asked = opening(round=number, attempt=attempt, model=self.owed.committed[-1])
        self.owe(replace(self.owed, answers=(*self.owed.answers, (asked, ()))))
        await journal.open_round(asked)
        self.owe(replace(self.owed, open=asked, durable=0))

    async def keep(self, journal: Journal, edge: str) -> None:
        *others, (asked, answers) = self.owed.answers
        kept, message = answer(f"{edge} in {asked.round}, try {asked.attempt}", len(answers) / 8)
        self.owe(replace(self.owed, answers=(*others, (asked, (*answers, (kept, bytes(message)))))))
        await journal.keep(kept, message)
        if self.hasty:
            self.acknowledge()

    def acknowledge(self) -> None:
        self.owe(replace(self.owed, durable=len(self.owed.answers[-1][1])))

    async def settle(self, journal: Journal) -> None:
        await journal.settle()
        self.acknowledge()

    async def abandon(self, journal: Journal) -> None:
        self.owe(replace(self.owed, open=None))
        await journal.abandon_round()

    async def commit(self, journal: Journal) -> None:
        number = len(self.owed.committed)
        assert self.owed.open
        self.owe(replace(self.owed, coming=sha256(model(number))))
        committed = await journal.commit(
            number=number, attempt=self.owed.open.attempt, model=model(number), memory=memory(number)
        )
        self.owe(
            replace(self.owed, committed=(*self.owed.committed, committed.sha256), coming="", open=None, durable=0)
        )
        self.owe(replace(self.owed, evaluating=number))
        await journal.evaluated(number, {"accuracy": number / 7})
        self.owe(replace(self.owed, evaluated=(*self.owed.evaluated, number), evaluating=-1))

    async def play(self) -> None:
        """Play two rounds; the second has a try that is abandoned, and a hub that is killed and comes back."""
        async with self.journal() as journal:
            await journal.retain(1)
            await self.begin(journal)
            await self.open(journal, 1)
            for edge in "abc":
                await self.keep(journal, edge)
                if edge != "a":
                    await self.settle(journal)
            await self.commit(journal)
            await self.open(journal, 1)
            await self.keep(journal, "a")
            await self.settle(journal)
            await self.abandon(journal)
            await self.open(journal, 2)
            await self.keep(journal, "a")
            await self.settle(journal)
            await self.keep(journal, "b")
        async with self.journal() as journal:
            remembered = await journal.resume()
            await journal.retain(1)
            assert remembered.open
            self.acknowledge()  # the hub goes on with what it found: the same again would get its receipt
            await self.keep(journal, "c")
            await self.settle(journal)
            await self.commit(journal)

    async def play_again(self) -> None:
        """Play rounds whose files are used again: updates are not kept, a try is abandoned, old snapshots go."""
        async with self.journal() as journal:
            await journal.retain(0)
            await self.begin(journal)
            for _ in range(4):
                await self.open(journal, 1)
                for edge in "abc":
                    await self.keep(journal, edge)
                await self.settle(journal)
                await self.commit(journal)
            await self.open(journal, 1)
            for edge in "ab":
                await self.keep(journal, edge)
                await self.settle(journal)
            await self.abandon(journal)
            await self.open(journal, 2)
            for edge in "ab":
                await self.keep(journal, edge)
            await self.settle(journal)
            await self.commit(journal)

    async def go_on(self) -> None:
        """Come back after a kill, take another answer, and stop there."""
        async with self.journal() as journal:
            await journal.retain(1)
            try:
                remembered = await journal.resume()
            except ConfigError:
                self.owe(Owed())
                await self.begin(journal)
                await self.open(journal, 1)
            else:
                newest, given = remembered.newest, remembered.open
                committed = (*self.owed.committed, self.owed.coming)[: newest.number + 1]
                assert committed[-1] == newest.sha256
                self.owe(replace(self.owed, committed=committed, coming="", open=given and given.opening, durable=0))
                if given:
                    others = [one for one in self.owed.answers if one[0] != given.opening]
                    self.owe(replace(self.owed, answers=(*others, (given.opening, plain(given.updates)))))
                    self.acknowledge()  # the hub goes on with what it found: the same again would get its receipt
                else:
                    await self.open(journal, 1)
            await self.keep(journal, "z")
            await self.settle(journal)


async def complaint(folder: Path, owed: Owed) -> str:
    """Open a fresh journal and say what is wrong with what it gives back; nothing, if all is well."""
    async with Journal(folder, disk=QuickDisk()) as journal:
        try:
            remembered = await journal.resume()
        except ConfigError:
            if owed.committed:
                return "the run is lost"
            await journal.retain(1)
            first = await journal.begin(run="r2", settings={}, model=model(0))
            return "" if first.number == 0 else "no new run can begin"
        newest = remembered.newest
        allowed = [*owed.committed, *([owed.coming] if owed.coming else [])]
        if newest.number < len(owed.committed) - 1:
            return f"round {len(owed.committed) - 1} was committed and is lost: {remembered.fell_back}"
        if newest.number >= len(allowed) or newest.sha256 != allowed[newest.number]:
            return f"round {newest.number} was never committed so"
        proved = [(number, allowed[number]) for number in range(newest.number + 1)]
        if sha256(newest.model) != newest.sha256 or await journal.proved() != proved:
            return "a model is not the one that was committed"
        if newest.number and sha256(newest.memory) != sha256(memory(newest.number)):
            return "the server optimizer's memory is another"
        evaluations = {number: {"accuracy": number / 7} for number in owed.evaluated}
        extra = {owed.evaluating: {"accuracy": owed.evaluating / 7}}
        if remembered.evaluations not in (evaluations, evaluations | extra):
            return "an evaluation is lost"
        given = remembered.open
        if owed.open and newest.number == owed.open.round - 1:
            if given is None or given.opening != owed.open:
                return "the open round is lost"
            if len(given.updates) < owed.durable:
                return f"{owed.durable} updates were acknowledged, {len(given.updates)} came back"
        if given:
            back = plain(given.updates)
            if given.opening == owed.open and owed.durable == len(owed.answers[-1][1]) and remembered.fell_back:
                return f"a loss is told where there is none: {remembered.fell_back}"
            if given.opening.round != newest.number + 1:
                return "a round is open that is over"
            if all(given.opening != asked or back != answers[: len(back)] for asked, answers in owed.answers):
                return "an update came back that was never accepted"
        for number in range(newest.number + 1):
            snapshot = await journal.snapshot(number)
            if snapshot and snapshot.sha256 != allowed[number]:
                return f"the snapshot of round {number} is another's"
            kept = await journal.updates(number)
            if kept and (kept.opening, plain(kept.updates)) not in owed.answers:
                return f"the kept updates of round {number} are not those that were accepted"
    return ""


@dataclass
class Tried:
    """What came of trying all crashes."""

    moments: int = 0
    states: int = 0
    bad: str = ""
    """The first complaint."""
    seen: set[object] = field(default_factory=set, repr=False)


async def crash_everywhere(disk: RecordingDisk, scratch: Path, tried: Tried, *, first: int = 0) -> Tried:
    """Try every state that a crash at any instant, from the `first` on, can leave, until there is a complaint."""
    metal, done = Metal(), 0
    for at, moment in enumerate(disk.moments):
        for step in disk.steps[done : moment.steps]:
            metal.do(step)
        done = moment.steps
        if at < first:
            continue
        assert isinstance(moment.owed, Owed)
        tried.moments += 1
        for files in metal.possible():
            key = (frozenset(files.items()), moment.database, repr(moment.owed))
            if key in tried.seen:
                continue
            tried.seen.add(key)
            tried.states += 1
            shutil.rmtree(scratch, ignore_errors=True)
            for name in ("snapshots", "updates", "spool"):
                (scratch / name).mkdir(parents=True)
            for path, content in files.items():
                (scratch / path).write_bytes(content)
            if moment.database is not None:
                (scratch / "journal.sqlite").write_bytes(moment.database)
            try:
                tried.bad = await complaint(scratch, moment.owed)
            except FedhubError as error:
                tried.bad = f"it cannot be opened: {error}"
            if tried.bad:
                tried.bad += f" (after {disk.steps[done - 1][:2] if done else 'nothing'}, with {sorted(files)})"
                return tried
    return tried


def nothing(step: Step) -> bool:
    return False


async def tried(
    folder: Path,
    *,
    skip: Callable[[Step], bool] = nothing,
    hasty: bool = False,
    play: Callable[[Run], Awaitable[None]] = Run.play,
) -> Tried:
    """Play the run, and try every crash."""
    disk = RecordingDisk(folder / "run", skip=skip)
    (folder / "run").mkdir()
    await play(Run(folder / "run", disk, hasty=hasty))
    return await crash_everywhere(disk, folder / "after", Tried())


@pytest.mark.parametrize("play", [Run.play, Run.play_again])
async def test_no_crash_loses_what_was_promised(folder: Path, play: Callable[[Run], Awaitable[None]]) -> None:
    all_tried = await tried(folder, play=play)
    assert all_tried.bad == ""
    assert all_tried.moments > 70
    assert all_tried.states > 250


@pytest.mark.parametrize(("play", "begin"), [(Run.play, 0), (Run.play_again, 55)])
async def test_no_crash_after_a_kill_at_any_instant_loses_what_was_promised(
    folder: Path, play: Callable[[Run], Awaitable[None]], begin: int
) -> None:
    """A hub that was killed leaves what it wrote in the system's memory; the power fails when it is back."""
    all_tried = Tried()
    for last in count(begin):
        here = folder / str(last)
        here.mkdir()
        disk = RecordingDisk(here)
        disk.last = last
        run = Run(here, disk)
        try:
            await play(run)
        except JournalError:
            pass
        else:
            break
        disk.last = None
        before = len(disk.moments)
        await run.go_on()
        await crash_everywhere(disk, folder / "after", all_tried, first=before)
        assert all_tried.bad == "", f"killed after {disk.steps[max(0, last - 1)][:2]}"
    assert last >= begin + 30
    assert all_tried.states > 1000


# --- planted mistakes: each must be found ---


LOST = re.compile("is lost|no snapshot of .* can be read")
MUTANTS: dict[str, Callable[[Step], bool]] = {
    "no sync of a snapshot": lambda step: step.verb == "sync" and step.path.parent.name == "snapshots",
    "no sync of the snapshots' folder": lambda step: step.verb == "sync_folder" and step.path.name == "snapshots",
    "no sync of the spool": lambda step: step.verb == "sync" and step.path.parent.name == "spool",
    "no sync of the spool's folder": lambda step: step.verb == "sync_folder" and step.path.name == "spool",
    "no sync of an opening": lambda step: step.verb == "sync" and step.path.name == "spare.spool",
}


@pytest.mark.parametrize("play", [Run.play, Run.play_again])
@pytest.mark.parametrize("mutant", MUTANTS)
async def test_a_sync_that_is_left_out_is_found(
    folder: Path, mutant: str, play: Callable[[Run], Awaitable[None]]
) -> None:
    assert LOST.search((await tried(folder, skip=MUTANTS[mutant], play=play)).bad)


async def test_acknowledging_before_the_spool_is_synced_is_found(folder: Path) -> None:
    assert "were acknowledged" in (await tried(folder, hasty=True)).bad


async def test_taking_up_a_spool_without_syncing_it_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(self: Any, **wanted: Any) -> Any:
        with monkeypatch.context() as hasty:
            hasty.setattr(RecordingDisk, "sync", QuickDisk.sync)
            return right(self, **wanted)

    right: Callable[..., Any] = Spool.find
    monkeypatch.setattr(Spool, "find", find)
    assert "were acknowledged" in (await tried(folder)).bad


async def test_a_row_before_its_snapshot_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def commit(self: Any, number: int, attempt: int, model: Tensors, memory: Tensors, counted: Any = ()) -> Committed:
        written: list[Any] = []

        def put_off(*arguments: Any, **_: str) -> Any:
            written.append(arguments)
            return arguments[0]()

        with monkeypatch.context() as later:
            later.setattr(
                hub.journal, "write_tensors_as", lambda *arguments, **_: written.append(arguments) or arguments[0]()
            )
            committed = right(self, number, attempt, model, memory, counted)
        hub.journal.write_tensors_as(*written[0])
        return committed

    right: Callable[..., Committed] = Journal._commit
    monkeypatch.setattr(Journal, "_commit", commit)
    assert LOST.search((await tried(folder)).bad)


async def test_overwriting_the_snapshot_in_place_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_in_place(name: Callable[[], str], folder: Path, tensors: Tensors, disk: Disk, **_: str) -> str:
        temporary, path = folder / "aside", folder / name()
        write_tensors(temporary, tensors, QuickDisk())
        disk.write(path, [temporary.read_bytes()])
        temporary.unlink()
        disk.sync(path)
        disk.sync_folder(path.parent)
        return path.name

    monkeypatch.setattr(hub.journal, "write_tensors_as", write_in_place)
    monkeypatch.setattr(hub.journal, "_name", lambda number, everything: "newest.safetensors")
    assert LOST.search((await tried(folder)).bad)


async def test_records_that_do_not_go_on_from_the_one_before_are_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = hub.spool._hash
    monkeypatch.setattr(hub.spool, "_hash", lambda before, *parts: right(b"", *parts))
    assert "that were accepted" in (await tried(folder, play=Run.play_again)).bad
    monkeypatch.setattr(Spool, "close_left", lambda self, **_: None)
    (folder / "again").mkdir()
    assert "came back that was never accepted" in (await tried(folder / "again", play=Run.play_again)).bad


async def test_a_spool_without_an_end_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.spool, "_end", lambda before: b"")
    assert "a loss is told where there is none" in (await tried(folder, play=Run.play_again)).bad


async def test_keeping_a_file_as_the_updates_of_a_round_without_looking_inside_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def close_left(self: Any, *, round: int, attempt: int, keep_as: Path) -> None:
        name = f"r{round:05d}-{attempt}.spool"
        if name in self._disk.names(self._folder):
            self._disk.rename(self._folder / name, keep_as)

    monkeypatch.setattr(Spool, "close_left", close_left)
    assert re.search("kept updates .* are (damaged|not those)", (await tried(folder, play=Run.play_again)).bad)


async def test_overwriting_the_newest_snapshot_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_over_the_newest(name: Callable[[], str], folder: Path, tensors: Tensors, disk: Disk, **_: str) -> str:
        if there := disk.names(folder):
            disk.rename(folder / there[-1], folder / SPARE)
        return right(name, folder, tensors, disk)

    right = hub.journal.write_tensors_as
    monkeypatch.setattr(hub.journal, "write_tensors_as", write_over_the_newest)
    assert LOST.search((await tried(folder)).bad)


async def test_overwriting_an_old_snapshot_under_its_name_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tidy(self: Any) -> None:
        with monkeypatch.context() as hasty:
            hasty.setattr(RecordingDisk, "sync_folder", QuickDisk.sync_folder)
            right(self)

    right: Callable[..., None] = Journal._tidy
    monkeypatch.setattr(Journal, "_tidy", tidy)
    assert re.search("is damaged|cannot read .*r00000", (await tried(folder, play=Run.play_again)).bad)
