"""What edges say waits in one line: in order, never lost, and a full line makes the speakers wait."""

import asyncio
import itertools
from collections.abc import Callable

import pytest

from hub.connections.inbox import Inbox, Item, Joined, Left, Stop


def at(time: float) -> Callable[[], float]:
    """A clock that stands still."""
    return lambda: time


async def put(inbox: Inbox, item: Item) -> None:
    """Say something as a session does: put it in, and wait for room before the next."""
    inbox.post(item)
    await inbox.has_room()


async def waits(task: "asyncio.Task[object]") -> bool:
    """Tell whether a task still waits after everything that can go on has gone on."""
    _, pending = await asyncio.wait([task], timeout=0.01)
    return bool(pending)


async def test_items_come_out_in_the_order_in_which_they_went_in() -> None:
    inbox = Inbox(at(0.0))
    items = [Joined("a", 1.0), Left("a", 2.0), Stop(3.0), Joined("b", 0.5)]
    inbox.post(items[0])
    await put(inbox, items[1])
    inbox.post(items[2])
    await put(inbox, items[3])
    assert [await inbox.next() for _ in items] == items


async def test_whoever_listens_hears_an_item_as_soon_as_it_is_there() -> None:
    inbox = Inbox(at(0.0))
    listening = asyncio.create_task(inbox.next())
    assert await waits(listening)
    inbox.post(Stop(1.0))
    assert await listening == Stop(1.0)


async def test_a_full_line_makes_the_speaker_wait_until_there_is_room() -> None:
    inbox = Inbox(at(0.0), room=2)
    await put(inbox, Joined("a", 1.0))
    await put(inbox, Joined("b", 1.0))
    third, fourth = (asyncio.create_task(put(inbox, Joined(edge, 1.0))) for edge in "cd")
    assert await waits(third)
    assert await inbox.next() == Joined("a", 1.0)
    assert await waits(third)  # there are still three
    assert await inbox.next() == Joined("b", 1.0)
    await asyncio.gather(third, fourth)
    assert [await inbox.next(), await inbox.next()] == [Joined("c", 1.0), Joined("d", 1.0)]


async def test_news_that_must_not_wait_goes_into_a_full_line() -> None:
    inbox = Inbox(at(0.0), room=1)
    for edge in "abc":
        inbox.post(Left(edge, 1.0))
    assert [await inbox.next() for _ in "abc"] == [Left(edge, 1.0) for edge in "abc"]


async def test_what_a_speaker_said_counts_though_it_left_while_it_waited() -> None:
    inbox = Inbox(at(0.0), room=0)
    speaking = asyncio.create_task(put(inbox, Joined("a", 1.0)))
    assert await waits(speaking)
    speaking.cancel()
    await asyncio.wait([speaking])
    assert await inbox.next() == Joined("a", 1.0)


async def test_nothing_is_heard_when_the_time_has_come() -> None:
    assert await Inbox(at(5.0)).next(until=5.0) is None
    assert await Inbox(at(5.0)).next(until=4.0) is None


async def test_what_is_there_is_heard_even_when_the_time_has_come() -> None:
    inbox = Inbox(at(9.0))
    inbox.post(Stop(1.0))
    assert await inbox.next(until=5.0) == Stop(1.0)
    assert await inbox.next(until=5.0) is None


async def test_the_time_comes_while_nobody_speaks() -> None:
    clock = asyncio.get_running_loop().time
    inbox = Inbox(clock)
    until = clock() + 0.01
    assert await inbox.next(until=until) is None
    assert clock() >= until


async def test_a_clock_that_is_slower_than_the_timer_is_asked_again() -> None:
    times = itertools.chain([0.0, 0.0005, 0.0009], itertools.repeat(1.0))
    inbox = Inbox(lambda: next(times))
    assert await inbox.next(until=0.001) is None
    assert next(times) == 1.0


async def test_an_item_in_time_is_heard_at_once() -> None:
    inbox = Inbox(at(0.0))
    listening = asyncio.create_task(inbox.next(until=3600.0))
    assert await waits(listening)
    inbox.post(Stop(1.0))
    assert await listening == Stop(1.0)


@pytest.mark.parametrize("room", [0, 1, 5])
async def test_many_speakers_and_one_listener_lose_nothing(room: int) -> None:
    inbox = Inbox(at(0.0), room=room)

    async def speak(edge: str) -> None:
        for number in range(20):
            await put(inbox, Joined(edge, number))

    speakers = [asyncio.create_task(speak(str(edge))) for edge in range(10)]
    heard = [await inbox.next() for _ in range(200)]
    await asyncio.gather(*speakers)
    for edge in range(10):
        assert [item.arrived for item in heard if isinstance(item, Joined) and item.edge == str(edge)] == [*range(20)]
