"""Ditto beside an app's own layers: the common model's stay apart from the own model's."""

import torch
from torch import nn

from tests.support.quadratics import fleet_of


class WithHead(nn.Module):
    """Two numbers, whose sum is held against the examples: w, which begins at 4, and head, at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(4.0, dtype=torch.float64))
        self.head = nn.Parameter(torch.tensor(0.0, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w + self.head - x


def test_an_edges_own_layers_are_trained_once_in_each_of_its_two_models() -> None:
    # lr = 1/4, lam = 1, on edge a, c = 0. Common (w, h), from w = 4, h = 0: e = w + h, both move by -e/4.
    # Own (v, u), at first the same; v is pulled to w: v <- v - ((v + u) + (v - w)) / 4, u <- u - (v + u) / 4.
    #   (4, 0):      (3, -1);                              (4, 0):  e = 4:  (3, -1)
    #   (3, -1):     e = 2: (5/2, -3/2);                   (3, -1): e = 2, v - w = 0:  (5/2, -3/2)
    #   (5/2, -3/2): e = 1: (9/4, -7/4);                   (5/2, -3/2): e = 1:  (9/4, -7/4)
    fleet = fleet_of(
        "ditto(lam=1)", model=WithHead, rules={"head": "own"}, lr=0.25,
        examples={"a": fleet_of("fedavg").examples["a"]},
    )  # fmt: skip
    for number in (-1, -3 / 2, -7 / 4):
        fleet.round()
        assert fleet.remembered("a", "own head") == number
        assert fleet.remembered("a", "ditto v head") == number
