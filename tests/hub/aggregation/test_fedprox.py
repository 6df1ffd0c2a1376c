"""FedProx holds each edge back by a spring, as worked out by hand, and takes what a slow edge got done."""

import pytest

from tests.hub.aggregation.quadratic import chosen
from tests.support.quadratics import fleet_of


def test_three_rounds_on_a_quadratic_are_what_they_are_by_hand() -> None:
    # E = 2 steps of lr = 1/2, mu = 1/2, d = w - c_k. A step is y <- y - ((y - c_k) + (y - w) / 2) / 2:
    #   y_1 - c_k = d / 2,  where y_1 - w = -d / 2;   y_2 - c_k = d/2 - (d/2 - d/4) / 2 = 3/8 d.
    # So each edge moves by -5/8 d, the mean move is -5/8 (w - 3), and w - 3 becomes 3/8 of what it was:
    #   4 -> 3/2 -> 9/16 -> 27/128
    assert fleet_of("fedprox(mu=0.5)", epochs=2).rounds() == [3 + 3 / 2, 3 + 9 / 16, 3 + 27 / 128]


def test_without_a_spring_it_is_fedavg() -> None:
    # Two steps halve the distance twice: w - 3 becomes 1/4 of it.
    assert fleet_of("fedprox(mu=0)", epochs=2).rounds() == fleet_of("fedavg", epochs=2).rounds() == [4.0, 3.25, 3.0625]


def test_an_edge_that_did_half_of_its_steps_moves_the_model_by_them() -> None:
    # mu = 0. Edge a did 1 of 2 steps: -7/2; edge b both: -3/4 3 = -9/4. Together (-7/2 - 27/4) / 4 = -41/16.
    fleet = fleet_of("fedprox(mu=0)", epochs=2)
    updates = {edge: fleet.answer(edge, share=share) for edge, share in (("a", 0.5), ("b", 1.0))}
    aggregation = fleet.algorithm.aggregation
    state = aggregation.init(fleet.sent)
    for edge, weight in (("a", 1), ("b", 3)):
        state = aggregation.accumulate(state, fleet.as_sent(updates[edge]), weight, largest=8.0)
    assert float(aggregation.finalize(state, fleet.sent)["w"]) == -41 / 16


@pytest.mark.parametrize("server", ["fedavgm(beta=0.5)", "fedadam", "median"])
def test_the_hub_may_take_any_of_its_steps_with_what_they_send(server: str) -> None:
    made, inner = chosen(f"fedprox(mu=0.5, server={server})"), chosen(server)
    assert (made.local, made.settings) == ("fedprox", {"mu": 0.5, "partial": True})
    assert (made.aggregation, made.step) == (inner.aggregation, inner.step)
