"""Momentum on the edge: it sends a mean of what it did in this round and before, in which noise cancels out."""

from dataclasses import dataclass

import torch

from edge.arrays import to_numpy, to_torch
from edge.learner import Trained
from edge.local.algorithm import Local
from edge.work import Work, named

_MOMENTUM = "momentum m"


@dataclass(frozen=True)
class Momentum(Local):
    """m_k <- beta m_k + (1 - beta) (w - w_t), with w after plain steps from w_t; m_k is sent. At first it is w - w_t.

    Karimireddy, He, Jaggi 2021: honest edges' updates come nearer to each other, hostile ones cannot hide among them.
    """

    beta: float

    def train(self, work: Work) -> Trained:
        """Take the steps, and mix."""
        work.descend()
        moved = work.moved()
        before = work.remembered(_MOMENTUM)
        begun = any(key.startswith(f"{_MOMENTUM} ") for key in work.memory)
        beta = self.beta if begun else 0.0
        mixed = {name: torch.lerp(to_torch(moved[name]).to(m.device), m, beta) for name, m in before.items()}
        sent = {**moved, **{name: to_numpy(one) for name, one in mixed.items()}}
        return work.answer(sent, remember=named(_MOMENTUM, mixed))
