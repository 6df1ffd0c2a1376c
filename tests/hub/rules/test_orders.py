"""What an operator may have done now, and what not: a sentence says why."""

import math
from typing import get_args

import msgspec
import pytest

from hub.config import Seconds
from hub.rules.orders import unable
from hub.rules.rounds import Round
from shared.messages import Order


def a_round(*, answered: int) -> Round:
    edges = frozenset("abcd")
    names = set(sorted(edges)[:answered])
    return Round(number=3, attempt=1, cohort=edges, goal=4, quorum=2, deadline=10.0, answered=names)


def test_a_round_is_closed_early_only_if_it_would_count() -> None:
    order = Order(action="next")
    assert unable(order, None, here=False) == "no round is open"
    assert unable(order, a_round(answered=1), here=False) == "1 answers are in, and round 3 needs 2 to count"
    assert unable(order, a_round(answered=2), here=False) == ""


@pytest.mark.parametrize(
    ("seconds", "sound"), [(0.5, True), (86_400.0, True), (0.0, False), (-1.0, False), (1e12, False)]
)
def test_a_deadline_is_a_time_that_can_pass(seconds: float, sound: bool) -> None:
    assert (unable(Order(action="deadline", seconds=seconds), None, here=False) == "") is sound


@pytest.mark.parametrize("seconds", [math.nan, math.inf])
def test_nonsense_is_no_deadline(seconds: float) -> None:
    assert "no deadline" in unable(Order(action="deadline", seconds=seconds), None, here=False)


def test_a_deadline_that_has_passed_is_refused_only_where_it_would_void_what_is_in() -> None:
    order = Order(action="deadline", seconds=1.0)
    assert unable(order, a_round(answered=1), here=False, elapsed=0.9) == ""
    assert "2.0 s old" in unable(order, a_round(answered=1), here=False, elapsed=2.0)
    assert unable(order, a_round(answered=2), here=False, elapsed=2.0) == ""


def test_only_who_is_here_can_be_sent_away() -> None:
    assert unable(Order(action="drop", edge="x"), None, here=False) == "no edge of that name is here"
    assert unable(Order(action="drop", edge="a"), None, here=True) == ""


@pytest.mark.parametrize("action", ["pause", "resume", "stop"])
def test_anything_else_can_always_be_done(action: str) -> None:
    assert unable(Order(action=action), None, here=False) == ""  # type: ignore[arg-type]


def test_an_operator_may_order_the_deadlines_that_the_settings_allow() -> None:
    most = next(meta.le for meta in get_args(Seconds) if isinstance(meta, msgspec.Meta))
    assert unable(Order(action="deadline", seconds=most), None, here=False) == ""
    assert unable(Order(action="deadline", seconds=math.nextafter(most, math.inf)), None, here=False)
