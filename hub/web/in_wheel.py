"""Builds the page when a wheel is made, so that whoever installs it needs no Node."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BuildPage(BuildHookInterface):
    """Called by hatchling; pyproject.toml names this file."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the page; without Node, say so and leave it out."""
        folder = Path(self.root) / "hub" / "web"
        npm = shutil.which("npm")
        if version == "editable":
            return  # `make page` builds it, and again when it changes
        if npm:
            subprocess.run([npm, "run", "page"], cwd=folder, check=True)
        elif not (folder / "dist" / "index.html").is_file():
            self.app.display_warning("no npm: this wheel will have no live page")
