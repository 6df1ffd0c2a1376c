"""torchvision can be used, whether or not it was built for the torch beside it."""

import subprocess
import sys
from pathlib import Path

import torch

from edge.datasets.operators import make_torchvision_importable

AFTER_A_FAILED_IMPORT = """
import contextlib
with contextlib.suppress(RuntimeError):
    import torchvision
from edge.datasets.operators import make_torchvision_importable
make_torchvision_importable()
import torchvision.datasets, torchvision.models, torchvision.transforms
print(torchvision.extension.__name__)
"""
WHO_DECLARED = """
import torch
from edge.datasets.operators import make_torchvision_importable
make_torchvision_importable()
print(hasattr(torch.ops.torchvision, "nms"))
"""


def run(program: str, *path: Path) -> str:
    """What a program prints in a Python of its own, where a warning is an error: an import happens only once."""
    path_lines = f"import sys; sys.path[:0] = {[str(folder) for folder in path]}\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", path_lines + program],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


def test_datasets_transforms_and_models_import_and_run() -> None:
    make_torchvision_importable()
    from torchvision import datasets, models, transforms

    assert transforms.ToTensor()(datasets.FakeData(size=1)[0][0]).shape == (3, 224, 224)
    assert models.squeezenet1_1()(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)


def test_it_works_again_and_after_somebodys_import_has_failed() -> None:
    make_torchvision_importable()
    assert run(AFTER_A_FAILED_IMPORT) == "torchvision.extension\n"


def test_a_torchvision_that_imports_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").touch()
    assert run(WHO_DECLARED, tmp_path) == "False\n"


def test_a_torchvision_that_fails_for_another_reason_says_so(tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('out of order')")
    caught = "try:\n" + "".join(f"    {line}\n" for line in WHO_DECLARED.strip().split("\n"))
    assert run(caught + "except RuntimeError as fault:\n    print(fault)", tmp_path) == "out of order\n"
