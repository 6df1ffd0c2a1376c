"""Keeps the score of one round: who was asked, who answered, and whether it is over."""

import math
from dataclasses import dataclass, field
from enum import StrEnum


class Outcome(StrEnum):
    """How a round ends."""

    EVERYONE_ANSWERED = "everyone-answered"
    GOAL_REACHED = "goal-reached"
    DEADLINE_PASSED = "deadline-passed"
    CUT_SHORT = "cut-short"
    """The operator did not want to wait any longer, and enough had answered."""
    STOPPED = "stopped"
    """The operator asked the hub to stop, and enough had answered."""
    TOO_FEW_ANSWERED = "too-few-answered"
    """The round is abandoned: its answers are thrown away, and the same round is asked again."""


@dataclass(slots=True)
class Round:
    """One round: what was asked and what came. Time comes in as an argument, in seconds of any steady clock."""

    number: int
    attempt: int
    cohort: frozenset[str]
    goal: int
    """How many answers close the round early."""
    quorum: int
    """How many answers the round needs to count."""
    deadline: float
    answered: set[str] = field(default_factory=set)
    out: set[str] = field(default_factory=set)
    """Edges that are not awaited: they left, or their answer cannot be mended."""

    def outcome(self, now: float) -> Outcome | None:
        """Say how the round has ended, or None while it is open. Ask after everything heard and at every tick."""
        if len(self.answered) >= self.goal:
            whole = self.answered == self.cohort
            return Outcome.EVERYONE_ANSWERED if whole else Outcome.GOAL_REACHED
        if not self.awaited:
            return Outcome.EVERYONE_ANSWERED if self.has_quorum else Outcome.TOO_FEW_ANSWERED
        if now >= self.deadline:
            return Outcome.DEADLINE_PASSED if self.has_quorum else Outcome.TOO_FEW_ANSWERED
        return None

    @property
    def has_quorum(self) -> bool:
        """Whether enough have answered for the round to count."""
        return len(self.answered) >= self.quorum

    @property
    def awaited(self) -> frozenset[str]:
        """Who was asked, is here, and has not answered yet."""
        return self.cohort - self.answered - self.out


def quorum_of(goal: int, *, share: float) -> int:
    """Give how many of `goal` answers a round needs to count, at least one."""
    return max(1, math.ceil(share * goal - 1e-9))  # 0.55 * 100 is 55.00000000000001
