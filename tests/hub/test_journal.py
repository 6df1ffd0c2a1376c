"""A committed round survives whatever happens; what does not count is removed, and what is damaged is noticed."""

import asyncio
import math
import re
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hub.journal import Journal
from shared.errors import ConfigError, JournalError
from shared.tensors import Tensors, sha256
from tests.support.examples import MODEL, same_tensors

SETTINGS = {"app": "digits", "settings": {"rounds": 20, "target": None, "lr": 0.1}}


def model(number: int) -> Tensors:
    return {**MODEL, "net.half": np.full(3, number, np.float16), "norm.count": np.array(number)}


async def begun(folder: Path, *, rounds: int = 0, memory: Tensors | None = None) -> None:
    """Begin a run and commit some rounds."""
    async with Journal(folder) as journal:
        await journal.begin(run="r1", settings=SETTINGS, model=model(0))
        for number in range(1, rounds + 1):
            await journal.commit(number=number, attempt=1, model=model(number), memory=memory or {})


@contextmanager
def database(folder: Path) -> Iterator[sqlite3.Connection]:
    """Reach into a journal that nobody has open."""
    connection = sqlite3.connect(folder / "journal.sqlite", isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def power_cut_before_the_row(folder: Path) -> Iterator[None]:
    """Have everything fail between a snapshot and the row that makes it count."""
    with database(folder) as sql:
        sql.execute("CREATE TRIGGER cut BEFORE INSERT ON round BEGIN SELECT RAISE(ABORT, 'power cut'); END")
    yield
    with database(folder) as sql:
        sql.execute("DROP TRIGGER cut")


def snapshots(folder: Path) -> list[str]:
    return sorted(file.name for file in (folder / "snapshots").iterdir())


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 4
    file.write_bytes(content)


# --- what is remembered ---


async def test_a_new_run_begins_with_its_first_model_as_round_0(tmp_path: Path) -> None:
    async with Journal(tmp_path / "deep" / "run") as journal:
        first = await journal.begin(run="r1", settings=SETTINGS, model=model(0))
    assert (first.number, first.sha256, first.memory) == (0, sha256(model(0)), {})
    assert same_tensors(first.model, model(0))
    async with Journal(tmp_path / "deep" / "run") as journal:
        remembered = await journal.resume()
    assert (remembered.run, remembered.settings, remembered.evaluations) == ("r1", SETTINGS, {})
    assert same_tensors(remembered.newest.model, model(0))


async def test_the_newest_committed_round_comes_back_with_its_order_and_to_the_bit(tmp_path: Path) -> None:
    await begun(tmp_path, rounds=2)
    async with Journal(tmp_path) as journal:
        newest = (await journal.resume()).newest
    assert newest.number == 2
    assert newest.sha256 == sha256(model(2))
    assert same_tensors(newest.model, model(2))  # names in the spec's order, 0-d and empty tensors included


async def test_the_server_optimizers_memory_comes_back(tmp_path: Path) -> None:
    memory = {"z": np.arange(3.0), "momentum of net.weight": np.ones((2, 3)), "step": np.array(7)}
    async with Journal(tmp_path) as journal:
        await journal.begin(run="r1", settings={}, model=model(0))
        committed = await journal.commit(number=1, attempt=1, model=model(1), memory=memory)
    assert committed.sha256 == sha256(model(1))
    async with Journal(tmp_path) as journal:
        newest = (await journal.resume()).newest
    assert same_tensors(newest.memory, memory)
    assert same_tensors(newest.model, model(1))
    assert newest.sha256 == committed.sha256


async def test_evaluations_come_back_by_round_and_the_last_word_counts(tmp_path: Path) -> None:
    async with Journal(tmp_path) as journal:
        await journal.begin(run="r1", settings={}, model=model(0))
        await journal.commit(number=1, attempt=1, model=model(1), memory={})
        await journal.evaluated(1, {"accuracy": 0.1})
        await journal.evaluated(1, {"accuracy": 1 / 3, "loss": math.inf})
        await journal.evaluated(0, {"accuracy": 0.0})
    async with Journal(tmp_path) as journal:
        remembered = await journal.resume()
    assert remembered.evaluations == {0: {"accuracy": 0.0}, 1: {"accuracy": 1 / 3, "loss": math.inf}}


async def test_a_run_goes_on_after_it_was_resumed(tmp_path: Path) -> None:
    await begun(tmp_path, rounds=1)
    async with Journal(tmp_path) as journal:
        await journal.resume()
        await journal.commit(number=2, attempt=3, model=model(2), memory={})
    async with Journal(tmp_path) as journal:
        assert (await journal.resume()).newest.number == 2


async def test_the_last_few_snapshots_are_kept_and_no_more(tmp_path: Path) -> None:
    await begun(tmp_path, rounds=7)
    assert [name[:6] for name in snapshots(tmp_path)] == ["r00005", "r00006", "r00007"]


async def test_a_snapshot_that_nobody_needs_is_overwritten_and_none_is_spared_when_the_run_ends(tmp_path: Path) -> None:
    seen = set()
    async with Journal(tmp_path) as journal:
        await journal.begin(run="r1", settings={}, model=model(0))
        for number in range(1, 9):
            await journal.commit(number=number, attempt=1, model=model(number), memory={})
            seen |= {file.stat().st_ino for file in (tmp_path / "snapshots").iterdir()}
            for kept in range(max(0, number - 2), number + 1):
                found = await journal.snapshot(kept)
                assert found
                assert same_tensors(found.model, model(kept))
        assert snapshots(tmp_path)[-1] == "spare.writing"
    assert len(seen) == 4
    assert [name[:6] for name in snapshots(tmp_path)] == ["r00006", "r00007", "r00008"]


async def test_a_hub_that_is_kept_out_removes_nothing(tmp_path: Path) -> None:
    async with Journal(tmp_path):
        spares = [tmp_path / "snapshots" / "spare.writing", tmp_path / "spool" / "spare.spool"]
        for spare in spares:
            spare.write_bytes(b"half written")
        with pytest.raises(JournalError, match="another hub uses this run folder"):
            await Journal(tmp_path).__aenter__()
        assert all(spare.exists() for spare in spares)
    assert not any(spare.exists() for spare in spares)


async def test_a_round_is_committed_once(tmp_path: Path) -> None:
    await begun(tmp_path, rounds=1)
    async with Journal(tmp_path) as journal:
        with pytest.raises(JournalError, match="UNIQUE"):
            await journal.commit(number=1, attempt=2, model=model(9), memory={})
        assert same_tensors((await journal.resume()).newest.model, model(1))


# --- crashes ---


async def test_a_crash_between_snapshot_and_row_loses_only_the_round_that_was_not_committed(tmp_path: Path) -> None:
    await begun(tmp_path, rounds=1)
    before = snapshots(tmp_path)
    with power_cut_before_the_row(tmp_path):
        async with Journal(tmp_path) as journal:
            with pytest.raises(JournalError, match="power cut"):
                await journal.commit(number=2, attempt=1, model=model(2), memory={})
    (tmp_path / "snapshots" / "spare.writing").write_bytes(b"half a mod")
    assert len(snapshots(tmp_path)) == len(before) + 2
    async with Journal(tmp_path) as journal:
        newest = (await journal.resume()).newest
        await journal.retain(0)
        assert snapshots(tmp_path) == [*before, "spare.writing"]
        assert same_tensors(newest.model, model(1))
        await journal.commit(number=2, attempt=2, model=model(2), memory={})
        assert len(snapshots(tmp_path)) == len(before) + 1
    async with Journal(tmp_path) as journal:
        assert same_tensors((await journal.resume()).newest.model, model(2))


async def test_a_run_whose_beginning_was_cut_short_can_begin_again(tmp_path: Path) -> None:
    async with Journal(tmp_path):
        pass
    with power_cut_before_the_row(tmp_path):
        async with Journal(tmp_path) as journal:
            with pytest.raises(JournalError, match="power cut"):
                await journal.begin(run="cut", settings={}, model=model(0))
    async with Journal(tmp_path) as journal:
        with pytest.raises(ConfigError, match="holds no run to resume; start it without --resume"):
            await journal.resume()
        await journal.retain(0)
        await journal.begin(run="whole", settings={}, model=model(5))
    assert len(snapshots(tmp_path)) == 1
    async with Journal(tmp_path) as journal:
        remembered = await journal.resume()
    assert remembered.run == "whole"
    assert same_tensors(remembered.newest.model, model(5))


@pytest.mark.parametrize("place", [9, -1, -40, -80])
async def test_a_damaged_snapshot_is_noticed_and_the_one_before_taken(tmp_path: Path, place: int) -> None:
    await begun(tmp_path, rounds=2, memory={"m": np.arange(5.0)})
    flip(tmp_path / "snapshots" / snapshots(tmp_path)[-1], place)
    async with Journal(tmp_path) as journal:
        remembered = await journal.resume()
        assert re.search(
            r"(is damaged: it is not the model that was committed|cannot read .*); going on after round 1$",
            remembered.fell_back,
        )
        assert same_tensors(remembered.newest.model, model(1))
        assert same_tensors(remembered.newest.memory, {"m": np.arange(5.0)})
        assert [number for number, _ in await journal.proved()] == [0, 1]
        await journal.retain(0)
        assert [name[:6] for name in snapshots(tmp_path)] == ["r00000", "r00001", "spare."]
        await journal.commit(number=2, attempt=2, model=model(2), memory={})
    async with Journal(tmp_path) as journal:
        remembered = await journal.resume()
    assert (remembered.newest.number, remembered.fell_back) == (2, "")


async def test_evaluations_of_rounds_that_are_played_again_are_forgotten(tmp_path: Path) -> None:
    async with Journal(tmp_path) as journal:
        await journal.begin(run="r1", settings={}, model=model(0))
        for number in (1, 2):
            await journal.commit(number=number, attempt=1, model=model(number), memory={})
            await journal.evaluated(number, {"accuracy": number / 10})
    (tmp_path / "snapshots" / snapshots(tmp_path)[-1]).unlink()
    async with Journal(tmp_path) as journal:
        remembered = await journal.resume()
    assert (remembered.newest.number, remembered.evaluations) == (1, {1: {"accuracy": 0.1}})
    assert remembered.fell_back == "the snapshot of round 2 is gone; going on after round 1"


async def test_a_flipped_bit_anywhere_in_model_or_memory_is_noticed(tmp_path: Path) -> None:
    await begun(tmp_path, rounds=1, memory={"m": np.arange(5.0)})
    file = tmp_path / "snapshots" / snapshots(tmp_path)[-1]
    whole = file.read_bytes()
    head = 8 + int.from_bytes(whole[:8], "little")
    async with Journal(tmp_path) as journal:
        for place in range(head, len(whole)):
            flip(file, place)
            with pytest.raises(JournalError, match="is damaged: it is not the model that was committed"):
                await journal.snapshot(1)
            file.write_bytes(whole)
        assert (await journal.resume()).newest.number == 1


async def test_where_no_snapshot_is_left_the_run_is_lost_and_it_is_told(tmp_path: Path) -> None:
    await begun(tmp_path)
    file = tmp_path / "snapshots" / snapshots(tmp_path)[0]
    async with Journal(tmp_path) as journal:
        flip(file, -1)
        with pytest.raises(JournalError, match=r"no snapshot of .* can be read: snapshot r00000-.* is damaged"):
            await journal.resume()
        file.unlink()
        with pytest.raises(JournalError, match=r"no snapshot of .* can be read: the snapshot of round 0 is gone"):
            await journal.resume()
        assert await journal.snapshot(0) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE run SET settings = '{}'", "its settings are not what was written"),
        ("UPDATE run SET settings = CAST(settings AS BLOB)", "its settings are not what was written"),
        ("UPDATE run SET id = 'r2'", "its settings are not what was written"),
        ("UPDATE round SET attempt = 2 WHERE number = 1", "the row of round 1 is not what was written"),
        ("UPDATE round SET snapshot = x'ff' WHERE number = 0", "the row of round 0 is not what was written"),
        ("UPDATE round SET model = 'f' WHERE number = 2", "the row of round 2 is not what was written"),
        ("DELETE FROM round WHERE number = 1", "the row of round 1 is not what was written"),
        ("UPDATE round SET number = 7 WHERE number = 2", "the row of round 2 is not what was written"),
        ("UPDATE evaluation SET number = 66", "the evaluation of round 66 is not what was written"),
        ("UPDATE evaluation SET metrics = '{}'", "the evaluation of round 2 is not what was written"),
    ],
)
async def test_a_row_that_is_not_what_was_written_is_noticed(tmp_path: Path, change: str, said: str) -> None:
    await begun(tmp_path, rounds=2)
    async with Journal(tmp_path) as journal:
        await journal.evaluated(2, {"accuracy": 0.5})
    with database(tmp_path) as sql:
        sql.execute(change)
    async with Journal(tmp_path) as journal:
        with pytest.raises(JournalError, match=f"journal.sqlite is damaged: {said}. Put back a copy, or start a new"):
            await journal.resume()


# --- what is refused ---


async def test_a_folder_holds_one_run(tmp_path: Path) -> None:
    await begun(tmp_path)
    async with Journal(tmp_path) as journal:
        with pytest.raises(ConfigError, match="holds a run already; go on with --resume, or choose another --name"):
            await journal.begin(run="r2", settings={}, model=model(1))
        assert (await journal.resume()).run == "r1"


async def test_an_empty_folder_holds_no_run_to_resume(tmp_path: Path) -> None:
    async with Journal(tmp_path) as journal:
        with pytest.raises(ConfigError, match="holds no run to resume; start it without --resume"):
            await journal.resume()


@pytest.mark.parametrize("change", ["UPDATE run SET format = 9", "UPDATE run SET format = 9; DROP TABLE round"])
async def test_another_versions_format_is_refused_whatever_it_looks_like(tmp_path: Path, change: str) -> None:
    await begun(tmp_path)
    with database(tmp_path) as sql:
        sql.executescript(change)
    with pytest.raises(ConfigError, match=r"written by another version of Fedhub \(format 9, not 4\)"):
        async with Journal(tmp_path):
            pass


async def test_a_second_hub_in_the_same_folder_is_refused_and_does_no_harm(tmp_path: Path) -> None:
    async with Journal(tmp_path) as first:
        await first.begin(run="r1", settings={}, model=model(0))
        with pytest.raises(JournalError) as error:
            async with Journal(tmp_path):
                pass
        assert str(error.value) == f"another hub uses this run folder: {tmp_path}"
        await first.commit(number=1, attempt=1, model=model(1), memory={})
    async with Journal(tmp_path) as second:
        assert (await second.resume()).newest.number == 1


async def test_the_folder_is_taken_as_soon_as_it_is_opened(tmp_path: Path) -> None:
    await begun(tmp_path)
    async with Journal(tmp_path):
        with pytest.raises(JournalError, match="another hub uses this run folder"):
            await Journal(tmp_path).__aenter__()


async def test_another_process_is_kept_out_too(tmp_path: Path) -> None:
    program = (
        f"import sqlite3; sqlite3.connect({str(tmp_path / 'journal.sqlite')!r}, timeout=0).execute('SELECT * FROM run')"
    )
    async with Journal(tmp_path):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
        )
        _, said = await process.communicate()
    assert b"database is locked" in said


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("journal")}


async def test_a_journal_that_is_closed_or_could_not_be_opened_leaves_no_thread(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    async with Journal(tmp_path / "run"):
        assert threads()
        with pytest.raises(JournalError):
            async with Journal(tmp_path / "run"):
                pass
    with pytest.raises(JournalError, match=r"cannot use the run folder .*file: (Not a directory|File exists)"):
        async with Journal(tmp_path / "file"):
            pass
    assert not threads()


@pytest.mark.parametrize("content", [b"this is no database, " * 100, b"\0" * 4096])
async def test_a_database_that_is_none_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "journal.sqlite").write_bytes(content)
    with pytest.raises(JournalError, match="cannot be used: file is not a database"):
        async with Journal(tmp_path):
            pass


async def test_settings_come_back_as_they_were(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"text": "größe\n", "none": None, "list": [1, 2.5, True], "deep": {"x": {"y": 1e-300}}}
    async with Journal(tmp_path) as journal:
        await journal.begin(run="r1", settings=settings, model=model(0))
        assert (await journal.resume()).settings == settings
