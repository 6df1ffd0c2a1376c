"""Fuzz the codec and a live hub: `python -m tests.fuzz --headers 1000000 --frames 1000000`."""

import argparse
import asyncio
import random
import time

from tests.abuse.hub import ENDLESS, hub_process
from tests.fuzz.live import throw
from tests.fuzz.mutants import try_codec


async def _frames(seed: int, count: int) -> None:
    async with hub_process(limits={"greeting": 0.2}, **ENDLESS) as hub:
        began = time.monotonic()
        growth = await throw(hub, random.Random(seed), count)
        print(
            f"frames   {count:>9,}  {time.monotonic() - began:6.1f} s  0 exceptions out, "
            f"hub {growth:+.1f} MiB since the 200th connection, peak {hub.peak:.0f} MiB"
        )


def main() -> None:
    """Read the command line and do as it says."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--headers", type=int, default=1_000_000)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    began = time.monotonic()
    sound, refused = try_codec(random.Random(wanted.seed), wanted.headers)
    print(
        f"headers  {wanted.headers:>9,}  {time.monotonic() - began:6.1f} s  {refused:,} refused, "
        f"{sound:,} were messages still, 0 other exceptions"
    )
    asyncio.run(_frames(wanted.seed, wanted.frames))


if __name__ == "__main__":
    main()
