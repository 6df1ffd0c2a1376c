"""The page is small: what a browser loads of it, compressed."""

import gzip

from hub.views.page import BUILT
from tests.support.needs import lacks

_MOST = 80_000  # bytes


def test_the_whole_page_is_small() -> None:
    if not (BUILT / "index.html").is_file():
        lacks("the page is not built (make page)")
    sizes = {file.name: len(gzip.compress(file.read_bytes())) for file in BUILT.rglob("*") if file.is_file()}
    assert sum(sizes.values()) <= _MOST, sizes
