"""FedPer's last layers stay where they are: three rounds by hand, and what a pattern means."""

import pytest
import torch
from torch import nn

from hub.aggregation.fedper import Matching
from shared.errors import ConfigError
from shared.exchange import Exchange
from tests.support.quadratics import fleet_of


class BodyAndHead(nn.Module):
    """Two numbers, whose sum is held against the examples: body, which begins at 4, and head, at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(4.0, dtype=torch.float64))
        self.head = nn.Parameter(torch.tensor(0.0, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w + self.head - x


def test_three_rounds_on_a_quadratic_are_what_they_are_by_hand() -> None:
    # e = w + v_k - c_k is the slope of both numbers. With lr = 1/4 each moves by -e/4; w by (-e_a - 3 e_b) / 16.
    #   w = 4,     v = 0, 0:          e = 4, 0:           w = 4 - 1/4 = 15/4;          v = -1, 0
    #   w = 15/4,  v = -1, 0:         e = 11/4, -1/4:     w = 15/4 - 2/16 = 29/8;      v = -27/16, 1/16
    #   w = 29/8,  v = -27/16, 1/16:  e = 31/16, -5/16:   w = 29/8 - 1/16 = 57/16;     v = -139/64, 9/64
    fleet = fleet_of("fedper(own=head)", model=BodyAndHead, lr=0.25)
    assert list(fleet.sent) == ["w"]
    for w, v_a, v_b in [(15 / 4, -1, 0), (29 / 8, -27 / 16, 1 / 16), (57 / 16, -139 / 64, 9 / 64)]:
        assert fleet.round() == w
        assert (fleet.remembered("a", "own head"), fleet.remembered("b", "own head")) == (v_a, v_b)
    assert fleet.measured("a").metrics == {"loss": ((57 * 4 - 139) / 64) ** 2 / 2}
    assert fleet.measured("b").metrics == {"loss": ((57 * 4 + 9) / 64 - 4) ** 2 / 2}


def test_an_edge_whose_update_did_not_count_keeps_the_layers_it_had() -> None:
    fleet = fleet_of("fedper(own=head)", model=BodyAndHead, lr=0.25)
    fleet.round()
    fleet.round("b", refused="a")
    fleet.abandon("a")
    assert fleet.remembered("a", "own head") == -1


EXCHANGE = Exchange(rules={"0.weight": "learn", "0.bias": "frozen", "4.weight": "learn", "4.bias": "average"})


@pytest.mark.parametrize(
    ("pattern", "own"),
    [
        ("4.*", {"4.weight", "4.bias"}),
        ("4.weight", {"4.weight"}),
        ("*.bias", {"4.bias"}),  # what is frozen stays so
        ("0.bias|4.bias", {"4.bias"}),
        ("0.weight|4.b*", {"0.weight", "4.bias"}),
    ],
)
def test_a_pattern_is_that_of_a_shell_and_several_may_be_written(pattern: str, own: set[str]) -> None:
    assert Matching(pattern)(EXCHANGE).of("own") == own


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        (
            "head.*",
            "fedper keeps head.* on the edges, but the model has none: its tensors are 0.weight, 4.weight, 4.bias",
        ),
        ("4.*|haed.*", "fedper keeps haed.* on the edges, but the model has none: "),
        ("0.bias", "fedper keeps 0.bias on the edges, but the model has none: "),
        ("*", "fedper keeps * on the edges, and nothing is left that edges could learn together"),
    ],
)
def test_a_pattern_that_keeps_nothing_or_everything_is_answered_with_a_sentence(pattern: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Matching(pattern)(EXCHANGE)
    assert str(caught.value).startswith(sentence)


def test_a_pattern_for_one_name_of_a_tensor_and_not_for_the_other_is_refused() -> None:
    tied = Exchange(rules=EXCHANGE.rules, tied={"5.weight": "4.weight", "5.bias": "0.bias"})
    with pytest.raises(
        ConfigError, match=r"^fedper keeps 5\.\* on the edges, but 5\.weight is another name of 4\.weight"
    ):
        Matching("5.*")(tied)
    assert Matching("4.weight|5.*")(tied).of("own") == {"4.weight"}
