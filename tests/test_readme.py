"""The README says what is: its settings table is the settings, and its example is an app that runs."""

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import torch

from hub.config import HELP, Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def test_the_settings_table_lists_every_setting_with_its_default_and_meaning() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", README, re.MULTILINE))
    for one in fields(Settings):
        shown = (
            "" if one.default in (None, "") else f"{one.default:g}" if isinstance(one.default, float) else one.default
        )
        assert rows.pop(one.name) == f"{shown} | {HELP[one.name]}"
    assert not rows


def test_the_example_app_passes_the_check(tmp_path: Path) -> None:
    (tmp_path / "my_app.py").write_text(re.search(r"```python\n(# my_app\.py.*?)```", README, re.DOTALL).group(1))  # type: ignore[union-attr]
    for name in ("mine.pt", "held_out.pt"):
        torch.save((torch.rand(40, 64), torch.arange(40) % 10), tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-m", "hub", "check", "my_app.py", "--set", "file=mine.pt"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "fedhub serve my_app.py" in done.stdout


def test_every_file_the_docs_link_to_exists() -> None:
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
