"""Takes the pictures of the page in `docs/img` from a real demo: `python -m tests.page.screenshots`."""

import argparse
import asyncio
import contextlib
import io
import re
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from hub.keys import read_keys
from shared.codec import encode
from shared.errors import FedhubError
from shared.link import connect
from shared.messages import Hello, Ready, Role, Train, Update, Welcome
from shared.tensors import ModelSpec
from tests.support.pages import chromium, looks

_FOLDER = Path(__file__).parents[2] / "docs" / "img"
_WIDE = {"width": 1440, "height": 900}
_PHONE = {"width": 390, "height": 844}
_COLOURS = 160  # of a picture


@asynccontextmanager
async def demo(folder: str) -> AsyncIterator[tuple[str, str]]:
    """Start a demo; give its address and the operator's key."""
    arguments = (
        "demo", "--port", "0", "--rounds", "30", "--deadline", "1.6", "--no-compare", "--log", "pretty",
        "--name", "demo",
    )  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hub", *arguments, "--runs", folder, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr
    try:
        while not (found := re.search(rb"listening on (ws://\S+)", line := await process.stderr.readline())):
            if not line:
                raise RuntimeError("the demo ended")
        while b"joined" not in (line := await process.stderr.readline()):
            if not line:
                raise RuntimeError("the demo ended")
        draining = asyncio.create_task(process.stderr.read())
        keys = read_keys(Path(folder))
        assert keys
        yield found[1].decode(), keys.operator
        draining.cancel()
    finally:
        process.terminate()
        await process.wait()


async def poison(url: str) -> None:
    """Be an edge whose every update is NaN."""
    link = await connect(url)
    with contextlib.suppress(FedhubError):
        await link.send(Hello(versions=(1,), edge="broken-laptop", role=Role.TRAINER, kind="laptop"))
        welcome = (await link.receive()).message
        assert isinstance(welcome, Welcome)
        spec = ModelSpec(welcome.spec)
        link.expect(spec)
        await link.send(Ready(examples=143, data_bytes=37_180))
        while True:
            task = (await link.receive()).message
            if isinstance(task, Train):
                await asyncio.sleep(0.3)
                update = Update(
                    run=task.run, round=task.round, attempt=task.attempt, model=task.model, spec=spec.digest,
                    examples=143, metrics={"loss": 1.0}, seconds=0.3,
                )  # fmt: skip
                poisoned = [np.full(one.shape, np.nan, one.dtype) for one in spec.tensors]
                await link.send(encode(update, poisoned))


async def main(rounds: int) -> None:
    """Take all four."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        async with demo(folder) as (url, key), chromium() as browser:
            poisoning = asyncio.create_task(poison(url))
            look = looks(browser)
            for place, size in (("wide", _WIDE), ("phone", _PHONE)):
                for scheme in ("light", "dark"):
                    async with look(url, key, away=True, viewport=size, color_scheme=scheme) as tab:
                        await tab.until(f"s.rows.length >= {rounds}")
                        rounds += 1
                        if place == "phone":  # what is below is drawn when it comes into view
                            height = await tab.page.evaluate("document.documentElement.scrollHeight")
                            await tab.page.set_viewport_size({"width": size["width"], "height": height})
                            await tab.settled()
                        await tab.page.wait_for_function(_SEEN)
                        taken = await tab.page.screenshot(animations="allow")
                        kept = _FOLDER / f"page-{place}-{scheme}.png"
                        picture = Image.open(io.BytesIO(taken)).convert("RGB")
                        picture.quantize(_COLOURS, dither=Image.Dither.NONE).save(kept, optimize=True)
                        print(f"{kept}  {picture.width}x{picture.height}  {kept.stat().st_size / 1e3:.0f} kB")
            poisoning.cancel()


# What is drawn, and not what is known: a round in which most are in, one is refused, and somebody is still at work.
_SEEN = """() => {
    const drawn = (id) => document.querySelector(`[data-testid=${id}]`);
    const lanes = [...drawn("lanes").children].map((lane) => lane.dataset);
    const are = (stage) => lanes.filter((lane) => lane.stage === stage && !lane.fate).length;
    return parseInt(drawn("round").textContent) === Number(drawn("lanes").dataset.round)
        && parseInt(drawn("answered").textContent) === are("done")
        && are("done") >= 6 && are("refused") === 1 && are("training") >= 1;
}"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8, help="how many shall be over")
    asyncio.run(main(parser.parse_args().rounds))
