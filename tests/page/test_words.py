"""Page and terminal write a number in the same way."""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hub.views.words import number, percent, took
from shared.console import size
from tests.support.needs import lacks

WEB = Path(__file__).parents[2] / "hub" / "web"

# Translates words.ts with the bundler that builds the page, and writes every value with each of its functions.
_WRITE = """
    import { readFileSync } from "node:fs";
    import { transformWithOxc } from "vite";
    const { code } = await transformWithOxc(readFileSync("src/words.ts", "utf-8"), "words.ts");
    const words = await import(`data:text/javascript,${encodeURIComponent(code)}`);
    const values = JSON.parse(readFileSync(0, "utf-8"));
    const all = (name, ...before) => values.map((value) => words[name](...before, value));
    console.log(JSON.stringify({
        seconds: all("seconds"), size: all("size"), percent: all("percent"),
        loss: all("measured", "loss"), accuracy: all("measured", "accuracy"),
        personal_accuracy: all("measured", "personal_accuracy"),
    }));
"""


def test_numbers_are_written_as_the_terminal_writes_them() -> None:
    # Where the system has no Node, `make page` has put PyPI's beside Python.
    node = shutil.which("node", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if not (node and (WEB / "node_modules" / "vite").is_dir()):
        lacks("what builds the page is not here (make page)")
    shares = [number / 997 for number in range(0, 998, 7)]
    longer = [3.3 * 1.37**power for power in range(60)]
    values = [0, 1, 0.0004, 0.99994, 999, 1000, 119.9, 120.1, 7199, 7201, *shares, *longer]
    done = subprocess.run(
        [node, "--input-type=module", "-e", _WRITE], input=json.dumps(values), cwd=WEB, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    written = json.loads(done.stdout)
    python: dict[str, Callable[[float], Any]] = {
        "seconds": took,
        "size": size,
        "percent": percent,
        "loss": lambda value: number("loss", value),
        "accuracy": lambda value: number("accuracy", value),
        "personal_accuracy": lambda value: number("personal_accuracy", value),
    }
    for name, write in python.items():
        ours = {value: write(value) for value in values}
        theirs = dict(zip(values, written[name], strict=True))
        assert {value: (ours[value], theirs[value]) for value in values if ours[value] != theirs[value]} == {}, name
    assert took(math.inf) == "?"
