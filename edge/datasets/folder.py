"""Finds the data sets that people put into a folder, and holds what each of their people has written or worn."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.errors import ConfigError


@dataclass(frozen=True)
class Owned:
    """Examples that belong to somebody; the arrays are read-only, as every caller gets the same."""

    x: npt.NDArray[Any]
    """Inputs (n, ...)."""
    y: npt.NDArray[np.int64]
    """Targets (n, ...)."""
    owner: npt.NDArray[Any]
    """Whose each example is (n,): a name or a number."""

    def __post_init__(self) -> None:
        self.x.flags.writeable = self.y.flags.writeable = self.owner.flags.writeable = False


def default_root() -> Path:
    """Tell where data sets are kept: the folder in the environment's FEDHUB_DATA, else ~/.cache/fedhub/data."""
    return Path(os.environ.get("FEDHUB_DATA") or "~/.cache/fedhub/data").expanduser()


def path_of(file: str, root: str | Path, *, source: str) -> Path:
    """Give the path of `file`, such as `shakespeare/input.txt`, below `root`, or below `default_root()` if that is "".

    Raises:
        ConfigError: it is not there; says that it comes from `source`, and where to put it.
    """
    path = Path(root or default_root()).expanduser() / file
    if not path.is_file():
        raise ConfigError(
            f"{path} is not there; get {path.name} from {source} and put it there, "
            f"or say with --data root=FOLDER (fedhub: --set root=FOLDER) which folder holds {file}"
        )
    return path


def text_of(path: Path) -> str:
    """Read a text file of plain ASCII.

    Raises:
        ConfigError: it cannot be read, or is no such text.
    """
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as fault:
        why = fault.strerror if isinstance(fault, OSError) else "it is no plain text"
        raise ConfigError(f"{path} cannot be read ({why}); get it again") from None
