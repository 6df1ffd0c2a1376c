"""A disk that fails at any step of a round makes the hub wait or stop with a sentence, and nothing is lost (D5, D7)."""

import asyncio
import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import hub.journal
from hub.journal import Journal
from shared.errors import DiskFull, JournalError
from shared.tensors import sha256
from tests.support.disks import CHANGES, FailingDisk, QuickDisk, quick_folder
from tests.support.journals import Answers, answer, memory, model, opening, plain

ABC = [answer("a", 0.25), answer("b", 1.5), answer("c", 2.0, size=300)]
OPENING = opening(round=2, model=sha256(model(1)))


@dataclass
class Done:
    """What of a round returned, and so is promised."""

    opened: bool = False
    acknowledged: int = 0
    committed: bool = False
    evaluated: bool = False
    told: list[str] = field(default_factory=list)
    """What was said about a full disk."""
    error: str = ""


async def begun(folder: Path) -> None:
    """Begin a run and commit its first round."""
    async with Journal(folder, disk=QuickDisk()) as journal:
        await journal.begin(run="r1", settings={}, model=model(0))
        await journal.commit(number=1, attempt=1, model=model(1), memory=memory(1))


async def play(folder: Path, disk: FailingDisk, *, patience: int = 3) -> Done:
    """Play round 2 on a disk that fails; there is space again after it was missed `patience` times."""
    done = Done()

    def full(sentence: str) -> None:
        done.told.append(sentence)
        if len(done.told) >= patience:
            disk.heal()

    try:
        async with Journal(folder, disk=disk, full=full, again=0.0) as journal:
            await journal.resume()
            await journal.retain(1)
            await journal.open_round(OPENING)
            done.opened = True
            for kept, message in ABC:
                await journal.keep(kept, message)
            await journal.settle()
            done.acknowledged = len(ABC)
            await journal.commit(number=2, attempt=1, model=model(2), memory=memory(2))
            done.committed = True
            await journal.evaluated(2, {"accuracy": 0.5})
            done.evaluated = True
    except JournalError as error:
        done.error = str(error)
    return done


async def check(folder: Path, done: Done) -> None:
    """Open a fresh journal on a disk that works, and see that it gives back what was promised and nothing else."""
    async with Journal(folder, disk=QuickDisk()) as journal:
        remembered = await journal.resume()
        number = remembered.newest.number
        assert number in ((2,) if done.committed else (1, 2))
        assert remembered.newest.sha256 == sha256(model(number)) == sha256(remembered.newest.model)
        assert sha256(remembered.newest.memory) == sha256(memory(number))
        assert [one for one, _ in await journal.proved()] == list(range(number + 1))
        assert remembered.evaluations in ([{2: {"accuracy": 0.5}}] if done.evaluated else [{}, {2: {"accuracy": 0.5}}])
        back: Answers = plain(remembered.open.updates) if remembered.open else ()
        if number == 2:
            assert remembered.open is None
        elif done.opened:
            assert remembered.open
            assert remembered.open.opening == OPENING
            assert len(back) >= done.acknowledged
        assert back == plain(ABC[: len(back)])
        if kept := await journal.updates(2):
            assert (kept.opening, plain(kept.updates)) == (OPENING, plain(ABC))
        # and the run goes on
        await journal.retain(1)
        await journal.commit(number=number + 1, attempt=1, model=model(number + 1), memory={})


async def steps(folder: Path, only: frozenset[str]) -> list[str]:
    """List the operations of a round on a disk that works."""
    await begun(folder)
    disk = FailingDisk(only=only)
    done = await play(folder, disk)
    assert done == Done(opened=True, acknowledged=3, committed=True, evaluated=True)
    await check(folder, done)
    return disk.asked


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with quick_folder() as folder:
        yield folder


@pytest.mark.parametrize("lasting", [False, True])
async def test_an_error_at_any_step_stops_the_hub_with_one_sentence_and_loses_nothing(
    tmp_path: Path, lasting: bool
) -> None:
    all_steps = await steps(tmp_path / "whole", frozenset())
    assert len(all_steps) > 25
    for at, step in enumerate(all_steps, start=1):
        folder = tmp_path / str(at)
        await begun(folder)
        done = await play(folder, FailingDisk(errno.EIO, at=at, lasting=lasting))
        if step.startswith("remove spare"):  # which would do no harm
            assert done == Done(opened=True, acknowledged=3, committed=True, evaluated=True)
            continue
        assert re.search(r"Input/output error$", done.error), step
        assert "\n" not in done.error
        assert "Errno" not in done.error
        assert done.told == []
        await check(folder, done)


@pytest.mark.parametrize("lasting", [False, True])
async def test_a_full_disk_makes_the_hub_wait_until_there_is_space(tmp_path: Path, lasting: bool) -> None:
    waited = stopped = 0
    need_space = CHANGES - {"cut", "remove"}
    for at, step in enumerate(await steps(tmp_path / "whole", need_space), start=1):
        folder = tmp_path / str(at)
        await begun(folder)
        done = await play(folder, FailingDisk(errno.ENOSPC, at=at, lasting=lasting, only=need_space))
        if step.startswith("sync"):
            assert done.error.endswith(os.strerror(errno.ENOSPC)), step  # nobody knows what is durable, so it stops
            stopped += 1
        else:
            assert done.evaluated, f"{step}: {done.error}"
            assert len(done.told) == (3 if lasting else 1)
            assert set(done.told) <= {done.told[0]}
            assert done.told[0].endswith(f"{os.strerror(errno.ENOSPC)}; waiting until there is space")
            waited += 1
        await check(folder, done)
    assert waited >= 8
    assert stopped >= 7


async def test_a_database_without_space_waits_too(tmp_path: Path) -> None:
    await begun(tmp_path)
    told = asyncio.Event()
    async with Journal(tmp_path, full=lambda sentence: told.set(), again=0.0) as journal:
        (pages,) = journal._sql.execute("PRAGMA page_count").fetchone()
        journal._sql.execute(f"PRAGMA max_page_count = {pages}")
        metrics = {f"metric {number}": number / 7 for number in range(1000)}
        waiting = asyncio.create_task(journal.evaluated(1, metrics))
        await told.wait()
        assert not waiting.done()
        journal._sql.execute("PRAGMA max_page_count = 1000000")
        await waiting
    async with Journal(tmp_path) as journal:
        assert (await journal.resume()).evaluations == {1: metrics}


async def test_a_run_that_finds_the_disk_full_at_once_begins_when_there_is_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def full(sentence: str) -> None:
        told.append(sentence)
        monkeypatch.setattr(hub.journal, "_SCHEMA", schema)

    schema: Any = hub.journal._SCHEMA
    monkeypatch.setattr(hub.journal, "_SCHEMA", f"PRAGMA max_page_count = 1; {schema}")
    async with Journal(tmp_path, full=full, again=0.0) as journal:
        await journal.begin(run="r1", settings={}, model=model(0))
    assert told == [f"cannot write {tmp_path / 'journal.sqlite'}: no space left; waiting until there is space"]
    async with Journal(tmp_path) as journal:
        assert (await journal.resume()).newest.number == 0


async def test_a_hub_that_waits_for_space_can_be_stopped(tmp_path: Path) -> None:
    await begun(tmp_path)
    told = asyncio.Event()
    disk = FailingDisk(errno.ENOSPC, at=1, lasting=True, only=frozenset({"put"}))
    async with Journal(tmp_path, disk=disk, full=lambda sentence: told.set(), again=60.0) as journal:
        waiting = asyncio.create_task(journal.open_round(OPENING))
        await told.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await check(tmp_path, Done())


def test_a_full_disk_is_a_journal_error_of_its_own() -> None:
    assert issubclass(DiskFull, JournalError)
