"""FedBN keeps batch normalisation on its edge: its statistics by hand, and what is said of a model that has none."""

import pytest
import torch
from torch import nn

from hub.aggregation.fedbn import keep_norms
from shared.errors import ConfigError
from shared.exchange import Exchange
from tests.support.quadratics import Fleet, columns, fleet_of


class Normalised(nn.Module):
    """w + batchnorm(x), with half of each batch's statistics, and a scale of 0 so that w alone is put out at first."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(7.0, dtype=torch.float64))
        self.norm = nn.BatchNorm1d(1, momentum=0.5, dtype=torch.float64)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w + self.norm(x)


def a_fleet(text: str) -> Fleet:
    return fleet_of(text, model=Normalised, examples={"a": columns([1.0, 3.0]), "b": columns([-3.0, 1.0])}, lr=0.25)


def test_three_rounds_are_what_they_are_by_hand() -> None:
    # Targets are 0, and normalised batches have mean 0: the slope of w and of the shift s_k is e = w + s_k; the scale
    # has slope 0 and stays 0. s_k is alike on both edges, as they begin alike: both move by -e/4.
    #   w = 7, s = 0:  e = 7;  w = 21/4, s = -7/4;   e = 7/2;  w = 35/8, s = -21/8;   e = 7/4;  w = 63/16, s = -49/16
    # Batches have mean 2 and (unbiased) variance 2 on edge a, -1 and 8 on b; half of them is taken each time:
    #   a: mean 0 -> 1 -> 3/2 -> 7/4,   variance 1 -> 3/2 -> 7/4 -> 15/8
    #   b: mean 0 -> -1/2 -> -3/4 -> -7/8,   variance 1 -> 9/2 -> 25/4 -> 57/8
    fleet = a_fleet("fedbn")
    assert list(fleet.sent) == ["w"]
    assert fleet.rounds() == [21 / 4, 35 / 8, 63 / 16]
    for edge, mean, variance in (("a", 7 / 4, 15 / 8), ("b", -7 / 8, 57 / 8)):
        assert fleet.remembered(edge, "own norm.bias") == -49 / 16
        assert fleet.remembered(edge, "own norm.weight") == 0
        assert fleet.remembered(edge, "own norm.running_mean") == mean
        assert fleet.remembered(edge, "own norm.running_var") == pytest.approx(variance, rel=1e-15)
        assert fleet.remembered(edge, "own norm.num_batches_tracked") == 3


def test_with_fedavg_the_same_layers_are_everybodys() -> None:
    # Their means move by 1 and -1/2 of alike many examples: 1/4.
    fleet = a_fleet("fedavg")
    assert fleet.round() == 21 / 4
    assert fleet.of_hub("norm.running_mean") == 1 / 4
    assert fleet.memories["a"].now == {}


def test_a_model_without_batch_normalisation_is_told_so() -> None:
    with pytest.raises(ConfigError, match=r"^fedbn keeps layers of batch normalisation on the edges, but the model ha"):
        keep_norms(Exchange(rules={"weight": "learn"}))


def test_layers_that_are_frozen_stay_so() -> None:
    exchange = Exchange(rules={"w": "learn", "n.weight": "learn", "n.bias": "frozen"}, norms=("n.weight", "n.bias"))
    assert keep_norms(exchange).rules == {"w": "learn", "n.weight": "own", "n.bias": "frozen"}
