"""Decides whom to ask in a round, so that the same seed asks the same edges."""

import math
from collections.abc import Iterable

import numpy as np


def goal_of(present: int, *, fraction: float) -> int:
    """Give how many answers a round wants: `max(C * K, 1)` of McMahan et al. 2017, Algorithm 1.

    Args:
        present: K, how many edges could be asked.
        fraction: C, the share of them that a round uses.
    """
    return max(1, round(fraction * present))


def select(
    present: Iterable[str], *, fraction: float, over_selection: float, seed: int, round: int, attempt: int
) -> tuple[frozenset[str], int]:
    """Choose the cohort of a round and say how many answers close it.

    The choice is a function of its arguments alone: nothing needs to be remembered for a resumed run to go on as
    if it had never stopped. Asking `over_selection` times as many as wanted makes the slowest not matter
    (Bonawitz et al. 2019 ask 130 %).

    Args:
        present: ids of the edges that can be asked, in any order.
        fraction: share of them that a round uses.
        over_selection: how many times that share is asked, at least 1.
        seed: of the run.
        round: number of the round.
        attempt: which try at this round it is; another try asks others.

    Returns:
        the cohort, and the goal: how many answers are wanted.
    """
    candidates = sorted(present)
    goal = goal_of(len(candidates), fraction=fraction)
    asked = min(len(candidates), math.ceil(goal * over_selection - 1e-9))  # 10 * 1.1 is 11.000000000000002
    dice = np.random.default_rng([seed, round, attempt])
    chosen = dice.choice(len(candidates), size=asked, replace=False)
    return frozenset(candidates[index] for index in chosen), goal
