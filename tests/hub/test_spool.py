"""An update is in the spool as a whole or not at all, whatever was torn, flipped, left over or full."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from hub.spool import Kept, Opening, Spool, Spooled, read_spool
from shared.disk import RealDisk, SyncError
from tests.support.disks import CHANGES, FailingDisk, QuickDisk, RecordingDisk
from tests.support.examples import HASH
from tests.support.journals import Answers, answer, opening, plain

ABC = [answer("a", 0.25), answer("b", 1.5, size=0), answer("c", 2.0, size=300)]


def spool_of(folder: Path, **changes: Any) -> Spool:
    """Open a spool with the answers of three edges."""
    spool = Spool(folder, RealDisk())
    spool.open(opening(**changes))
    for kept, message in ABC:
        spool.add(kept, message)
    spool.sync()
    return spool


def found(folder: Path, *, round: int = 1, model: str = HASH) -> tuple[Spooled | None, str]:
    return Spool(folder, QuickDisk()).find(round=round, model=model)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def ends(body: bytes) -> list[int]:
    """Give where each whole record of a spool ends."""
    return sorted({length for at in range(len(body) + 1) if (length := read_spool(body[:at])[1])})


def test_what_was_added_comes_back_in_its_order_and_to_the_bit(tmp_path: Path) -> None:
    spool_of(tmp_path)
    spooled, lost = found(tmp_path)
    assert spooled
    assert spooled.opening == opening()
    assert plain(spooled.updates) == plain(ABC)
    assert lost == ""


def test_an_empty_round_comes_back_empty_and_no_round_as_none(tmp_path: Path) -> None:
    assert found(tmp_path) == (None, "")
    Spool(tmp_path, RealDisk()).open(opening())
    spooled, _ = found(tmp_path)
    assert spooled == Spooled(opening(), ())


def test_a_spool_torn_at_any_byte_gives_back_its_whole_records(tmp_path: Path) -> None:
    spool_of(tmp_path)
    (name,) = names(tmp_path)
    body = (tmp_path / name).read_bytes()
    whole = ends(body)
    assert len(whole) == 1 + len(ABC)
    for length in range(len(body) + 1):
        (tmp_path / name).write_bytes(body[:length])
        spooled, lost = found(tmp_path)
        records = sum(end <= length for end in whole)
        if records:
            assert spooled
            assert plain(spooled.updates) == plain(ABC[: records - 1])
            assert (tmp_path / name).stat().st_size == whole[records - 1]
        else:
            assert spooled is None
            assert not (tmp_path / name).exists()
        assert bool(lost) == (length not in (0, *whole))


def test_a_spool_goes_on_after_a_torn_record(tmp_path: Path) -> None:
    spool_of(tmp_path)
    (name,) = names(tmp_path)
    with (tmp_path / name).open("ab") as file:
        file.write((tmp_path / name).read_bytes()[-200:])
    spool = Spool(tmp_path, RealDisk())
    spooled, lost = spool.find(round=1, model=HASH)
    assert spooled
    assert lost == (
        f"{tmp_path / name} ends in 200 bytes that are no whole update, cut short by a crash or damaged; "
        "whose answer that was is asked again"
    )
    spool.add(*answer("d"))
    spooled, lost = found(tmp_path)
    assert spooled
    assert plain(spooled.updates) == plain([*ABC, answer("d")])
    assert lost == ""


def test_a_flipped_bit_in_any_record_is_noticed_and_what_is_before_it_comes_back(tmp_path: Path) -> None:
    spool_of(tmp_path)
    (name,) = names(tmp_path)
    body = (tmp_path / name).read_bytes()
    whole = ends(body)
    for bit in range(8 * len(body)):
        damaged = bytearray(body)
        damaged[bit // 8] ^= 1 << bit % 8
        spooled, length = read_spool(bytes(damaged))
        before = sum(end <= bit // 8 for end in whole)
        assert length == (whole[before - 1] if before else 0)
        assert (plain(spooled.updates) if spooled else ()) == plain(ABC[: max(0, before - 1)])


def test_whole_records_that_are_not_an_opening_and_updates_are_no_spool(tmp_path: Path) -> None:
    spool_of(tmp_path)
    body = (tmp_path / names(tmp_path)[0]).read_bytes()
    begins = ends(body)[0]
    assert read_spool(body[begins:]) == (None, 0)  # updates of no round
    assert read_spool(2 * body[:begins]) == (None, 0)  # an opening for an update


def test_the_newest_try_at_the_round_counts_and_all_others_are_removed(tmp_path: Path) -> None:
    for attempt in (1, 2, 10, 9):
        spool_of(tmp_path, attempt=attempt)
    spool_of(tmp_path, attempt=11, model="f" * 64)  # began with another model
    spool_of(tmp_path, round=2, attempt=12)
    (tmp_path / "notes.txt").write_text("not ours")
    spooled, lost = found(tmp_path)
    assert spooled
    assert spooled.opening == opening(attempt=10)
    assert names(tmp_path) == ["notes.txt", "r00001-10.spool"]
    assert lost == ""


def test_a_damaged_spool_of_another_round_is_nobodys_loss(tmp_path: Path) -> None:
    spool_of(tmp_path)
    (tmp_path / "r00007-1.spool").write_bytes(b"half a rec")
    assert found(tmp_path)[1] == ""
    assert names(tmp_path) == ["r00001-1.spool"]


def test_a_spool_of_which_nothing_is_whole_is_told(tmp_path: Path) -> None:
    (tmp_path / "r00001-1.spool").write_bytes(b"half a rec")
    spooled, lost = found(tmp_path)
    assert spooled is None
    assert "r00001-1.spool ends in 10 bytes that are no whole update" in lost


def test_a_round_that_is_over_leaves_nothing_or_its_updates_under_another_name(tmp_path: Path) -> None:
    spool_of(tmp_path).close()
    assert names(tmp_path) == []
    spool_of(tmp_path).close(keep_as=tmp_path / "r00001.updates")
    assert names(tmp_path) == ["r00001.updates"]
    kept, length = read_spool((tmp_path / "r00001.updates").read_bytes())
    assert kept
    assert plain(kept.updates) == plain(ABC)
    assert length == (tmp_path / "r00001.updates").stat().st_size


def test_updates_that_come_together_share_one_sync(tmp_path: Path) -> None:
    disk = RecordingDisk(tmp_path)
    spool = Spool(tmp_path, disk)
    spool.open(opening())
    for kept, message in ABC:
        spool.add(kept, message)
    spool.sync()
    assert [step.verb for step in disk.steps] == [
        "write", "sync", "sync_folder", "append", "append", "append", "sync",
    ]  # fmt: skip


# --- a disk that fails ---


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_an_append_that_fails_leaves_the_spool_as_it_was(tmp_path: Path, code: int) -> None:
    disk = FailingDisk(code, at=2, only=frozenset({"append"}))
    spool = Spool(tmp_path, disk)
    spool.open(opening())
    spool.add(*ABC[0])
    before = (tmp_path / "r00001-1.spool").read_bytes()
    with pytest.raises(OSError, match=os.strerror(code)):
        spool.add(*ABC[2])
    assert (tmp_path / "r00001-1.spool").read_bytes() == before
    spool.add(*ABC[2])
    spooled, _ = found(tmp_path)
    assert spooled
    assert plain(spooled.updates) == plain([ABC[0], ABC[2]])


def test_a_torn_record_that_cannot_be_taken_back_is_final(tmp_path: Path) -> None:
    """Nothing may be added after it, as nothing after it could be read; so the disk must not look merely full."""
    spool = Spool(tmp_path, FailingDisk(errno.ENOSPC, at=1, lasting=True, only=frozenset({"append", "cut"})))
    spool.open(opening())
    with pytest.raises(SyncError):
        spool.add(*ABC[2])
    spooled, lost = found(tmp_path)
    assert spooled == Spooled(opening(), ())
    assert lost


def wanted_of(disk: FailingDisk, folder: Path) -> tuple[Opening | None, Answers]:
    """Use a spool until the disk fails; give what it must hold then."""
    spool = Spool(folder, disk)
    opened, synced, added = None, 0, list[tuple[Kept, memoryview]]()
    try:
        spool.open(opening())
        opened = opening()
        for kept, message in ABC:
            spool.add(kept, message)
            added.append((kept, message))
        spool.sync()
        synced = len(added)
    except OSError:
        pass
    return opened, plain(added[:synced])


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("at", range(1, 9))
def test_whatever_fails_what_was_synced_comes_back(tmp_path: Path, code: int, at: int, lasting: bool) -> None:
    disk = FailingDisk(code, at=at, lasting=lasting, only=CHANGES)
    opened, synced = wanted_of(disk, tmp_path)
    assert (len(disk.asked) < at) == (at > 7)
    spooled, _ = found(tmp_path)
    if opened:
        assert spooled
        assert spooled.opening == opened
    back = plain(spooled.updates) if spooled else ()
    assert back[: len(synced)] == synced
    assert back == plain(ABC)[: len(back)]
