"""The numbers of a model as named arrays, and the exact description both sides hold them to."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, cast, get_args

import ml_dtypes
import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.errors import ConfigError, SpecMismatch

DType = Literal[
    "float16", "bfloat16", "float32", "float64",
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool",
]  # fmt: skip

Array = NDArray[Any]
Tensors = Mapping[str, Array]
"""Arrays by name, in the order of the model's spec."""

_NUMPY: dict[str, np.dtype[Any]] = {
    name: np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name).newbyteorder("<") for name in get_args(DType)
}
_FLOATS = ("float16", "bfloat16", "float32", "float64")


class TensorSpec(msgspec.Struct, frozen=True, array_like=True):
    """One tensor of a model, as it crosses the wire: `[name, dtype, shape]`."""

    name: str
    dtype: DType
    shape: Annotated[tuple[Annotated[int, msgspec.Meta(ge=0, le=2**32)], ...], msgspec.Meta(max_length=64)]

    @property
    def is_float(self) -> bool:
        """Whether the tensor can be averaged; integers and booleans have a rule of their own."""
        return self.dtype in _FLOATS

    @property
    def nbytes(self) -> int:
        """Size in bytes: elements times element size, little-endian and C-contiguous."""
        return math.prod(self.shape) * _NUMPY[self.dtype].itemsize

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}{list(self.shape)}"


@dataclass(frozen=True)
class ModelSpec:
    """What a model consists of: its tensors' names, dtypes and shapes, in order."""

    tensors: tuple[TensorSpec, ...]

    @classmethod
    def of(cls, tensors: Tensors) -> "ModelSpec":
        """Describe `tensors`.

        Raises:
            ConfigError: a tensor has a dtype that cannot cross the wire (complex, quantised, ...), or is too long.
        """
        specs = []
        for name, array in tensors.items():
            dtype = array.dtype.name
            if dtype not in _NUMPY:
                raise ConfigError(
                    f"tensor {name!r} has dtype {dtype}, which cannot be federated; "
                    f"convert it to one of {', '.join(_NUMPY)}"
                )
            if array.nbytes >= 2**32:
                raise ConfigError(f"tensor {name!r} takes {array.nbytes} bytes; 4 GiB is the most")
            specs.append(TensorSpec(name, cast(DType, dtype), tuple(array.shape)))
        return cls(tuple(specs))

    @cached_property
    def nbytes(self) -> int:
        """Bytes of all tensors together, without padding."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @cached_property
    def parameters(self) -> int:
        """How many numbers the model holds."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors)

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits that are equal exactly when two specs are equal: of the SHA-256 of their JSON."""
        return hashlib.sha256(msgspec.json.encode(self.tensors)).hexdigest()[:16]

    def views(self, segments: Sequence[bytes | memoryview]) -> dict[str, Array]:
        """Read `segments` (one per tensor, in order) as typed read-only arrays, without copying.

        Raises:
            SpecMismatch: another number of tensors, or a tensor of another byte length.
        """
        if len(segments) != len(self.tensors):
            raise SpecMismatch(f"{len(segments)} tensors came, the model has {len(self.tensors)}")
        arrays = {}
        for tensor, segment in zip(self.tensors, segments, strict=True):
            view = memoryview(segment)
            if view.nbytes != tensor.nbytes:
                raise SpecMismatch(f"{tensor} takes {tensor.nbytes} bytes, {view.nbytes} came")
            array = np.frombuffer(view, np.uint8).view(_NUMPY[tensor.dtype]).reshape(tensor.shape)
            array.flags.writeable = False
            arrays[tensor.name] = array
        return arrays

    def difference(self, other: "ModelSpec") -> str | None:
        """Say in a few words where `other` departs from this spec first, or None if it does not."""
        for mine, theirs in zip(self.tensors, other.tensors, strict=False):
            if mine != theirs:
                return f"{theirs} instead of {mine}"
        if len(self.tensors) != len(other.tensors):
            return f"{len(other.tensors)} tensors instead of {len(self.tensors)}"
        return None


def magnitude(array: Array) -> float:
    """Give the largest absolute value; NaN if there is one (minimum and maximum pass it on, and make no copies)."""
    if array.size == 0:
        return 0.0
    with np.errstate(invalid="ignore"):  # bfloat16 warns of NaN; the answer tells of it
        low, high = float(np.min(array)), float(np.max(array))
    return math.nan if math.isnan(low) or math.isnan(high) else max(-low, high)


def raw(array: Array) -> memoryview:
    """Give the bytes of `array` as they cross the wire: little-endian, C order; no copy where they already are so."""
    return np.ascontiguousarray(array, _NUMPY[array.dtype.name]).reshape(-1).view(np.uint8).data


def sha256(tensors: Tensors) -> str:
    """64 hexadecimal digits that name this model: the SHA-256 over the spec's digest and all tensors' bytes."""
    digest = hashlib.sha256(ModelSpec.of(tensors).digest.encode())
    for array in tensors.values():
        digest.update(raw(array))
    return digest.hexdigest()
