"""MNIST and Fashion-MNIST come from wherever their files are; where they are not, a plain sentence says what to do."""

import gzip
import hashlib
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from edge.datasets import vision
from edge.datasets.operators import make_torchvision_importable
from shared.errors import ConfigError

DATA = Path(os.environ.get("FEDHUB_TEST_DATA") or Path(__file__).parents[4] / "shared" / "data")


def needs(name: str) -> pytest.MarkDecorator:
    reason = f"{DATA}/{name}/raw is not there: FEDHUB_TEST_DATA may name a folder that has it"
    return pytest.mark.skipif(not (DATA / name / "raw").is_dir(), reason=reason)


def looks_right(examples: tuple[Tensor, Tensor], count: int) -> bool:
    images, labels = examples
    return (
        (images.shape, images.dtype) == ((count, 1, 28, 28), torch.float32)
        and (labels.shape, labels.dtype) == ((count,), torch.int64)
        and set(labels.tolist()) == set(range(10))
    )


@needs("MNIST")
def test_the_real_mnist_is_normalised_and_read_from_packed_files_without_a_trace() -> None:
    before = sorted(DATA.rglob("*"))
    train, test = vision.mnist(DATA, download=False)
    assert looks_right(train, 60_000)
    assert looks_right(test, 10_000)
    assert train[1][:5].tolist() == [5, 0, 4, 1, 9]
    assert abs(train[0].mean().item()) < 1e-3
    assert abs(train[0].std().item() - 1) < 1e-3
    assert sorted(DATA.rglob("*")) == before


@needs("FashionMNIST")
def test_the_real_fashion_mnist_comes_likewise_and_only_once() -> None:
    train, test = vision.fashion_mnist(DATA, download=False)
    assert looks_right(train, 60_000)
    assert looks_right(test, 10_000)
    assert abs(train[0].mean().item()) < 1e-3
    assert vision.fashion_mnist(str(DATA), download=False)[0] is train


# From here on a tiny MNIST, whose pictures are 0, 1, 2 ... all over, stands in for the large one.

CONTENTS = {
    f"{which}-{file}": bytes([0, 0, 8, *head]) + body
    for which, n in [("train", 4), ("t10k", 2)]
    for file, head, body in [
        (
            "images-idx3-ubyte",
            [3, 0, 0, 0, n, 0, 0, 0, 28, 0, 0, 0, 28],
            bytes(i for i in range(n) for _ in range(784)),
        ),
        ("labels-idx1-ubyte", [1, 0, 0, 0, n], bytes(range(n))),
    ]
}
PACKED = {f"{name}.gz": gzip.compress(content) for name, content in CONTENTS.items()}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Any:
    """torchvision's own class, told that the tiny files are the right ones, and that no mirror has them."""
    make_torchvision_importable()
    from torchvision import datasets

    checksums = [(name, hashlib.md5(packed).hexdigest()) for name, packed in PACKED.items()]
    monkeypatch.setattr(datasets.MNIST, "resources", checksums)
    monkeypatch.setattr(datasets.MNIST, "mirrors", [])
    return datasets.MNIST


def put(root: Path, files: dict[str, bytes]) -> Path:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (raw / name).write_bytes(content)
    return root


def is_tiny(data: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]) -> bool:
    (images, labels), (_, test_labels) = data
    normalised = [(pixel / 255 - 0.1307) / 0.3081 for pixel in range(4)]
    return (
        torch.allclose(images.mean((1, 2, 3)), torch.tensor(normalised))
        and labels.tolist() == [0, 1, 2, 3]
        and test_labels.tolist() == [0, 1]
    )


@pytest.mark.usefixtures("tiny")
def test_unpacked_files_do_as_well(tmp_path: Path) -> None:
    assert is_tiny(vision.mnist(put(tmp_path, CONTENTS)))


@pytest.mark.usefixtures("tiny")
def test_edges_that_ask_at_once_get_the_same_tensors(tmp_path: Path) -> None:
    put(tmp_path, PACKED)
    with ThreadPoolExecutor(4) as edges:
        first, *others = edges.map(vision.mnist, [tmp_path] * 8)
    assert is_tiny(first)
    assert all(other is first for other in others)


def test_what_is_missing_or_damaged_is_downloaded_once_and_kept(tiny: Any, tmp_path: Path) -> None:
    liar = put(tmp_path / "liar", dict.fromkeys(PACKED, b"Please log in to this network."))
    honest = put(tmp_path / "honest", PACKED)
    tiny.mirrors[:] = [f"{(mirror / 'MNIST' / 'raw').as_uri()}/" for mirror in (liar, honest)]
    root = put(tmp_path / "root", {"train-images-idx3-ubyte.gz": b"cut off"})

    assert is_tiny(vision.mnist(root))
    assert {file.name: file.read_bytes() for file in (root / "MNIST" / "raw").iterdir()} == PACKED
    assert is_tiny(vision.mnist(root, download=False))


def test_without_a_network_one_sentence_says_what_is_missing_where_and_what_to_do(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        tiny.mirrors[:] = [f"http://127.0.0.1:{server.getsockname()[1]}/"]  # nobody listens once it is closed
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(ConfigError) as caught:
        vision.mnist(tmp_path)
    assert str(caught.value).startswith(
        f"MNIST is not in {tmp_path}/MNIST/raw (train-images-idx3-ubyte.gz is missing or damaged) "
        "and could not be downloaded (127.0.0.1: "
    )
    assert str(caught.value).endswith(
        "); connect to the internet once, or set FEDHUB_DATA to a folder that holds MNIST/raw"
    )


@pytest.mark.usefixtures("tiny")
def test_nothing_is_asked_of_the_network_where_downloads_are_forbidden(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="and may not be downloaded; connect"):
        vision.mnist(tmp_path, download=False)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("damage", [b"", CONTENTS["train-images-idx3-ubyte"][:100], b"no pictures at all"])
def test_damaged_unpacked_files_are_named_as_such(damage: bytes, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="MNIST/raw holds damaged files; delete those without"):
        vision.mnist(put(tmp_path, CONTENTS | {"train-images-idx3-ubyte": damage}))
