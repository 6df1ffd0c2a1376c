"""The digits inside the package are all there, and no digit is both learnt from and tested with."""

import hashlib
from importlib.resources import files

import numpy as np

from edge.datasets import digits


def test_the_file_is_the_one_whose_licence_and_checksum_stand_beside_it() -> None:
    folder = files("edge.datasets")
    checksum = hashlib.md5((folder / "digits.csv.gz").read_bytes(), usedforsecurity=False).hexdigest()
    assert checksum in (folder / "DIGITS.md").read_text(encoding="utf-8")


def test_there_are_1797_pictures_of_ten_digits_with_pixels_between_0_and_1() -> None:
    x, y = digits.load()
    assert (x.shape, x.dtype.name, x.min(), x.max()) == ((1797, 64), "float32", 0, 1)
    assert (y.shape, y.dtype.name) == ((1797,), "int64")
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_nobody_can_change_what_everybody_gets() -> None:
    assert digits.load() is digits.load()
    assert not any(array.flags.writeable for array in digits.load())


def test_a_split_takes_every_picture_once_and_gives_copies() -> None:
    (x, y), (x_held_out, y_held_out) = digits.split()
    assert (len(x), len(y), len(x_held_out), len(y_held_out)) == (1437, 1437, 360, 360)
    everything, loaded = np.vstack([x, x_held_out]), digits.load()[0]
    assert np.array_equal(everything[np.lexsort(everything.T)], loaded[np.lexsort(loaded.T)])
    assert x.flags.writeable


def test_the_seed_decides_the_split() -> None:
    first, again, other = (digits.split(held_out=100, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first[1][0], again[1][0])
    assert not np.array_equal(first[1][0], other[1][0])
    assert len(first[1][1]) == 100
