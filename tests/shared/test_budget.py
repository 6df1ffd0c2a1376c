"""Memory for long messages: who gets it and when, and that nobody writes where somebody still reads."""

import asyncio
import ctypes
import random
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from shared import budget as budget_module
from shared.budget import AT_ONCE, Budget, Room, Store, return_large_memory
from shared.codec import ALIGNMENT
from tests.simulation.loop import VirtualLoop

MIB = 2**20
MANY = 100
TICK = budget_module._TICK
PATIENCE = (budget_module._PATIENCE + 1) * TICK
FAST = int(budget_module._SLOW * TICK)


def in_virtual_time(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a story on a loop whose hours pass at once."""
    loop = VirtualLoop(random.Random(0))
    try:
        loop.run_until_complete(story())
    finally:
        loop.close()


def let_in(rooms: list[Room]) -> int:
    return sum(room.memory is not None for room in rooms)


class Line:
    """Those who ask a budget for room."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.rooms: dict[str, Room] = {}
        self.granted: list[str] = []

    def ask(self, name: str, nbytes: int) -> Room:
        room = self.rooms[name] = self.budget.ask(nbytes, lambda: self.granted.append(name))
        return room

    @property
    def served(self) -> list[str]:
        return [name for name, room in self.rooms.items() if room.memory is not None]


# --- the line ---


async def test_room_is_given_out_in_the_order_in_which_it_is_asked_for_and_nobody_overtakes() -> None:
    line = Line(Budget(10))
    a, b, c = line.ask("a", 6), line.ask("b", 8), line.ask("c", 1)
    assert (line.served, line.granted, line.budget.taken) == (["a"], [], 6)
    a.give_back()
    assert (line.served, line.granted, line.budget.taken) == (["b", "c"], ["b", "c"], 9)
    b.give_back()
    c.give_back()
    assert (line.served, line.budget.taken) == ([], 0)


async def test_room_that_is_there_at_once_is_there_without_a_call() -> None:
    line = Line(Budget(10))
    room = line.ask("a", 10)
    assert room.memory is not None
    assert len(room.memory) == 10
    assert line.granted == []


async def test_room_given_back_twice_is_given_back_once() -> None:
    line = Line(Budget(10))
    a, b = line.ask("a", 6), line.ask("b", 4)
    a.give_back()
    a.give_back()
    assert line.budget.taken == 4
    b.give_back()
    assert line.budget.taken == 0


async def test_whoever_gives_up_waiting_makes_place_in_the_line() -> None:
    line = Line(Budget(10))
    a, b = line.ask("a", 10), line.ask("b", 10)
    line.ask("c", 10)
    b.give_back()
    b.give_back()
    a.give_back()
    assert (line.served, line.granted, line.budget.taken) == (["c"], ["c"], 10)


async def test_a_message_longer_than_the_whole_budget_gets_all_of_it() -> None:
    line = Line(Budget(10))
    a, b = line.ask("a", 100), line.ask("b", 1)
    assert (line.served, line.budget.taken) == (["a"], 10)
    assert a.memory is not None
    assert len(a.memory) == 100
    a.give_back()
    assert (line.served, line.budget.taken) == (["b"], 1)
    b.give_back()


async def test_a_thousand_that_have_no_more_use_for_their_room_when_they_get_it_are_served_one_after_the_other() -> (
    None
):
    budget, rooms = Budget(10), list[Room]()
    first = budget.ask(10, lambda: None)
    for number in range(1000):
        rooms.append(budget.ask(10, lambda number=number: rooms[number].give_back()))  # type: ignore[misc]
    last = budget.ask(10, lambda: None)
    first.give_back()
    assert last.memory is not None
    assert budget.taken == 10


async def test_whoever_asks_for_more_when_it_is_granted_stands_in_line_again() -> None:
    budget, more = Budget(10), list[Room]()
    first = budget.ask(10, lambda: None)

    def again() -> None:
        second.give_back()
        more.append(budget.ask(10, lambda: more.append(third)))

    second = budget.ask(10, again)
    third = budget.ask(10, lambda: None)
    first.give_back()
    assert third.memory is not None
    assert [room.memory for room in more] == [None]
    third.give_back()
    assert more[0].memory is not None
    assert budget.taken == 10


async def test_memory_is_kept_for_the_next_message_and_not_when_nobody_has_room_any_more() -> None:
    budget = Budget(10 * MIB)
    rooms = [budget.ask(MIB, lambda: None) for _ in range(AT_ONCE)]
    first, rest = rooms[0], rooms[1:]
    assert first.memory is not None
    where = address(first.memory)
    first.give_back()
    again = budget.ask(MIB, lambda: None)
    assert again.memory is not None
    assert address(again.memory) == where
    for room in (again, *rest):
        room.give_back()
    assert budget._store._free == []


# --- how many at a time ---


def test_few_are_let_in_at_first_however_large_the_budget_is() -> None:
    async def story() -> None:
        budget = Budget(MANY)
        rooms = [budget.ask(1, lambda: None) for _ in range(MANY)]
        assert let_in(rooms) == budget.taken == AT_ONCE
        rooms[0].give_back()
        assert let_in(rooms) == budget.taken == AT_ONCE

    in_virtual_time(story)


def test_more_and_more_are_let_in_while_those_let_in_are_slow_up_to_the_whole_budget() -> None:
    async def story() -> None:
        budget = Budget(MANY)
        rooms = [budget.ask(1, lambda: None) for _ in range(2 * MANY)]
        served = [let_in(rooms)]
        while let_in(rooms) < MANY:
            await asyncio.sleep(TICK)
            served.append(let_in(rooms))
        assert len(served) < 80
        assert served == sorted(served)
        await asyncio.sleep(200 * TICK)
        assert let_in(rooms) == budget.taken == MANY

    in_virtual_time(story)


async def pass_a_tick(rooms: list[Room], fast: slice = slice(0)) -> None:
    """Let the budget look once; who is fast has brought enough until then."""
    for room in rooms[fast]:
        room.came += FAST
    await asyncio.sleep(TICK)


def test_no_more_are_let_in_while_those_let_in_are_fast() -> None:
    async def story() -> None:
        budget = Budget(MANY)
        rooms = [budget.ask(1, lambda: None) for _ in range(MANY)]
        for _ in range(20):
            await pass_a_tick(rooms, slice(AT_ONCE))
            assert let_in(rooms) == AT_ONCE

    in_virtual_time(story)


def test_who_has_just_been_let_in_is_not_slow_yet() -> None:
    async def story() -> None:
        budget = Budget(MANY)
        rooms = [budget.ask(1, lambda: None) for _ in range(MANY)]
        await asyncio.sleep(PATIENCE - TICK / 2)
        assert let_in(rooms) == AT_ONCE
        await asyncio.sleep(TICK)
        assert let_in(rooms) == 2 * AT_ONCE

    in_virtual_time(story)


@pytest.mark.parametrize("slow", [1, 2, 10])
def test_slow_ones_hold_up_no_fast_one(slow: int) -> None:
    async def story() -> None:
        budget = Budget(MANY)
        rooms = [budget.ask(1, lambda: None) for _ in range(slow)]
        while let_in(rooms) < slow:
            await pass_a_tick(rooms)
        rooms += [budget.ask(1, lambda: None) for _ in range(MANY)]
        for _ in range(40):
            await pass_a_tick(rooms, slice(slow, slow + AT_ONCE))
        assert let_in(rooms) == slow + AT_ONCE
        rooms[slow].give_back()
        assert let_in(rooms) == slow + AT_ONCE

    in_virtual_time(story)


def test_no_more_are_let_in_while_the_hub_has_messages_to_work_on() -> None:
    async def story() -> None:
        budget = Budget(MANY)
        rooms = [budget.ask(1, lambda: None) for _ in range(MANY)]
        await asyncio.sleep(PATIENCE + TICK / 2)
        assert let_in(rooms) == 2 * AT_ONCE
        for room in rooms[:AT_ONCE]:  # slow they were, and now it is the hub that is
            budget.is_whole(room)
        await asyncio.sleep(20 * TICK)
        assert let_in(rooms) == 2 * AT_ONCE
        rooms[0].give_back()
        await asyncio.sleep(TICK)
        assert let_in(rooms) == 2 * AT_ONCE

    in_virtual_time(story)


def test_fewer_are_let_in_again_as_soon_as_those_let_in_are_fast() -> None:
    async def story() -> None:
        budget = Budget(MANY)
        rooms = [budget.ask(1, lambda: None) for _ in range(3 * MANY)]
        await asyncio.sleep(3600 + TICK / 2)  # all of the budget is taken by lines that stand still
        assert let_in(rooms) == MANY
        await pass_a_tick(rooms, slice(MANY))
        for room in rooms[: MANY - 1]:
            room.give_back()
        assert let_in(rooms) == AT_ONCE

    in_virtual_time(story)


def test_few_are_let_in_again_when_nobody_has_waited_for_a_while() -> None:
    async def story() -> None:
        budget = Budget(MANY)
        rooms = [budget.ask(1, lambda: None) for _ in range(MANY // 2)]
        await asyncio.sleep(200 * TICK)
        assert let_in(rooms) == MANY // 2
        for room in rooms:
            room.give_back()
        rooms = [budget.ask(1, lambda: None) for _ in range(MANY)]
        assert let_in(rooms) == AT_ONCE

    in_virtual_time(story)


def test_the_clock_of_a_budget_stands_still_while_nobody_waits() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        budget = Budget(MANY)
        for _ in range(3):
            rooms = [budget.ask(1, lambda: None) for _ in range(MANY)]
            for room in rooms:
                room.give_back()
            await asyncio.sleep(2 * TICK)
            assert loop._timers == []
        assert budget.taken == 0

    in_virtual_time(story)


# --- memory ---


def address(memory: memoryview) -> int:
    return int(np.frombuffer(memory, np.uint8).ctypes.data)


@pytest.mark.parametrize("nbytes", [1, 63, 64, 65, 1000, MIB, MIB + 1])
def test_memory_is_aligned_and_as_long_as_it_was_asked_for(nbytes: int) -> None:
    memory = Store().take(nbytes)
    assert (len(memory), memory.readonly, memory.format) == (nbytes, False, "B")
    assert address(memory) % ALIGNMENT == 0


VIEWS: dict[str, Callable[[memoryview], object]] = {
    "itself": lambda memory: memory,
    "a slice": lambda memory: memory[10:20],
    "read only": lambda memory: memory.toreadonly()[MIB // 2 :],
    "an array": lambda memory: np.frombuffer(memory, np.uint8),
    "an array of a slice": lambda memory: np.frombuffer(memory[64:128].toreadonly(), np.float32).reshape(4, 4),
    "a part of an array": lambda memory: np.frombuffer(memory, np.uint8)[::2][5:7],
    "a view of another type": lambda memory: np.frombuffer(memory, np.uint8).view(np.float64)[:1],
    "a cast": lambda memory: memory.cast("f"),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_memory_is_used_again_when_its_last_view_is_gone_and_not_before(view: Callable[[memoryview], object]) -> None:
    store = Store()
    memory = store.take(MIB)
    where = address(memory)
    left = view(memory)
    del memory
    others = [store.take(MIB) for _ in range(3)]
    assert where not in map(address, others)
    del left
    assert address(store.take(MIB)) == where


def test_memory_is_not_used_for_longer_messages_nor_for_much_shorter_ones() -> None:
    store = Store(keep=1)
    memory = store.take(MIB)
    where = address(memory)
    del memory
    others = [store.take(nbytes) for nbytes in (MIB + 1, MIB // 2 - 1)]
    assert where not in map(address, others)
    assert address(store.take(MIB // 2)) == where


def test_only_so_much_memory_is_kept_as_was_said_the_rest_is_let_go() -> None:
    store = Store(keep=2)
    some = [store.take(MIB) for _ in range(5)]
    assert store._free == []
    some.clear()
    assert len(store._free) == 2


def test_memory_whose_last_view_dies_in_another_thread_does_not_upset_the_store() -> None:
    store, dying, over = Store(keep=1), list[memoryview](), threading.Event()

    def let_go() -> None:
        while not over.is_set():
            if len(dying) > 1:
                dying.pop()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    other = threading.Thread(target=let_go)
    other.start()
    try:
        for number in range(5000):
            nbytes = 2000 + number % 2 * 1000
            memory = store.take(nbytes)
            assert len(memory) == nbytes
            dying.append(memory)
            del memory
    finally:
        over.set()
        other.join()
        sys.setswitchinterval(before)


def test_large_memory_goes_back_to_the_system_where_the_system_can_be_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    return_large_memory()

    def none(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", none)
    return_large_memory()
