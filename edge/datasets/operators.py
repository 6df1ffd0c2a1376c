"""Makes torchvision's pictures and nets usable where torchvision and torch were built for different machines.

The package index gives Linux a torchvision built for CUDA. Beside a CPU-only torch its compiled part cannot
be loaded, and `import torchvision` stops at the first operator it wants to describe and does not find:
"operator torchvision::nms does not exist". Data sets, transforms and classifiers need no compiled operator,
so declaring the two names it looks up is enough. Calling them still fails, with torchvision's explanation.
"""

import importlib
import sys
from threading import Lock

import torch

_LOOKED_UP = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_lock = Lock()  # edges of a swarm may ask from many threads; a second import must not meet a half-done first


def make_torchvision_importable() -> None:
    """Import torchvision, and declare what it misses only if that fails; then any import of its parts works.

    Where torch and torchvision fit, nothing is declared. What torchvision raises for another reason goes on.
    """
    with _lock:
        try:
            importlib.import_module("torchvision")
        except RuntimeError as fault:
            if "operator torchvision::" not in str(fault):
                raise
            _declare_operators()
            _forget_half_imported()
            importlib.import_module("torchvision")


def _declare_operators() -> None:
    for name in _LOOKED_UP:
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", _SCHEMA)


def _forget_half_imported() -> None:
    """Python drops a package that failed to import but keeps its parts; the second try shall start afresh."""
    for name in [name for name in sys.modules if name.startswith("torchvision.")]:
        del sys.modules[name]
