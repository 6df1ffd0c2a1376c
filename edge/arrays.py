"""Turns torch's tensors into numpy's arrays and back: what crosses the wire is the latter."""

import ml_dtypes
import numpy as np
import torch

from shared.errors import ConfigError
from shared.tensors import Array


def to_numpy(tensor: torch.Tensor) -> Array:
    """Give a tensor's values as a numpy array; without a copy where it lives on the CPU."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype is torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    try:
        if tensor.is_complex():
            raise TypeError
        return tensor.numpy()
    except (TypeError, RuntimeError):  # numpy has no such numbers: quantised, 8 bit floats, ...
        raise ConfigError(f"tensors of {tensor.dtype} cannot be federated; convert the model to float32") from None


def to_torch(array: Array) -> torch.Tensor:
    """Give an array's values as a tensor: a copy, because what comes from the wire is read-only."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(np.array(array).view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def moved(now: Array, before: Array, factor: float = 1.0) -> Array:
    """Give how far a float tensor moved, times `factor`; integers and booleans are told as they are."""
    if now.dtype.kind in "biu":
        return now.copy()
    return now - before if factor == 1.0 else ((now - before).astype("float64") * factor).astype(before.dtype)
