"""Gives each file of tests a browser, and each of its pages a fresh profile; or says why there is none."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.support.needs import lacks
from tests.support.pages import Look, chromium, looks, missing


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Start Chromium."""
    if what := missing():
        lacks(what)
    async with chromium() as started:
        yield started


@pytest.fixture
def look(browser: Browser) -> Look:
    """Open the page of a hub: `async with look(hub) as tab`."""
    return looks(browser)
