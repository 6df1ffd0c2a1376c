"""The real disk does what its verbs say, in whole, and a system's error is told as what it means."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.disk import RealDisk, SyncError, failure
from shared.errors import DiskFull, JournalError

DISK = RealDisk()


def test_what_is_written_is_read_in_its_order(tmp_path: Path) -> None:
    file = tmp_path / "f"
    DISK.write(file, [b"one ", memoryview(b"two "), b"", memoryview(bytes(4)).cast("I")])
    assert DISK.read(file) == b"one two \0\0\0\0"
    DISK.write(file, [b"longer than that"])
    assert DISK.read(file) == b"longer than that"
    DISK.write(file, [b"new"])
    assert DISK.read(file) == b"new"
    DISK.cut(file, 1)
    assert DISK.read(file) == b"n"


def test_what_is_put_somewhere_leaves_what_is_before_and_behind_it(tmp_path: Path) -> None:
    file = tmp_path / "f"
    DISK.put(file, 0, [b"one ", b"two"])
    DISK.put(file, 1, [b"w", memoryview(b"o")])
    assert DISK.read(file) == b"owo two"
    DISK.put(file, 4, [b"three"])
    assert DISK.read(file) == b"owo three"


def test_what_is_there_is_overwritten_in_place(tmp_path: Path) -> None:
    """New blocks cost time: a file that is cut to nothing first gives its own back."""
    file = tmp_path / "f"
    DISK.write(file, [b"old"])
    with file.open("rb", buffering=0) as reader:
        DISK.write(file, [b"new"])
        assert reader.read() == b"new"
    assert file.stat().st_nlink == 1


def test_a_system_that_takes_a_few_bytes_at_a_time_gets_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, view: real(handle, view[:3]))
    DISK.write(tmp_path / "f", [b"0123456789", b"ab"])
    assert (tmp_path / "f").read_bytes() == b"0123456789ab"


def test_a_file_takes_anothers_place_and_a_file_that_is_not_there_can_be_removed(tmp_path: Path) -> None:
    DISK.write(tmp_path / "b", [b"b"])
    DISK.write(tmp_path / "a", [b"a"])
    assert DISK.names(tmp_path) == ["a", "b"]
    DISK.rename(tmp_path / "a", tmp_path / "b")
    assert (DISK.names(tmp_path), DISK.read(tmp_path / "b")) == (["b"], b"a")
    DISK.remove(tmp_path / "b")
    DISK.remove(tmp_path / "b")
    assert DISK.names(tmp_path) == []


def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the names of what is synced from now on."""
    names: list[str] = []

    def fsync(handle: int) -> None:
        names.append(Path(f"/proc/self/fd/{handle}").readlink().name)

    monkeypatch.setattr(os, "fsync", fsync)
    return names


def test_files_and_folders_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    DISK.write(tmp_path / "f", [b"x"])
    names = synced(monkeypatch)
    DISK.sync(tmp_path / "f")
    DISK.sync_folder(tmp_path)
    assert names == ["f", tmp_path.name]


def test_a_folder_is_there_for_good_with_those_above_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = synced(monkeypatch)
    DISK.make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    assert sorted(names) == sorted([tmp_path.name, "a"])
    DISK.make_folder(tmp_path / "a" / "b")
    assert len(names) == 2  # nothing was new


def test_systems_that_cannot_sync_a_folder_do_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = synced(monkeypatch)
    with monkeypatch.context() as windows:
        windows.setattr(os, "name", "nt")
        DISK.sync_folder(tmp_path)
    assert names == []


@pytest.mark.parametrize("sync", [lambda folder: DISK.sync(folder / "f"), DISK.sync_folder])
def test_what_could_not_be_synced_is_an_error_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: Callable[[Path], None]
) -> None:
    def fsync(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    DISK.write(tmp_path / "f", [b"x"])
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(SyncError) as error:
        sync(tmp_path)
    assert error.value.errno == errno.ENOSPC


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), DiskFull, "cannot write it: No space left on device"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), DiskFull, "cannot write it: Disk quota exceeded"),
        (OSError(errno.EIO, "Input/output error"), JournalError, "cannot write it: Input/output error"),
        (OSError("odd"), JournalError, "cannot write it: odd"),
        (SyncError(errno.ENOSPC, "No space left on device"), JournalError, "cannot write it: No space left on device"),
    ],
)
def test_a_full_disk_is_waited_for_and_everything_else_is_final(error: OSError, kind: Any, words: str) -> None:
    told = failure(error, "write it")
    assert type(told) is kind
    assert str(told) == words


def test_a_file_that_has_another_name_too_is_left_alone_under_that(tmp_path: Path) -> None:
    disk, kept = RealDisk(), tmp_path / "backup"
    disk.write(tmp_path / "file", [b"old"])
    kept.hardlink_to(tmp_path / "file")
    disk.write(tmp_path / "file", [b"new"])
    assert (kept.read_bytes(), (tmp_path / "file").read_bytes()) == (b"old", b"new")
