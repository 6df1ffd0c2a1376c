"""A model in a file: safetensors, written so that a file either holds all of it for good or does not exist."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, deserialize

from shared.disk import Disk, RealDisk, failure
from shared.errors import Damaged
from shared.tensors import Tensors, raw

SPARE = "spare.writing"
"""Name of the file beside a model that the next one is written into: a former model, to be overwritten, or none."""
_ORDER = "fedhub.order"
_DTYPES = {
    "BOOL": np.dtype("bool"), "U8": np.dtype("uint8"), "I8": np.dtype("int8"),
    "I16": np.dtype("int16"), "U16": np.dtype("uint16"),
    "F16": np.dtype("float16"), "BF16": np.dtype(ml_dtypes.bfloat16),
    "I32": np.dtype("int32"), "U32": np.dtype("uint32"), "F32": np.dtype("float32"),
    "F64": np.dtype("float64"), "I64": np.dtype("int64"), "U64": np.dtype("uint64"),
}  # fmt: skip  # in the library's order, of which the last comes first in a file: so every tensor is aligned
_LABELS = {dtype.name: (-rank, label) for rank, (label, dtype) in enumerate(_DTYPES.items())}


def write_tensors(path: Path, tensors: Tensors, disk: Disk | None = None) -> None:
    """Write `tensors` to `path` and force them to the disk before the name appears. One at a time for each folder.

    Raises:
        JournalError: the disk did not take them (DiskFull: for now); `path` is as it was.
    """
    write_tensors_as(lambda: path.name, path.parent, tensors, disk or RealDisk(), what=str(path))


def write_tensors_as(
    name: Callable[[], str], folder: Path, tensors: Tensors, disk: Disk, *, what: str = "a snapshot"
) -> str:
    """The same, into a file of `folder` whose name is asked for when all is written, and given back."""
    temporary = folder / SPARE
    try:
        disk.write(temporary, parts_of_file(tensors))
        disk.sync(temporary)
        called = name()
        disk.rename(temporary, folder / called)
        disk.sync_folder(folder)
    except OSError as error:
        with suppress(OSError):
            disk.remove(temporary)
        raise failure(error, f"write {what}") from None
    return called


def parts_of_file(tensors: Tensors) -> list[bytes | memoryview]:
    """Give a safetensors file in parts, as the library makes it: a head, and the tensors' own memory."""
    order = json.dumps(list(tensors))  # safetensors sorts tensors; a model's spec has an order of its own
    head: dict[str, object] = {"__metadata__": {_ORDER: order}}
    parts: list[bytes | memoryview] = []
    end = 0
    for (_, label), name in sorted((_LABELS[array.dtype.name], name) for name, array in tensors.items()):
        parts.append(raw(tensors[name]))
        begin, end = end, end + tensors[name].nbytes
        head[name] = {"dtype": label, "shape": tensors[name].shape, "data_offsets": (begin, end)}
    text = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little") + text, *parts]


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
