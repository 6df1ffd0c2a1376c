"""The page is small: what a browser loads of it, compressed."""

import gzip
import os

import pytest

from hub.views.page import BUILT

_MOST = 80_000  # bytes


def test_the_whole_page_is_small() -> None:
    if not (BUILT / "index.html").is_file():
        assert not os.environ.get("CI"), "CI is set, so the page must be tested, but it is not built (make page)"
        pytest.skip("the page is not built (make page): its size was not looked at")
    sizes = {file.name: len(gzip.compress(file.read_bytes())) for file in BUILT.rglob("*") if file.is_file()}
    assert sum(sizes.values()) <= _MOST, sizes
