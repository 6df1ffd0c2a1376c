"""What hostile, broken and honest edges do to a hub; each ends when the hub ends it, and says how long that took."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

import numpy as np
from websockets.frames import Opcode

from shared.codec import Frame, encode
from shared.errors import LinkClosed
from shared.link import connect
from shared.messages import Goodbye, Hello, Ready, Role, Train, Update
from shared.tensors import ModelSpec
from tests.support.strangers import HANDSHAKE, frame, head_of, stranger

Attack = Callable[[str, int], Awaitable[object]]


async def is_silent(url: str, number: int) -> None:
    """Open a socket and say nothing."""
    async with stranger(url) as one:
        await one.gone()


async def drips_a_header(url: str, number: int) -> None:
    """Send a byte of the HTTP request each second."""
    async with stranger(url) as one:
        dripping = asyncio.create_task(one.drip(HANDSHAKE, every=1.0))
        await one.gone()
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)


async def says_too_much(url: str, number: int) -> None:
    """Send 5 KB where 4 are allowed, and stay."""
    async with stranger(url) as one:
        await one.shake_hands()
        one.writer.write(frame(bytes(5000)))
        await one.gone()


async def never_reads(url: str, number: int) -> None:
    """Join, and read nothing from then on. That the hub has had enough shows when a write fails."""
    async with stranger(url) as one:
        await one.join(f"deaf-{number}")
        one.writer.transport.pause_reading()
        with contextlib.suppress(OSError):
            while not one.writer.transport.is_closing():
                one.writer.write(frame(b"", Opcode.PONG))
                await asyncio.sleep(0.25)


async def drips_in_a_frame(url: str, number: int) -> None:
    """Join, and send a long message at a byte a second."""
    async with stranger(url) as one:
        await one.join(f"drip-{number}")
        one.writer.write(head_of(30_000))
        dripping = asyncio.create_task(one.drip(bytes(30_000), every=1.0))
        await one.gone()
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)


async def drips_fragments(url: str, number: int) -> None:
    """Join, and send a long message in fragments of one byte, with pongs between them."""
    async with stranger(url) as one:
        await one.join(f"crumbs-{number}")
        one.writer.write(frame(b"\x80", fin=False))
        crumb = frame(b"x", Opcode.CONT, fin=False) + frame(b"", Opcode.PONG)
        dripping = asyncio.create_task(one.drip(crumb * 10_000, every=0.1, size=len(crumb)))
        await one.gone()
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)


async def stay(url: str, name: str, spec: ModelSpec, *, upload: bool = True) -> Goodbye | LinkClosed:
    """Be an honest edge without a training: download, answer, until the hub ends it; give how it did."""
    ones = [np.ones(tensor.shape, tensor.dtype) for tensor in spec.tensors]
    link = await connect(url)
    try:
        await link.send(Hello(versions=(1,), edge=name, role=Role.TRAINER))
        await link.receive()
        link.expect(spec)
        await link.send(Ready(examples=1, data_bytes=100))
        while True:
            said = (await link.receive()).message
            if isinstance(said, Goodbye):
                return said
            if isinstance(said, Train) and upload:
                await link.send(_answer(said, spec, ones))
    except LinkClosed as closed:
        return closed
    finally:
        link.abort()


def _answer(task: Train, spec: ModelSpec, tensors: Iterable[np.ndarray]) -> Frame:
    update = Update(
        run=task.run,
        round=task.round,
        attempt=task.attempt,
        model=task.model,
        spec=spec.digest,
        examples=1,
        metrics={"loss": 1.0},
        seconds=0.0,
    )
    return encode(update, tensors)


@asynccontextmanager
async def fleet(
    url: str, spec: ModelSpec, size: int, *, prefix: str = "edge"
) -> AsyncIterator[list["asyncio.Task[object]"]]:
    """Have honest edges."""
    async with running(*(stay(url, f"{prefix}-{number}", spec) for number in range(size))) as lives:
        yield lives


@asynccontextmanager
async def running(*stories: Awaitable[object]) -> AsyncIterator[list["asyncio.Task[object]"]]:
    """Let stories run beside; whoever is left at the end is stopped."""
    async with AsyncExitStack() as stack:
        tasks = [asyncio.ensure_future(story) for story in stories]

        async def end() -> None:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        stack.push_async_callback(end)
        yield tasks


async def gone_after(attack: Attack, url: str, count: int) -> list[float]:
    """Attack with many at once; give the seconds after which each was ended."""

    async def one(number: int) -> float:
        began = time.monotonic()
        await attack(url, number)
        return time.monotonic() - began

    return await asyncio.gather(*(one(number) for number in range(count)))
