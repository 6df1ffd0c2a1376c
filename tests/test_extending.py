"""docs/extending.md is right: its toy algorithm, put where it says, runs, passes its test and all that go over all."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text("utf-8")
BLOCKS = re.findall(r"^`([\w/.]+)`:\n\n```(python|diff)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def extended(folder: Path) -> Path:
    """Copy the hub and its tests of aggregation, and do to them what the page says."""
    for part in ("hub", "shared", "tests/hub/aggregation", "tests/support"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("web", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name, kind, text in BLOCKS:
        file = folder / name
        if kind == "python":
            assert not file.exists()
            file.write_text(text, "utf-8")
            continue
        lines, context = file.read_text("utf-8").splitlines(), ""
        for line in text.splitlines():
            if line.startswith("+"):
                lines.insert(lines.index(context) + 1, line[1:])
            context = line[1:]
        file.write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_toy_passes_its_own_test_and_those_of_all_algorithms(tmp_path: Path) -> None:
    folder = extended(tmp_path)
    tests = ("test_fedsign.py", "test_catalogue.py", "test_step.py")
    told = run(folder, "-m", "pytest", "-v", *(f"tests/hub/aggregation/{name}" for name in tests))
    assert "test_fedsign.py::test_three_rounds_on_a_quadratic_are_what_they_are_by_hand PASSED" in told
    assert "test_no_length_of_a_block_changes_a_bit[fedsign] PASSED" in told
    assert "FAILED" not in told


def test_the_toy_is_there_for_the_command_line_and_checked_like_the_others(tmp_path: Path) -> None:
    folder = extended(tmp_path)
    assert "fedsign(server_lr=0.01)" in run(
        folder, "-m", "hub", "config", "show", "--algorithm", "fedsign(server_lr=0.01)"
    )
    run(folder, "-m", "ruff", "check", "hub", "tests/hub/aggregation")
    run(folder, "-m", "ruff", "format", "--check", "hub", "tests/hub/aggregation")
    run(folder, "-m", "mypy", "hub/aggregation")
