"""What people do with a phone in their pocket, told by how it is shaken: WISDM's windows of 10 s, by owner."""

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge.datasets.folder import Owned, path_of, text_of
from shared.errors import ConfigError

ACTIVITIES = ("Walking", "Jogging", "Upstairs", "Downstairs", "Sitting", "Standing")
"""What the classes 0 to 5 mean."""

_FEATURES = 43
_FILE = "wisdm/WISDM_ar_v1.1_transformed.arff"
_SOURCE = "https://www.cis.fordham.edu/wisdm/dataset.php (activity prediction)"
_TEST_EACH = 5  # of an owner's windows, every fifth is held out


def load(root: str | Path = "") -> tuple[Owned, Owned]:
    """Give (4,350 training, 1,068 held-out) windows of 36 owners: x float32 (n, 43), activity y int64 (n,).

    Of each owner's windows, in the order of the file, every fifth is held out. Features are less their mean and
    divided by their standard deviation, both over the training windows of all owners; a missing value is the mean, 0.
    That is a pair of constants: where nobody holds all data, whoever publishes the app publishes them with it.
    `root` holds wisdm/WISDM_ar_v1.1_transformed.arff, and is `default_root()` unless given.
    Kwapisz, Weiss and Moore 2010, "Activity Recognition using Cell Phone Accelerometers".

    Raises:
        ConfigError: the file is not there, or is damaged.
    """
    return _load(path_of(_FILE, root, source=_SOURCE))


@cache
def _load(path: Path) -> tuple[Owned, Owned]:
    raw, activity, owner = _read(path)
    test = _place_among_its_owners(owner) % _TEST_EACH == _TEST_EACH - 1
    x = _standardised(raw, over=~test)
    train, held_out = (Owned(x[part], activity[part], owner[part]) for part in (~test, test))
    return train, held_out


def _read(path: Path) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Give features (n, 43), NaN where missing, activities (n,) and owners (n,), in the order of the file."""
    features, activities, owners = [], [], []
    for number, line in enumerate(text_of(path).splitlines(), 1):
        if not line.strip() or line.startswith(("@", "%")):
            continue
        _, owner, *values, activity = line.strip().split(",") if line.count(",") == _FEATURES + 2 else ("", "", "")
        try:
            features.append([float("nan" if value == "?" else value) for value in values])
            activities.append(ACTIVITIES.index(activity))
            owners.append(int(owner))
        except ValueError:
            raise ConfigError(f"{path} is damaged in line {number}; get it again") from None
    if not owners:
        raise ConfigError(f"{path} holds no windows, so it is damaged; get it again")
    return np.array(features), np.array(activities), np.array(owners)


def _place_among_its_owners(owner: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Tell of each window which one of its owner's it is, counted from 0."""
    place = np.empty_like(owner)
    for one in np.unique(owner):
        mine = np.flatnonzero(owner == one)
        place[mine] = np.arange(len(mine))
    return place


def _standardised(raw: npt.NDArray[np.float64], *, over: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Give features of mean 0 and standard deviation 1 over the rows `over`; what never varies there becomes 0."""
    known = np.ma.masked_invalid(raw)
    mean, sd = (np.ma.filled(found, 0.0) for found in (known[over].mean(axis=0), known[over].std(axis=0)))
    return np.where(known.mask, 0.0, (raw - mean) / np.where(sd > 0, sd, 1.0)).astype(np.float32)
