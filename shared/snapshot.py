"""A model in a file: safetensors, written so that a file either holds all of it for good or does not exist."""

import json
from contextlib import suppress
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from shared.disk import Disk, RealDisk, failure
from shared.errors import Damaged
from shared.tensors import Tensors

_ORDER = "fedhub.order"
_DTYPES = {
    "F16": np.dtype("float16"), "BF16": np.dtype(ml_dtypes.bfloat16), "F32": np.dtype("float32"),
    "F64": np.dtype("float64"), "BOOL": np.dtype("bool"),
    "I8": np.dtype("int8"), "I16": np.dtype("int16"), "I32": np.dtype("int32"), "I64": np.dtype("int64"),
    "U8": np.dtype("uint8"), "U16": np.dtype("uint16"), "U32": np.dtype("uint32"), "U64": np.dtype("uint64"),
}  # fmt: skip


def write_tensors(path: Path, tensors: Tensors, disk: Disk | None = None) -> None:
    """Write `tensors` to `path` and force them to the disk before the name appears.

    Raises:
        JournalError: the disk did not take them (DiskFull: for now); `path` is as it was.
    """
    disk = disk or RealDisk()
    temporary = path.with_name(path.name + ".writing")
    body = save(
        {name: np.asarray(array, order="C") for name, array in tensors.items()},
        {_ORDER: json.dumps(list(tensors))},  # safetensors sorts tensors; a model's spec has an order of its own
    )
    try:
        disk.write(temporary, [body])
        disk.sync(temporary)
        disk.rename(temporary, path)
        disk.sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            disk.remove(temporary)
        raise failure(error, f"write {path}") from None


def read_tensors(path: Path, disk: Disk | None = None) -> Tensors:
    """Read a safetensors file: in the order it was written by `write_tensors`, or by name.

    Raises:
        JournalError: it cannot be read (Damaged: it is not a safetensors file).
    """
    try:
        body = (disk or RealDisk()).read(path)
    except OSError as error:
        raise failure(error, f"read {path}") from None
    try:
        entries = dict(deserialize(body))  # type: ignore[no-untyped-call]  # safetensors has no types for it
        header = json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])
        names = json.loads(header.get("__metadata__", {}).get(_ORDER, "null")) or sorted(entries)
        return {
            name: np.frombuffer(entries[name]["data"], np.uint8)
            .view(_DTYPES[entries[name]["dtype"]])
            .reshape(entries[name]["shape"])
            for name in names
        }
    except (SafetensorError, ValueError, TypeError, KeyError) as error:  # the latter three of a damaged order
        raise Damaged(f"cannot read {path}: {error}") from None
