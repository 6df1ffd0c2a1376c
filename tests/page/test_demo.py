"""`fedhub demo` as people start it: its page shows the federation while it learns."""

import asyncio
import re
import sys
from pathlib import Path

import pytest
from playwright.async_api import expect

from hub.keys import read_keys
from tests.support.pages import Look

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_demo_appears_on_its_page_and_learns_there(tmp_path: Path, look: Look) -> None:
    arguments = ("demo", "--port", "0", "--rounds", "500", "--deadline", "5", "--no-compare", "--log", "json")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hub", *arguments, "--runs", str(tmp_path), stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr
    try:
        while not (found := re.search(rb"listening on (ws://\S+)", line := await process.stderr.readline())):
            assert line, "the demo ended"
        while b"RunStarted" not in (line := await process.stderr.readline()):
            assert line, "the demo ended"
        draining = asyncio.create_task(process.stderr.read())
        keys = read_keys(tmp_path)
        assert keys
        async with look(found[1].decode(), keys.operator, away=True) as tab:
            await tab.until("Object.keys(s.edges).length >= 10")
            await tab.until("s.rows.length >= 2")
            await expect(tab.get("metric")).to_have_text(re.compile(r"\d+\.\d%"))
            await expect(tab.get("lanes").locator("li")).to_have_count(10)
            seen = len((await tab.state()).rows)
            await tab.until(f"s.rows.length > {seen}")
            state = await tab.state()
            assert state.rows[-1].metrics["accuracy"] > 0.2
            assert "demo" not in state.head.name or state.head.rounds == 500
            await tab.get("stop").click()
            await tab.get("confirm").click()
            await draining
            await process.wait()
            await expect(tab.get("phase")).to_contain_text("stopped by the operator")
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
