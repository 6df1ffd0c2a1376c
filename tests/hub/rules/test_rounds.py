"""A round is over when it should be: never early, never left hanging, and it says how."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.rules.rounds import Outcome, Round, quorum_of

FIVE = frozenset("abcde")


def round_of(cohort: frozenset[str] = FIVE, *, goal: int = 5, quorum: int = 3, deadline: float = 10.0) -> Round:
    return Round(number=1, attempt=1, cohort=cohort, goal=goal, quorum=quorum, deadline=deadline)


def test_a_round_is_open_while_somebody_is_awaited() -> None:
    round = round_of()
    round.answered |= set("abcd")
    assert round.outcome(9.999) is None
    assert round.awaited == {"e"}


def test_a_round_ends_when_everyone_has_answered() -> None:
    round = round_of()
    round.answered |= FIVE
    assert round.outcome(0.0) is Outcome.EVERYONE_ANSWERED


def test_a_round_ends_early_when_as_many_have_answered_as_were_wanted() -> None:
    round = round_of(goal=4)
    round.answered |= set("abc")
    assert round.outcome(0.0) is None
    round.answered.add("e")
    assert round.outcome(0.0) is Outcome.GOAL_REACHED


def test_a_round_ends_when_the_last_awaited_edge_leaves() -> None:
    round = round_of()
    round.answered |= set("abc")
    round.out |= set("d")
    assert round.outcome(0.0) is None
    round.out |= set("e")
    assert round.outcome(0.0) is Outcome.EVERYONE_ANSWERED


def test_a_round_that_everyone_left_has_failed_at_once() -> None:
    round = round_of()
    round.answered |= set("ab")
    round.out |= set("cde")
    assert round.outcome(0.0) is Outcome.TOO_FEW_ANSWERED


@pytest.mark.parametrize(("answers", "outcome"), [("abc", Outcome.DEADLINE_PASSED), ("ab", Outcome.TOO_FEW_ANSWERED)])
def test_the_deadline_ends_a_round_to_the_instant(answers: str, outcome: Outcome) -> None:
    round = round_of()
    round.answered |= set(answers)
    assert round.outcome(9.999999) is None
    assert round.outcome(10.0) is outcome


def test_an_answer_counts_though_its_edge_left_afterwards() -> None:
    round = round_of(frozenset("ab"), goal=2, quorum=1)
    round.answered.add("a")
    round.out.add("a")
    assert round.awaited == {"b"}
    assert round.has_quorum


def test_an_edge_that_came_back_is_awaited_again() -> None:
    round = round_of(frozenset("a"), goal=1, quorum=1)
    round.out.add("a")
    assert round.outcome(0.0) is Outcome.TOO_FEW_ANSWERED
    round.out.discard("a")
    assert round.outcome(0.0) is None


@pytest.mark.parametrize(
    ("goal", "share", "quorum"),
    [
        (10, 0.5, 5),
        (9, 0.5, 5),
        (10, 1.0, 10),
        (10, 0.7, 7),
        (100, 0.55, 55),
        (100, 0.07, 7),
        (3, 0.01, 1),
        (1, 1e-12, 1),
    ],
)
def test_the_quorum_is_its_share_of_the_goal_rounded_up_and_at_least_one(goal: int, share: float, quorum: int) -> None:
    assert quorum_of(goal, share=share) == quorum


@settings(deadline=None)
@given(goal=st.integers(1, 10_000), percent=st.integers(1, 100))
def test_no_rounding_error_asks_for_one_more(goal: int, percent: int) -> None:
    assert quorum_of(goal, share=percent / 100) == max(1, -(-goal * percent // 100))


@settings(deadline=None)
@given(
    asked=st.sets(st.integers(0, 9), min_size=1),
    goal=st.integers(1, 10),
    quorum=st.integers(1, 10),
    steps=st.lists(st.tuples(st.sampled_from(["answer", "leave", "return"]), st.integers(0, 9))),
)
def test_whatever_happens_a_round_is_over_exactly_when_nothing_more_can_change(
    asked: set[int], goal: int, quorum: int, steps: list[tuple[str, int]]
) -> None:
    cohort = frozenset(map(str, asked))
    goal = min(goal, len(cohort))
    round = round_of(cohort, goal=goal, quorum=min(quorum, goal))
    for step, number in steps:
        edge = str(number)
        if edge in cohort and step == "answer":
            round.answered.add(edge)
        elif edge in cohort and step == "leave":
            round.out.add(edge)
        else:
            round.out.discard(edge)
        outcome = round.outcome(0.0)
        assert (outcome is None) == (len(round.answered) < goal and bool(round.awaited))
        assert (outcome is Outcome.TOO_FEW_ANSWERED) <= (not round.has_quorum)
    assert round.outcome(10.0) is not None
