"""An update is in the spool as a whole or not at all, whatever was torn, flipped, left over or full."""

import errno
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hub.spool import Kept, Opening, Spool, Spooled, _record, read_spool
from shared.disk import RealDisk
from tests.support.disks import CHANGES, FailingDisk, QuickDisk, RecordingDisk
from tests.support.examples import HASH
from tests.support.journals import Answers, answer, opening, plain

ABC = [answer("a", 0.25), answer("b", 1.5, size=0), answer("c", 2.0, size=300)]


def spool_of(folder: Path, **changes: Any) -> Spool:
    """Open a spool with the answers of three edges."""
    spool = Spool(folder, RealDisk())
    play(spool, *ABC, **changes)
    return spool


def found(folder: Path, *, round: int = 1, model: str = HASH) -> tuple[Spooled | None, str]:
    return Spool(folder, QuickDisk()).find(round=round, model=model)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def ends(body: bytes) -> list[int]:
    """Give where each whole record of a spool ends."""
    return sorted({length for at in range(len(body) + 1) if (length := read_spool(body[:at]).length)})


def play(spool: Spool, *answers: tuple[Kept, memoryview], **changes: Any) -> None:
    """Open a round and add answers to it."""
    spool.open(opening(**changes))
    for kept, message in answers:
        spool.add(kept, message)
    spool.sync()


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
            assert read_spool((tmp_path / name).read_bytes()).ended
        else:
            assert spooled is None
            assert not (tmp_path / name).exists()
        assert bool(lost) == (length not in (0, *whole, len(body)))


def test_a_spool_goes_on_after_a_torn_record(tmp_path: Path) -> None:
    spool_of(tmp_path)
    (name,) = names(tmp_path)
    body = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(body[: ends(body)[-1]] + body[-200:])
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
        reading = read_spool(bytes(damaged))
        before = sum(end <= bit // 8 for end in whole)
        assert reading.length == (whole[before - 1] if before else 0)
        assert (plain(reading.spooled.updates) if reading.spooled else ()) == plain(ABC[: max(0, before - 1)])
        assert not reading.ended


def test_a_part_that_was_lost_is_noticed_even_if_zeros_or_nothing_came_in_its_place(tmp_path: Path) -> None:
    spool_of(tmp_path)
    body = (tmp_path / names(tmp_path)[0]).read_bytes()
    for end in ends(body):
        assert not read_spool(body[:end].ljust(len(body), b"\0")).ended
        assert not read_spool(body[:end]).ended


def test_whole_records_that_are_not_an_opening_and_updates_are_no_spool() -> None:
    kept, message = ABC[0]
    asked = msgspec.msgpack.encode(opening())
    for heads in ([msgspec.msgpack.encode(kept)], [asked, asked], []):
        body = before = bytes(16)
        for head in heads:
            front, before = _record(before, head, message)
            body += front + bytes(message)
        reading = read_spool(body + _record(before, b"")[0])
        assert (reading.spooled, reading.length, reading.ended) == (None, 0, False)


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


def test_a_round_that_is_over_leaves_a_spare_file_or_its_updates_and_nothing_behind_them(tmp_path: Path) -> None:
    spool = spool_of(tmp_path)
    whole = (tmp_path / "r00001-1.spool").stat().st_size
    spool.close()
    assert names(tmp_path) == ["spare.spool"]
    play(spool, ABC[0], attempt=2)
    assert (tmp_path / "r00001-2.spool").stat().st_size == whole
    spool.close(keep_as=tmp_path / "r00001.updates")
    assert names(tmp_path) == ["r00001.updates"]
    body = (tmp_path / "r00001.updates").read_bytes()
    reading = read_spool(body)
    assert reading.spooled
    assert (plain(reading.spooled.updates), reading.ended) == (plain([ABC[0]]), True)
    assert not read_spool(body[:-1]).ended


@pytest.mark.parametrize("wanted", [{"attempt": 2}, {"round": 2}, {}], ids=["next try", "next round", "the very same"])
def test_what_a_former_round_left_in_the_file_never_counts(tmp_path: Path, wanted: dict[str, int]) -> None:
    """Not even where a record of it begins just where one of this round ends, and this one's end is lost."""
    spool = spool_of(tmp_path)
    inode = (tmp_path / "r00001-1.spool").stat().st_ino
    former = (tmp_path / "r00001-1.spool").read_bytes()
    spool.close()
    play(spool, *ABC[:2], **wanted)
    (name,) = names(tmp_path)
    assert (tmp_path / name).stat().st_ino == inode
    body = (tmp_path / name).read_bytes()
    spooled, lost = found(tmp_path, round=wanted.get("round", 1))
    assert spooled
    assert (plain(spooled.updates), lost) == (plain(ABC[:2]), "")
    for end in ends(former)[:3]:
        assert end in ends(body)
        (tmp_path / name).write_bytes(body[:end] + former[end:])
        spooled, lost = found(tmp_path, round=wanted.get("round", 1))
        assert spooled
        assert plain(spooled.updates) == plain(ABC[: ends(body).index(end)])
        assert "no whole update" in lost


def test_a_file_that_was_overwritten_for_another_round_is_not_taken_for_the_one_it_is_named_after(
    tmp_path: Path,
) -> None:
    spool_of(tmp_path, attempt=2)
    (tmp_path / "r00001-2.spool").rename(tmp_path / "r00001-1.spool")
    Spool(tmp_path, RealDisk()).close_left(round=1, attempt=1, keep_as=tmp_path / "r00001.updates")
    assert found(tmp_path) == (None, "")
    assert names(tmp_path) == []


def test_updates_that_a_crash_kept_from_being_kept_are_kept_afterwards(tmp_path: Path) -> None:
    spool_of(tmp_path)
    spool = Spool(tmp_path, RealDisk())
    for attempt in (1, 2):  # of the latter there is nothing
        spool.close_left(round=1, attempt=attempt, keep_as=tmp_path / "r00001.updates")
    assert names(tmp_path) == ["r00001.updates"]
    reading = read_spool((tmp_path / "r00001.updates").read_bytes())
    assert reading.spooled
    assert plain(reading.spooled.updates) == plain(ABC)


def test_updates_that_come_together_share_one_sync(tmp_path: Path) -> None:
    disk = RecordingDisk(tmp_path)
    spool = Spool(tmp_path, disk)
    spool.open(opening())
    for kept, message in ABC:
        spool.add(kept, message)
    spool.sync()
    assert [step.verb for step in disk.steps] == [
        "put", "sync", "rename", "sync_folder", "put", "put", "put", "sync",
    ]  # fmt: skip


# --- a disk that fails ---


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_an_update_that_could_not_be_added_gives_its_place_to_the_next(tmp_path: Path, code: int) -> None:
    disk = FailingDisk(code, at=3, only=frozenset({"put"}))
    spool = Spool(tmp_path, disk)
    spool.open(opening())
    spool.add(*ABC[0])
    with pytest.raises(OSError, match=os.strerror(code)):
        spool.add(*ABC[2])
    torn = (tmp_path / "r00001-1.spool").read_bytes()
    spool.add(*ABC[1])
    spooled, lost = found(tmp_path)
    assert spooled
    assert (plain(spooled.updates), lost) == (plain(ABC[:2]), "")
    (tmp_path / "r00001-1.spool").write_bytes(torn)  # if the hub dies first
    spooled, lost = found(tmp_path)
    assert spooled
    assert plain(spooled.updates) == plain(ABC[:1])
    assert "no whole update" in lost


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
@pytest.mark.parametrize("at", range(1, 10))
def test_whatever_fails_what_was_synced_comes_back(tmp_path: Path, code: int, at: int, lasting: bool) -> None:
    disk = FailingDisk(code, at=at, lasting=lasting, only=CHANGES)
    opened, synced = wanted_of(disk, tmp_path)
    assert (len(disk.asked) < at) == (at > 8)
    spooled, _ = found(tmp_path)
    if opened:
        assert spooled
        assert spooled.opening == opened
    back = plain(spooled.updates) if spooled else ()
    assert back[: len(synced)] == synced
    assert back == plain(ABC)[: len(back)]
