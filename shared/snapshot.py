"""A model in a file: safetensors, written so that a file either holds all of it for good or does not exist."""

import json
import os
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from shared.errors import JournalError
from shared.tensors import Tensors

_ORDER = "fedhub.order"


def write_tensors(path: Path, tensors: Tensors) -> None:
    """Write `tensors` to `path` and force them to the disk before the name appears.

    Raises:
        JournalError: the disk did not take them; `path` is as it was.
    """
    temporary = path.with_name(path.name + ".writing")
    try:
        save_file(
            {name: np.asarray(array, order="C") for name, array in tensors.items()},
            temporary,
            {_ORDER: json.dumps(list(tensors))},  # safetensors sorts tensors; a model's spec has an order of its own
        )
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise JournalError(f"cannot write {path}: {error}") from None


def read_tensors(path: Path) -> Tensors:
    """Read a safetensors file: in the order it was written by `write_tensors`, or by name.

    Raises:
        JournalError: it cannot be read, or is not a safetensors file.
    """
    try:
        with safe_open(path, "np") as file:
            names = json.loads((file.metadata() or {}).get(_ORDER, "null")) or sorted(file.keys())
            return {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError, ValueError, TypeError) as error:  # the latter two of a damaged order
        raise JournalError(f"cannot read {path}: {error}") from None


def _sync_folder(folder: Path) -> None:
    """Force a folder's list of names to the disk, where the system can (Windows cannot, and need not)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
