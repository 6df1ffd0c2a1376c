"""A model's file holds all of it, in its order, or does not exist; a damaged one is an error and never a surprise."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from shared.errors import JournalError
from shared.snapshot import read_tensors, write_tensors
from tests.support.disks import FailingDisk
from tests.support.examples import DTYPES, MODEL, same_tensors


def test_what_is_read_is_what_was_written_in_its_order(tmp_path: Path) -> None:
    write_tensors(tmp_path / "m", MODEL)
    assert same_tensors(read_tensors(tmp_path / "m"), MODEL)
    assert list(MODEL) != sorted(MODEL)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (2, 3)], ids=str)
def test_every_dtype_and_shape_comes_back(tmp_path: Path, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> None:
    model = {"x": np.ones(shape, dtype)}
    write_tensors(tmp_path / "m", model)
    assert same_tensors(read_tensors(tmp_path / "m"), model)


def test_the_file_is_the_one_that_the_library_makes(tmp_path: Path) -> None:
    shapes = [(), (0,), (3,), (2, 5)]
    kinds = {f'{kind} "{shape}" größe\n\x01\x7f': np.ones(shape, kind) for kind in DTYPES for shape in shapes}
    for model in (MODEL, kinds, {}, {name: kinds[name] for name in reversed(kinds)}):
        write_tensors(tmp_path / "m", model)
        whole = {name: np.asarray(array, order="C") for name, array in model.items()}
        assert (tmp_path / "m").read_bytes() == save(whole, {"fedhub.order": json.dumps(list(model))})


def test_values_and_not_memory_layouts_are_written(tmp_path: Path) -> None:
    wanted = np.arange(6, dtype="<f4").reshape(2, 3)
    write_tensors(tmp_path / "m", {"fortran": np.asfortranarray(wanted), "big": wanted.astype(">f4")})
    assert all((array == wanted).all() for array in read_tensors(tmp_path / "m").values())


def test_a_file_of_another_program_is_read_by_name(tmp_path: Path) -> None:
    save_file({"b": np.ones(2), "a": np.zeros(1)}, tmp_path / "m")
    assert list(read_tensors(tmp_path / "m")) == ["a", "b"]


def test_a_file_is_replaced_as_a_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_tensors(tmp_path / "m", {"w": np.zeros(2)})
    write_tensors(tmp_path / "m", {"w": np.ones(3)})
    assert [file.name for file in tmp_path.iterdir()] == ["m"]
    assert read_tensors(tmp_path / "m")["w"].tolist() == [1.0, 1.0, 1.0]


def test_where_no_file_can_be_written_the_error_says_where(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=f"cannot write {tmp_path}/absent/m: .*No such file"):
        write_tensors(tmp_path / "absent" / "m", MODEL)


def test_a_write_that_fails_at_its_end_leaves_everything_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "m" / "inside").mkdir(parents=True)  # a folder cannot be replaced by a file
    with pytest.raises(JournalError, match="cannot write"):
        write_tensors(tmp_path / "m", MODEL)
    assert [file.name for file in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("at", [1, 2, 3, 4])
@pytest.mark.parametrize("lasting", [False, True])
def test_a_disk_that_fails_anywhere_leaves_the_whole_old_or_the_whole_new(
    tmp_path: Path, at: int, lasting: bool
) -> None:
    file = tmp_path / "m"
    write_tensors(file, {"w": np.zeros(2)})
    disk = FailingDisk(errno.EIO, at=at, lasting=lasting)
    with pytest.raises(JournalError, match=f"cannot write {file}: Input/output error"):
        write_tensors(file, {"w": np.ones(2)}, disk)
    assert read_tensors(file)["w"].tolist() == ([0.0, 0.0] if at < 4 else [1.0, 1.0])
    if not lasting:
        assert [file.name for file in tmp_path.iterdir()] == ["m"]


def test_a_sync_that_failed_is_final_even_if_the_disk_is_full_afterwards(tmp_path: Path) -> None:
    disk = FailingDisk(errno.ENOSPC, at=2, lasting=True)
    with pytest.raises(JournalError) as error:
        write_tensors(tmp_path / "m", MODEL, disk)
    assert type(error.value) is JournalError
    assert disk.asked == ["write spare.writing", "sync spare.writing", "remove spare.writing"]


@pytest.mark.parametrize("spare", [b"", b"short", b"longer" * 10_000])
def test_a_spare_file_is_overwritten_whatever_it_holds(tmp_path: Path, spare: bytes) -> None:
    (tmp_path / "spare.writing").write_bytes(spare)
    inode = (tmp_path / "spare.writing").stat().st_ino
    write_tensors(tmp_path / "m", MODEL)
    assert same_tensors(read_tensors(tmp_path / "m"), MODEL)
    assert (tmp_path / "m").stat().st_ino == inode
    assert [file.name for file in tmp_path.iterdir()] == ["m"]


def test_systems_that_cannot_sync_a_folder_do_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "m"
    with monkeypatch.context() as windows:
        windows.setattr(os, "name", "nt")
        write_tensors(file, MODEL)
    assert same_tensors(read_tensors(file), MODEL)


def test_a_file_that_is_not_there_is_a_journal_error(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=f"cannot read {tmp_path}/m"):
        read_tensors(tmp_path / "m")


@pytest.mark.parametrize("content", [b"", b"not a model", b"\xff" * 100])
def test_a_file_that_is_no_model_is_a_journal_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(JournalError, match="cannot read"):
        read_tensors(tmp_path / "m")


def test_a_file_cut_short_is_a_journal_error(tmp_path: Path) -> None:
    write_tensors(tmp_path / "m", MODEL)
    content = (tmp_path / "m").read_bytes()
    for length in range(len(content)):
        (tmp_path / "m").write_bytes(content[:length])
        with pytest.raises(JournalError):
            read_tensors(tmp_path / "m")


@pytest.mark.parametrize("order", ['["b"', "5", '["b", 7]', '["b", "c"]'])
def test_an_order_that_makes_no_sense_is_a_journal_error(tmp_path: Path, order: str) -> None:
    save_file({"b": np.ones(2), "a": np.zeros(1)}, tmp_path / "m", {"fedhub.order": order})
    with pytest.raises(JournalError, match="cannot read"):
        read_tensors(tmp_path / "m")


def test_one_flipped_bit_of_the_head_is_a_journal_error_or_gives_some_arrays(tmp_path: Path) -> None:
    model = {"b": np.ones(2), "a": np.zeros(1, np.float32)}
    write_tensors(tmp_path / "m", model)
    content = (tmp_path / "m").read_bytes()
    head = 8 + int.from_bytes(content[:8], "little")
    assert json.loads(content[8:head])
    noticed = 0
    for bit in range(8 * head):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / "m").write_bytes(damaged)
        try:
            read_tensors(tmp_path / "m")
        except JournalError:
            noticed += 1
    assert noticed > 6 * head  # what is left, such as a bit of a name's, the journal's hash notices
