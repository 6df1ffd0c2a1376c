"""FedAdagrad, FedAdam and FedYogi measure each step by the updates before it, as worked out by hand."""

from math import sqrt

import pytest

from shared.tensors import Tensors
from tests.hub.aggregation.quadratic import chosen, play, rounds

# With Delta = -(w - 3) / 2 of the two edges, and the step server_lr m / (sqrt(v) + tau).
BY_HAND = {
    # beta1 = 1/2, beta2 = 3/4, tau = 1, so v_{-1} = 1:
    #   w = 7:  Delta = -2,  m = -1,               v = 3/4 + 1/4 = 1,         step 4 (-1) / (1 + 1) = -2
    #   w = 5:  Delta = -1,  m = -1/2 - 1/2 = -1,  v = 3/4 + 1/4 = 1,         step -2
    #   w = 3:  Delta =  0,  m = -1/2,             v = 3/4 + 1/16 = 13/16,    step -2 / (sqrt(13)/4 + 1)
    "fedadam(server_lr=4, beta1=0.5, beta2=0.75, tau=1)": [5.0, 3.0, 3 - 2 / (sqrt(13) / 4 + 1)],
    # beta1 = 1/2, beta2 = 1/4, tau = 1/2, so v_{-1} = 1/4:
    #   w = 7:  m = -1,    v - m^2 < 0,   v = 1/4 + 3/4 = 1,          step 3 (-1) / (1 + 1/2) = -2
    #   w = 5:  m = -1,    v - m^2 = 0,   v = 1,                      step -2
    #   w = 3:  m = -1/2,  v - m^2 > 0,   v = 1 - 3/4 1/4 = 13/16,    step -3/2 / (sqrt(13)/4 + 1/2)
    "fedyogi(server_lr=3, beta1=0.5, beta2=0.25, tau=0.5)": [5.0, 3.0, 3 - 1.5 / (sqrt(13) / 4 + 0.5)],
    # beta1 = 0, so m = Delta; tau = 3/2, so v_{-1} = 9/4; a step so long that it goes to and fro:
    #   w =  7:  m = -2,  v = 9/4 + 4 = 25/4,      step 32 (-2) / (5/2 + 3/2) = -16
    #   w = -9:  m =  6,  v = 25/4 + 36 = 169/4,   step 32 6 / (13/2 + 3/2) = 24
    #   w = 15:  m = -6,  v = 169/4 + 36 = 313/4,  step -192 / (sqrt(313)/2 + 3/2) = -384 / (sqrt(313) + 3)
    "fedadagrad(server_lr=32, tau=1.5)": [-9.0, 15.0, 15 - 384 / (sqrt(313) + 3)],
    # The same with momentum, beta1 = 1/2, and tau = 3/4, so v_{-1} = 9/16:
    #   w = 7:  Delta = -2,  m = -1,  v = 9/16 + 1 = 25/16,   step -4 / (5/4 + 3/4) = -2
    #   w = 5:  Delta = -1,  m = -1,  v = 25/16 + 1 = 41/16,  step -4 / (sqrt(41)/4 + 3/4) = -16 / (sqrt(41) + 3)
    "fedadagrad(server_lr=4, beta1=0.5, tau=0.75)": [5.0, 5 - 16 / (sqrt(41) + 3)],
}  # fmt: skip


@pytest.mark.parametrize("text", BY_HAND)
def test_three_rounds_on_a_quadratic_are_what_they_are_by_hand(text: str) -> None:
    found = rounds(chosen(text), count=len(BY_HAND[text]))
    assert found == pytest.approx(BY_HAND[text], rel=1e-15, abs=0)


def test_an_update_of_nothing_moves_nothing() -> None:
    for name in ("fedadagrad", "fedadam", "fedyogi", "fedavgm"):
        assert rounds(chosen(name), 3.0) == [3.0, 3.0, 3.0]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("fedadagrad", ["fedadagrad v w"]),
        ("fedadagrad(beta1=0.5)", ["fedadagrad v w", "fedadagrad m w"]),
        ("fedadam", ["fedadam v w", "fedadam m w"]),
        ("fedadam(beta1=0)", ["fedadam v w"]),
        ("fedyogi", ["fedyogi v w", "fedyogi m w"]),
        ("fedavgm", ["fedavgm m w"]),
        ("fedavg", []),
        ("fedsgd", []),
        ("fednova", []),
    ],
)
def test_it_keeps_what_its_equation_remembers_and_drops_what_another_one_kept(text: str, kept: list[str]) -> None:
    other: Tensors = play(chosen("fedavgm(beta=0.25)" if "fedavgm" not in text else "fedadam"), {}, 7.0)[1]
    assert other
    moved, memory = play(chosen(text), other, 5.0)
    assert list(memory) == kept
    assert moved == play(chosen(text), {}, 5.0)[0]
