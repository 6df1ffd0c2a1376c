"""The same seed asks the same edges, everybody gets a turn, and a cohort has the size that was wanted."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.rules.selection import goal_of, select

TEN = [f"edge-{number:02}" for number in range(10)]


def cohort(**changes: object) -> frozenset[str]:
    settings = {"fraction": 0.3, "over_selection": 1.0, "seed": 7, "round": 1, "attempt": 1, **changes}
    return select(TEN, **settings)[0]  # type: ignore[arg-type]


def test_the_choice_depends_on_nothing_but_seed_round_and_try() -> None:
    assert cohort() == cohort()
    assert select(reversed(TEN), fraction=0.3, over_selection=1.0, seed=7, round=1, attempt=1)[0] == cohort()


def test_another_seed_round_or_try_asks_others() -> None:
    for what in ("seed", "round", "attempt"):
        assert len({cohort(**{what: number}) for number in range(1, 9)}) > 1


def test_in_the_long_run_everybody_is_asked_equally_often() -> None:
    asked = Counter(edge for round in range(1000) for edge in cohort(round=round))
    assert set(asked) == set(TEN)
    assert all(240 < times < 360 for times in asked.values())  # 300 expected, 4 standard deviations


@pytest.mark.parametrize(
    ("present", "fraction", "goal"),
    [(10, 1.0, 10), (10, 0.1, 1), (100, 0.1, 10), (10, 0.01, 1), (1, 0.5, 1), (7, 0.5, 4)],
)
def test_the_goal_is_the_papers_share_and_at_least_one(present: int, fraction: float, goal: int) -> None:
    assert goal_of(present, fraction=fraction) == goal


@pytest.mark.parametrize(("over", "asked"), [(1.0, 10), (1.1, 11), (1.3, 13), (1.25, 13), (5.0, 20)])
def test_over_selection_asks_more_than_are_wanted_but_not_more_than_are_here(over: float, asked: int) -> None:
    edges = [str(number) for number in range(20)]
    chosen, goal = select(edges, fraction=0.5, over_selection=over, seed=0, round=1, attempt=1)
    assert goal == 10
    assert len(chosen) == asked


def test_nobody_here_is_nobody_asked() -> None:
    assert select([], fraction=1.0, over_selection=1.0, seed=0, round=1, attempt=1)[0] == frozenset()


@settings(deadline=None)
@given(
    edges=st.sets(st.text(max_size=3), min_size=1, max_size=30),
    fraction=st.floats(0, 1, exclude_min=True),
    over=st.floats(1, 10),
    seed=st.integers(0, 2**53),
    round=st.integers(1, 2**31),
)
def test_a_cohort_is_part_of_those_who_are_here_and_large_enough_for_its_goal(
    edges: set[str], fraction: float, over: float, seed: int, round: int
) -> None:
    chosen, goal = select(edges, fraction=fraction, over_selection=over, seed=seed, round=round, attempt=1)
    assert chosen <= edges
    assert 1 <= goal <= len(chosen)
