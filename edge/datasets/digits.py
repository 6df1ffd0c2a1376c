"""1,797 small handwritten digits that come inside the package, so that a first run needs no download."""

import gzip
from functools import cache
from importlib.resources import files
from io import BytesIO

import numpy as np
import numpy.typing as npt

Examples = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


@cache
def load() -> Examples:
    """Give all pictures, x float32 (1797, 64) within 0..1, and their digits, y int64 (1797,).

    Both are read-only, as every caller gets the same two arrays. Source, licence and checksum: see DIGITS.md.
    """
    packed = files("edge.datasets").joinpath("digits.csv.gz").read_bytes()
    rows = np.loadtxt(BytesIO(gzip.decompress(packed)), dtype=np.float32, delimiter=",")
    x, y = rows[:, :64] / np.float32(16), rows[:, 64].astype(np.int64)
    x.flags.writeable = y.flags.writeable = False
    return x, y


def split(*, held_out: int = 360, seed: int = 0) -> tuple[Examples, Examples]:
    """Give (training examples, held-out examples), drawn by `seed`, as copies that the caller owns.

    Every edge must name the same seed: otherwise one edge trains on what another is tested with.
    """
    x, y = load()
    order = np.random.default_rng(seed).permutation(len(y))
    test, train = order[:held_out], order[held_out:]
    return (x[train], y[train]), (x[test], y[test])
