"""Small rounds for tests of what the journal keeps: models of a few numbers, openings, and answers."""

from typing import Any

import numpy as np

from hub.spool import Kept, Opening
from shared.tensors import Tensors
from tests.support.examples import HASH, PLAN

Answers = tuple[tuple[Kept, bytes], ...]


def model(number: int) -> Tensors:
    """Give the model of a round."""
    return {"w": np.full(3, number, np.float32), "n": np.array(number)}


def memory(number: int) -> Tensors:
    """Give the server optimizer's memory after a round."""
    return {"m": np.array([number / 3])}


def opening(**changes: Any) -> Opening:
    """Make round 1 as it was asked, with `changes`."""
    said = {
        "run": "r1",
        "round": 1,
        "attempt": 1,
        "model": HASH,
        "cohort": ("a", "b", "c"),
        "goal": 3,
        "quorum": 2,
        "seconds": 60.0,
        "weight_cap": 10,
        "algorithm": "fedavg",
        "plan": PLAN,
        **changes,
    }
    return Opening(**said)


def answer(edge: str, after: float = 0.5, *, size: int = 40) -> tuple[Kept, memoryview]:
    """Make an edge's accepted update."""
    return Kept(edge=edge, after=after), memoryview((edge.encode() * size)[:size])


def plain(updates: Any) -> Answers:
    """Give updates as values that can be compared."""
    return tuple((kept, bytes(message)) for kept, message in updates)
