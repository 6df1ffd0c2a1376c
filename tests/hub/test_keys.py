"""A hub's keys stay the same over restarts, and are nobody else's to read."""

import stat
from pathlib import Path

import pytest

from hub.keys import keep_keys, keys_of, read_keys


def test_a_hub_that_comes_back_has_the_same_keys(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    assert read_keys(runs) is None
    keys = keys_of(runs)
    keep_keys(runs, keys)
    assert keys == keys_of(runs) == read_keys(runs)
    assert keys != keys_of(tmp_path / "others")


def test_the_file_of_the_keys_is_for_its_owner_alone(tmp_path: Path) -> None:
    keep_keys(tmp_path, keys_of(tmp_path))
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"guest": "", "operator": ""}', '{"guest": 1, "operator": 2}', "\udcff"]
)
def test_keys_that_make_no_sense_are_made_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys.json").write_bytes(text.encode(errors="surrogateescape"))
    assert read_keys(tmp_path) is None
    keep_keys(tmp_path, keys := keys_of(tmp_path))
    assert read_keys(tmp_path) == keys


def test_a_folder_that_cannot_be_written_does_not_stop_a_hub(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    keep_keys(tmp_path / "file", keys_of(tmp_path / "file"))


def test_of_two_hubs_that_begin_at_once_the_second_takes_the_keys_of_the_first(tmp_path: Path) -> None:
    one, other = keys_of(tmp_path), keys_of(tmp_path)
    assert one != other
    assert keep_keys(tmp_path, one) == keep_keys(tmp_path, other) == one
    assert [file.name for file in tmp_path.iterdir()] == ["keys.json"]
