"""Gives each file of tests a browser, and each of its pages a fresh profile; or says why there is none."""

import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.support.pages import Look, chromium, looks, missing


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Start Chromium."""
    if reason := missing():
        if os.environ.get("CI", "").lower() not in ("", "0", "false"):
            pytest.fail(f"CI is set, so the page must be tested, but {reason.partition(':')[0]}")
        pytest.skip(reason)
    async with chromium() as started:
        yield started


@pytest.fixture
def look(browser: Browser) -> Look:
    """Open the page of a hub: `async with look(hub) as tab`."""
    return looks(browser)
