"""Frames thrown at a hub that runs in a process of its own."""

import asyncio
import contextlib
import random

from shared.messages import Hello, Ready, Role
from tests.abuse.attacks import stay
from tests.abuse.hub import HubProcess
from tests.fuzz.mutants import frames
from tests.support.strangers import HANDSHAKE, message, stranger


async def throw(hub: HubProcess, dice: random.Random, count: int, *, at_once: int = 50, each: int = 50) -> float:
    """Throw `count` frames over many connections, most of them of edges that have joined; give the growth in MiB.

    Raises:
        AssertionError: the hub said something that is no fact, or plays no rounds any more.
    """
    numbers = iter(range(1, 1 + -(-count // each)))
    before: list[float] = []

    async def thrower() -> None:
        for number in numbers:
            if number == 200:  # what a hub needs once, it has by now
                before.append(hub.rss)
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                async with stranger(hub.url) as one:
                    one.writer.write(HANDSHAKE)
                    if dice.random() < 0.1:
                        one.writer.write(b"".join(frames(dice, 1)))  # before it was answered
                    await one.reader.readuntil(b"\r\n\r\n")
                    if dice.random() < 0.9:
                        one.writer.write(message(Hello(versions=(1,), edge=f"fuzz-{number}", role=Role.TRAINER)))
                    if dice.random() < 0.9:
                        await one.reader.read(1)  # the Welcome, or the end
                        one.writer.write(message(Ready(examples=1, data_bytes=1)))
                    one.writer.write(b"".join(frames(dice, each)))
                    if dice.random() < 0.5:
                        one.writer.write_eof()
                        await one.gone()

    await asyncio.gather(*(thrower() for _ in range(at_once)))
    assert hub.process.returncode is None, "the hub has died"
    growth = hub.rss - before[0] if before else 0.0
    staying = asyncio.create_task(stay(hub.url, "honest", hub.spec))
    closed = await hub.rounds(1)
    staying.cancel()
    await asyncio.gather(staying, return_exceptions=True)
    assert closed
    assert hub.noise == [], hub.noise
    return growth
