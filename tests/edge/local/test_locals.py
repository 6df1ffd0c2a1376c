"""What all edges' parts have in common: phones share a module without a trace, and give up when they are told to."""

import threading
from dataclasses import replace

import pytest
import torch
from torch import nn

from edge.learner import GivenUp
from hub.aggregation.algorithm import Algorithm
from tests.hub.aggregation.quadratic import chosen, rounds
from tests.support.algorithms import STEPS
from tests.support.examples import same_tensors
from tests.support.quadratics import Number, fleet_of, said

MOMENTUM = replace(chosen("fedavg"), local="momentum", settings={"beta": 0.5})
SPELLED = [
    "fedavg", "fedsgd", "fedprox(mu=0.5)", "scaffold", "feddyn(alpha=0.5)", "qfedavg", "ditto(lam=0.5)",
    "finetune(epochs=2)", MOMENTUM,
]  # fmt: skip
ALL = pytest.mark.parametrize("algorithm", SPELLED, ids=lambda one: one if isinstance(one, str) else "momentum")


@pytest.mark.parametrize("name", [name for name in STEPS if chosen(name).local in ("sgd", "gradient")])
def test_edges_that_really_train_lead_to_the_hubs_numbers_by_hand(name: str) -> None:
    if chosen(name).local == "sgd":
        assert fleet_of(name).rounds() == rounds(chosen(name))
    else:
        assert fleet_of(name).rounds() == fleet_of("fedavg").rounds()  # one step of the hub's


@ALL
def test_phones_that_share_a_module_find_no_trace_of_each_other(algorithm: str | Algorithm) -> None:
    shared, apart = (fleet_of(algorithm, epochs=2, shared=shared) for shared in (True, False))
    for _ in range(3):
        assert shared.round() == apart.round()
        for edge in "ab":
            assert shared.measured(edge) == apart.measured(edge)
            assert same_tensors(shared.memories[edge].now, apart.memories[edge].now)


@ALL
def test_an_edge_that_is_told_to_gives_up_between_two_steps(algorithm: str | Algorithm) -> None:
    fleet = fleet_of(algorithm, epochs=2, examples={"a": said([0.0, 1.0])}, batch=1)
    stop = threading.Event()
    stop.set()
    trainer = fleet.trainers["a"]
    with pytest.raises(GivenUp):
        trainer.train(fleet.plan, fleet.sent, fleet.examples["a"], seed=(0,), stop=stop)
    if fleet.algorithm.local == "finetune":
        with pytest.raises(GivenUp):
            trainer.evaluate(fleet.sent, fleet.examples["a"], plan=fleet.plan, own=fleet.examples["a"], stop=stop)


@ALL
def test_what_an_edge_remembers_is_its_own_copy(algorithm: str | Algorithm) -> None:
    fleet = fleet_of(algorithm, epochs=2)
    fleet.round()
    kept = {name: array.copy() for name, array in fleet.memories["a"].now.items()}
    fleet.answer("a")
    fleet.measured("a")
    assert same_tensors(fleet.memories["a"].now, kept)


class Heads(nn.Module):
    """A number for small examples and another for large ones, so that each edge uses one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.small = nn.Parameter(torch.tensor(7.0, dtype=torch.float64))
        self.large = nn.Parameter(torch.tensor(7.0, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.small if float(x.mean()) < 2 else self.large) - x


@pytest.mark.parametrize("algorithm", ["fedavg", "scaffold", "feddyn(alpha=0.1)", "fedprox", "ditto"])
def test_what_an_edge_does_not_use_has_a_slope_of_zero_and_is_corrected_like_all_else(algorithm: str) -> None:
    fleet = fleet_of(algorithm, model=Heads, lr=0.1)
    for _ in range(200):
        fleet.round()
    assert fleet.of_hub("small") == pytest.approx(0.0, abs=0.25)
    assert fleet.of_hub("large") == pytest.approx(4.0, abs=0.25)


def test_a_control_variate_of_what_an_edge_does_not_use_is_zero() -> None:
    fleet = fleet_of("scaffold", model=Heads, lr=0.1)
    fleet.rounds(5)
    assert fleet.remembered("a", "scaffold c_k large") == pytest.approx(0.0, abs=1e-12)
    assert fleet.remembered("b", "scaffold c_k small") == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_number_of_few_bits_alone_can_be_learnt(dtype: torch.dtype) -> None:
    fleet = fleet_of(MOMENTUM, model=lambda: Number().to(dtype))
    fleet.round()
    assert fleet.newest.model["w"].shape == ()
    assert fleet.of_hub() == 5
