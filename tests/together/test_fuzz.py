"""Nothing that can be sent makes the codec or a hub fail; `python -m tests.fuzz` sends ten times as much and more."""

import random

from tests.abuse.hub import ENDLESS, hub_process
from tests.fuzz.live import throw
from tests.fuzz.mutants import try_codec


def test_only_protocol_errors_leave_the_codec() -> None:
    sound, refused = try_codec(random.Random(1), 100_000)
    assert sound > 1000  # the mutants are close to what is sound
    assert refused > 10_000


async def test_no_frame_makes_a_hub_fail() -> None:
    async with hub_process(limits={"greeting": 0.2}, **ENDLESS) as hub:
        assert await throw(hub, random.Random(1), 50_000) < 20
