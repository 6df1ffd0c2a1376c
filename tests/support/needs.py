"""What some tests need of a machine: where it is not there they are skipped and say so, and under CI they fail."""

import os
from typing import NoReturn

import pytest


def lacks(what: str) -> NoReturn:
    """Skip the test that needs `what`, a sentence that says what is not here; with CI set, fail it."""
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(f"CI is set, so this must be tested, but {what}")
    pytest.skip(f"{what}: what needs it was skipped")
