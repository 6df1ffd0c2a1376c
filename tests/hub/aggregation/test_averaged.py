"""What is averaged and not learnt goes where the edges' mean is: no server step is taken with running statistics."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.support.quadratics import columns, fleet_of

STEPS = ["fedadam(server_lr=1, tau=1e-3)", "fedyogi(server_lr=1)", "fedadagrad(server_lr=1)", "fedavgm(server_lr=3)"]


class Normalised(nn.Module):
    """Batch normalisation of one feature, of which half of each batch's statistics is taken, and a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1, momentum=0.5, dtype=torch.float64)
        self.out = nn.Linear(1, 1, dtype=torch.float64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.out(self.norm(x)) - 1
        return result


@pytest.mark.parametrize("algorithm", [*STEPS, "scaffold(server_lr=3)", "feddyn", "fedsgd", "qfedavg(q=0)"])
def test_a_variance_is_what_the_edges_mean_says_round_after_round(algorithm: str) -> None:
    # Both edges have two examples: of variance 2 and 1/2, mean 2 and 3/2. Half of it is taken each time:
    #   the variance goes to 5/4, 1 -> 9/8 -> 19/16, the mean to 7/4: 0 -> 7/8 -> 21/16.
    examples = {"a": columns([1.0, 3.0]), "b": columns([1.0, 2.0])}
    fleet = fleet_of(algorithm, model=Normalised, examples=examples)
    for number, (variance, mean) in enumerate([(9 / 8, 7 / 8), (19 / 16, 21 / 16)], 1):
        fleet.round()
        assert fleet.of_hub("norm.running_var") == pytest.approx(variance, rel=1e-9)
        assert fleet.of_hub("norm.running_mean") == pytest.approx(mean, rel=1e-9)
        assert fleet.of_hub("norm.num_batches_tracked") == number
    assert not [name for name in fleet.newest.memory if "running" in name or "batches" in name]
    assert [name for name in fleet.newest.memory if "out.bias" in name] or algorithm in ("fedsgd", "qfedavg(q=0)")


@pytest.mark.parametrize("algorithm", STEPS)
def test_an_adaptive_step_would_have_made_a_variance_negative(algorithm: str) -> None:
    # The edges' variance is next to nothing, so that it shrinks in each round: a step of 1 would end below zero.
    fleet = fleet_of(algorithm, model=Normalised, examples={"a": columns([1.0, 1.0001]), "b": columns([1.0, 1.0001])})
    fleet.rounds(5)
    assert 0 < fleet.of_hub("norm.running_var") < 1 / 16
    assert np.isfinite(fleet.measured("a").metrics["loss"])


@pytest.mark.parametrize(
    "algorithm", ["fednova", "qfedavg(q=2)", "qfedavg(lipschitz=0.1)", "bucketing(rule=median, size=2)"]
)
def test_statistics_have_an_average_whatever_weights_an_algorithm_gives_what_is_learnt(algorithm: str) -> None:
    # Edges of few and of many steps: FedNova's weights add up to nearly 2 here, those of q-FedAvg to less than 1.
    examples = {"a": columns([1.0, 1.001]), "b": columns([1.0, 1.001] * 100)}
    fleet = fleet_of(algorithm, model=Normalised, examples=examples, batch=2, lr=0.01)
    for _ in range(3):
        variances = [fleet.answer(edge).tensors["norm.running_var"] for edge in "ab"]
        before = fleet.of_hub("norm.running_var")
        fleet.round()
        assert before + min(variances) - 1e-9 <= fleet.of_hub("norm.running_var") <= before + max(variances) + 1e-9
