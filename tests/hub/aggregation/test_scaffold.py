"""SCAFFOLD's control variates are those of the paper, number by number, whoever answers and whatever is taken back."""

import ml_dtypes
import numpy as np
import pytest

from tests.hub.aggregation.quadratic import chosen
from tests.support.quadratics import Fleet, Number, fleet_of

C, C_K = "scaffold c w", "scaffold c_k w"


def controls(fleet: Fleet) -> tuple[float, float, float]:
    """Give c, c_a and c_b."""
    return float(fleet.newest.memory[C]), fleet.remembered("a", C_K), fleet.remembered("b", C_K)


# K = 2 steps of lr = 1/2, so that K lr = 1. With a_k for the centre of edge k's quadratic, and s = c - c_k, a step is
# y <- y - (y - a_k + s) / 2: it halves the distance to a_k - s. So two steps move by
#   y - x = -3/4 (x - a_k + s),   and   c_k^+ = c_k - c + (x - y) = 3/4 (x - a_k) - s/4.


def test_three_rounds_on_a_quadratic_are_what_they_are_by_hand() -> None:
    # All answer, so that the mean of s is 0, x - 3 becomes a quarter of itself, and c = 3/4 (x - 3) before that.
    #   x = 7:     s = 0, 0;         moves -21/4, -9/4;    x = 4;     c_k = 21/4, 9/4;     c = 21/16 + 27/16 = 3
    #   x = 4:     s = -9/4, 3/4;    moves -21/16, -9/16;  x = 13/4;  c_k = 57/16, -3/16;  c = 57/64 - 9/64 = 3/4
    #   x = 13/4:  s = -45/16, 15/16; c_k = 39/16 + 45/64, -9/16 - 15/64;  x = 49/16;      c = 201/256 - 153/256 = 3/16
    fleet = fleet_of("scaffold", epochs=2)
    assert fleet.round() == 4
    assert controls(fleet) == (3, 21 / 4, 9 / 4)
    assert fleet.round() == 13 / 4
    assert controls(fleet) == (3 / 4, 57 / 16, -3 / 16)
    assert fleet.round() == 49 / 16
    assert controls(fleet) == (3 / 16, 201 / 64, -51 / 64)


def test_where_one_of_two_answers_c_takes_half_of_what_it_learnt() -> None:
    #   a alone:  x = 7, s = 0:                  x = 7 - 21/4 = 7/4;          c_a = 21/4;   c = 1/2 21/4 = 21/8
    #   b alone:  x - 4 + s = -9/4 + 21/8 = 3/8: x = 7/4 - 9/32 = 47/32;
    #             c_b = 3/4 (-9/4) - 21/32 = -75/32;                          c = 21/8 - 1/2 75/32 = 93/64
    #   both:     s = 93/64 - 21/4, 93/64 + 75/32 = -243/64, 243/64;  x - a_k + s = -149/64, 81/64;
    #             x = 47/32 + (447/256 - 3 243/256) / 4 = 611/512;
    #             c_a = 3/4 47/32 + 243/256 = 525/256,  c_b = 3/4 (-81/32) - 243/256 = -729/256;
    #             gained -819/256, -129/256;       c = 93/64 - (819 + 387) / 1024 = 141/512
    fleet = fleet_of("scaffold", epochs=2)
    assert fleet.round("a") == 7 / 4
    assert (fleet.remembered("a", C_K), fleet.memories["b"].now) == (21 / 4, {})
    assert fleet.newest.memory[C] == 21 / 8
    assert fleet.round("b") == 47 / 32
    assert controls(fleet) == (93 / 64, 21 / 4, -75 / 32)
    assert fleet.round() == 611 / 512
    assert controls(fleet) == (141 / 512, 525 / 256, -729 / 256)


def test_an_edge_that_answers_alone_pulls_less_to_its_own_centre_than_with_fedavg() -> None:
    # At w = 3, everybody's minimum: c_k = 9/4, -3/4 and c = 0. Then b alone moves by -3/4 (3 - 4 + 3/4) = 3/16; with
    # FedAvg by 3/4.
    fleet, plain = (fleet_of(name, model=lambda: Number(3.0), epochs=2) for name in ("scaffold", "fedavg"))
    assert fleet.round() == plain.round() == 3
    assert (fleet.round("b"), plain.round("b")) == (3 + 3 / 16, 3 + 3 / 4)


def test_the_hubs_step_may_be_longer_and_c_stays_what_it_is() -> None:
    #   x = 7: moves -21/4, -9/4, of mean -3, taken twice: x = 1; c_k and c as with server_lr = 1.
    fleet = fleet_of("scaffold(server_lr=2)", epochs=2)
    assert fleet.round() == 1
    assert controls(fleet) == (3, 21 / 4, 9 / 4)


def test_an_update_that_did_not_count_leaves_its_edges_c_k_as_it_was() -> None:
    fleet, other = fleet_of("scaffold", epochs=2), fleet_of("scaffold", epochs=2)
    fleet.round("a", refused="b")
    assert fleet.memories["b"].now == {}
    other.round("a")
    assert fleet.round("b", refused="a") == other.round("b")
    assert controls(fleet) == controls(other)


@pytest.mark.parametrize("answered", ["a", "b", "ab"])
def test_a_round_that_was_taken_back_is_played_again_as_if_it_had_never_been(answered: str) -> None:
    fleet, other = fleet_of("scaffold", epochs=2), fleet_of("scaffold", epochs=2)
    other_found = other.rounds()
    fleet.abandon(answered)
    found = [fleet.round()]
    fleet.abandon(answered)
    fleet.abandon("b")
    found += fleet.rounds(2)
    assert found == other_found
    assert controls(fleet) == controls(other)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_control_variate_too_large_for_the_models_type_is_sent_as_its_largest_number(dtype: str) -> None:
    model = {"w": np.zeros(2, np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype))}
    (sent,) = chosen("scaffold").carried({"scaffold c w": np.array([1e300, -1e300])}, model).values()
    assert np.isfinite(sent.astype(np.float64)).all()
    assert (sent[0] > 1e4, sent[1] < -1e4) == (True, True)
