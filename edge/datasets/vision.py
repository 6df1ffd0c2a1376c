"""MNIST, its writers and Fashion-MNIST, ready for a net: read from this machine's disk or, once, from the internet."""

import gzip
import hashlib
import os
from functools import cache
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import numpy.typing as npt
from torch import Tensor

from edge.datasets.folder import default_root
from edge.datasets.operators import make_torchvision_importable
from shared.errors import ConfigError

Examples = tuple[Tensor, Tensor]

_PATIENCE = 5.0  # seconds without a byte, after which an address of a mirror counts as unreachable
_lock = Lock()  # the edges of a swarm may ask at once, from many threads: one does the work for all


def mnist(root: str | Path = "", *, download: bool = True) -> tuple[Examples, Examples]:
    """Give (60,000 training, 10,000 test) handwritten digits: images float32 (n, 1, 28, 28), labels int64 (n,).

    Over the training set, pixels have mean 0 and standard deviation 1. All callers in the process share the
    tensors: do not change them. `root` holds MNIST/raw with the four .gz files, or what is in them; it may be
    read-only, and is `default_root()` unless given. What is missing is downloaded into it, if `download` says
    so. Raises ConfigError where data are neither there nor to be had. LeCun, Bottou, Bengio and Haffner 1998.
    """
    with _lock:
        return _load("MNIST", Path(root or default_root()).expanduser(), download=download)


def fashion_mnist(root: str | Path = "", *, download: bool = True) -> tuple[Examples, Examples]:
    """Give, like `mnist`, ten kinds of clothing, from FashionMNIST/raw. Xiao, Rasul and Vollgraf 2017."""
    with _lock:
        return _load("FashionMNIST", Path(root or default_root()).expanduser(), download=download)


def writers(root: str | Path = "", *, download: bool = True) -> npt.NDArray[np.int64]:
    """Tell who wrote each of MNIST's 60,000 training digits: numbers int64 (60,000,) of 539 people.

    From QMNIST/raw/qmnist-train-labels-idx2-int.gz below `root`, of which the rest is as for `mnist`.
    Yadav and Bottou 2019, "Cold Case: The Lost MNIST Digits".
    """
    with _lock:
        return _writers(Path(root or default_root()).expanduser(), download=download)


_MEAN_AND_SD = {"MNIST": (0.1307, 0.3081), "FashionMNIST": (0.2860, 0.3530)}  # of training pixels in 0..1


@cache
def _load(name: str, root: Path, *, download: bool) -> tuple[Examples, Examples]:
    """Unpack into a folder of its own, and let torchvision read that.

    Unpacking beside the .gz files, as torchvision does, fails where the root is read-only; and of edges that
    start together, one would read what another has half written.
    """
    make_torchvision_importable()
    from torchvision import datasets

    dataset = getattr(datasets, name)
    with TemporaryDirectory(prefix="fedhub-") as scratch:
        raw = Path(scratch, name, "raw")
        raw.mkdir(parents=True)
        for filename, md5 in dataset.resources:
            packed = root / name / "raw" / filename
            mirrors = dataset.mirrors if download else []
            (raw / packed.stem).write_bytes(_content(packed, md5=md5, mirrors=mirrors))
        try:
            train, test = dataset(scratch, train=True), dataset(scratch, train=False)
        except (RuntimeError, ValueError, AssertionError) as fault:  # an unpacked file bears no checksum
            raise ConfigError(f"{root / name}/raw holds damaged files; delete those without .gz") from fault
    return _tensors(train, *_MEAN_AND_SD[name]), _tensors(test, *_MEAN_AND_SD[name])


@cache
def _writers(root: Path, *, download: bool) -> npt.NDArray[np.int64]:
    make_torchvision_importable()
    from torchvision.datasets import QMNIST

    url, md5 = QMNIST.resources["train"][1]
    mirror, _, filename = url.rpartition("/")
    packed = root / "QMNIST" / "raw" / filename
    content = _content(packed, md5=md5, mirrors=[f"{mirror}/"] if download else [])
    # After 12 bytes that say so: for each digit eight numbers, of which the third is its writer's.
    if len(content) != 12 + 60_000 * 8 * 4:  # an unpacked file bears no checksum
        raise ConfigError(f"{packed.with_suffix('')} is damaged; delete it")
    found = np.frombuffer(content, ">i4", offset=12).reshape(-1, 8)[:, 2].astype(np.int64)
    found.flags.writeable = False
    return found


def _content(packed: Path, *, md5: str, mirrors: list[str]) -> bytes:
    """Give what one .gz file holds: out of it, of its unpacked form beside it, or of a mirror's copy."""
    if packed.is_file() and _md5(found := packed.read_bytes()) == md5:
        return gzip.decompress(found)
    if packed.with_suffix("").is_file():
        return packed.with_suffix("").read_bytes()
    reasons = []
    for mirror in mirrors:
        try:
            return gzip.decompress(_fetch(mirror + packed.name, md5=md5, into=packed))
        except (OSError, HTTPException) as fault:
            reasons.append(f"{urlsplit(mirror).hostname}: {getattr(fault, 'reason', fault)}")
    name = packed.parts[-3]
    why = f"could not be downloaded ({'; '.join(reasons)})" if mirrors else "may not be downloaded"
    raise ConfigError(
        f"{name} is not in {packed.parent} ({packed.name} is missing or damaged) and {why}; "
        f"connect to the internet once, or set FEDHUB_DATA to a folder that holds {name}/raw"
    )


def _fetch(url: str, *, md5: str, into: Path) -> bytes:
    """Download a file, and give it its name on disk only once it is whole."""
    with urlopen(url, timeout=_PATIENCE) as answer:
        content: bytes = answer.read()
    if _md5(content) != md5:
        raise OSError("sent another file than torchvision knows")
    into.parent.mkdir(parents=True, exist_ok=True)
    partial = into.with_name(f"{into.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(into)
    return content


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _tensors(dataset: Any, mean: float, sd: float) -> Examples:
    images = dataset.data.unsqueeze(1).float().div_(255).sub_(mean).div_(sd)
    return images, dataset.targets
