"""Facts reach everybody in order; a slow follower loses its oldest and knows how many, and nobody else notices."""

import asyncio
from collections.abc import Callable
from itertools import count

import pytest

from hub.events import Fact, Missed, RoundCommitted, Stamped, from_line, to_line
from hub.feed import Feed, Follower


def fact(round: int) -> Fact:
    return RoundCommitted(round=round, model="")


def ticking() -> Callable[[], float]:
    times = count(100)
    return lambda: float(next(times))


async def read(follower: Follower) -> list[Stamped]:
    """Read a feed that has ended."""
    return [stamped async for stamped in follower]


def rounds(facts: list[Stamped]) -> list[int | str]:
    """The rounds that a follower was told of, and what it missed."""
    return [
        f"missed {one.fact.count}" if isinstance(one.fact, Missed) else one.fact.round  # type: ignore[union-attr]
        for one in facts
    ]


async def test_a_fact_gets_its_number_and_its_time_when_it_is_published() -> None:
    feed = Feed(ticking())
    follower = feed.follow()
    feed.publish(fact(1))
    feed.publish(fact(2))
    feed.close()
    assert await read(follower) == [Stamped(1, 100.0, fact(1)), Stamped(2, 101.0, fact(2))]


async def test_the_time_is_that_of_the_clock_on_the_wall() -> None:
    feed = Feed()
    follower = feed.follow()
    feed.publish(fact(1))
    feed.close()
    assert (await read(follower))[0].time > 1.7e9


async def test_publishing_to_nobody_is_fine() -> None:
    Feed().publish(fact(1))


async def test_every_follower_is_told_everything_from_when_it_began() -> None:
    feed = Feed()
    early = feed.follow()
    feed.publish(fact(1))
    late = feed.follow()
    feed.publish(fact(2))
    feed.close()
    assert rounds(await read(early)) == [1, 2]
    assert rounds(await read(late)) == [2]


async def test_a_newcomer_may_hear_what_happened_lately() -> None:
    feed = Feed()
    for number in range(300):
        feed.publish(fact(number))
    newcomer = feed.follow(recent=True)
    feed.publish(fact(300))
    feed.close()
    assert rounds(await read(newcomer)) == [*range(300 - 256, 301)]


async def test_a_newcomer_without_room_for_what_happened_lately_misses_some() -> None:
    feed = Feed()
    for number in range(5):
        feed.publish(fact(number))
    newcomer = feed.follow(recent=True, room=2)
    feed.close()
    assert rounds(await read(newcomer)) == ["missed 3", 3, 4]


async def test_a_waiting_follower_is_told_at_once() -> None:
    feed = Feed()
    told = aiter(feed.follow())
    hearing = asyncio.create_task(anext(told))
    await asyncio.sleep(0)  # it waits now
    feed.publish(fact(7))
    assert (await hearing).fact == fact(7)


async def test_a_slow_follower_loses_the_oldest_and_is_told_where_and_how_many() -> None:
    feed = Feed(ticking())
    slow, quick = feed.follow(room=3), feed.follow()
    for number in range(1, 8):
        feed.publish(fact(number))
    feed.close()
    heard = await read(slow)
    assert rounds(heard) == ["missed 4", 5, 6, 7]
    assert [one.seq for one in heard] == [4, 5, 6, 7]
    assert rounds(await read(quick)) == [1, 2, 3, 4, 5, 6, 7]


async def test_a_gap_stands_where_it_happened() -> None:
    feed = Feed()
    follower = feed.follow(room=2)
    told = aiter(follower)
    feed.publish(fact(1))
    first = await anext(told)
    for number in range(2, 6):
        feed.publish(fact(number))
    feed.close()
    assert rounds([first, *[one async for one in told]]) == [1, "missed 2", 4, 5]


async def test_a_follower_that_is_forgotten_reads_what_it_was_told_and_no_more() -> None:
    feed = Feed()
    follower, other = feed.follow(), feed.follow()
    feed.publish(fact(1))
    feed.forget(follower)
    feed.forget(follower)
    feed.publish(fact(2))
    feed.close()
    assert rounds(await read(follower)) == [1]
    assert rounds(await read(other)) == [1, 2]


async def test_the_end_of_the_feed_ends_a_follower_that_waits() -> None:
    feed = Feed()
    reading = asyncio.create_task(read(feed.follow()))
    await asyncio.sleep(0)  # it waits now
    feed.close()
    assert await reading == []


async def test_a_feed_can_repeat_another_ones_facts_as_they_were() -> None:
    feed = Feed(ticking())
    follower = feed.follow()
    feed.repeat(Stamped(41, 7.5, fact(3)))
    feed.publish(fact(4))
    feed.close()
    assert await read(follower) == [Stamped(41, 7.5, fact(3)), Stamped(42, 100.0, fact(4))]


@pytest.mark.parametrize("told", [Stamped(1, 2.5, fact(3)), Stamped(9, 1e9 + 0.125, Missed(count=4))])
def test_a_fact_is_one_line_of_json_and_comes_back(told: Stamped) -> None:
    assert "\n" not in to_line(told)
    assert from_line(to_line(told)) == told
