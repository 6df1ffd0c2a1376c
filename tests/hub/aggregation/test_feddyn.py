"""FedDyn bends each edge's loss by its own slope, as worked out by hand, whoever answers and whatever is taken back."""

from tests.support.quadratics import Fleet, fleet_of

H, G = "feddyn h w", "feddyn g w"


def kept(fleet: Fleet) -> tuple[float, float, float]:
    """Give h, g_a and g_b."""
    return float(fleet.newest.memory[H]), fleet.remembered("a", G), fleet.remembered("b", G)


# alpha = 1/2, two steps of lr = 1/2, and e = w - c_k - g_k, the bent slope where an edge begins:
#   y_1 - w = -e/2,   y_2 - w = -e/2 - (e - e/2 - e/4) / 2 = -5/8 e,   and   g_k <- g_k + 1/2 5/8 e = g_k + 5/16 e.
# The hub: h <- h - |S|/N Delta / 2,  w <- w + Delta - 2 h.


def test_three_rounds_on_a_quadratic_are_what_they_are_by_hand() -> None:
    #   w = 7:      e = 7, 3:             Delta = -5/8 (7 + 9) / 4 = -5/2;     h = 5/4;    w = 7 - 5/2 - 5/2 = 2
    #               and g becomes 35/16, 15/16
    #   w = 2:      e = -3/16, -47/16:    Delta = 5/8 144/64 = 45/32;  h = 5/4 - 45/64 = 35/64;
    #               and g becomes 35/16 - 15/256, 15/16 - 235/256;          w = 2 + 45/32 - 35/32 = 37/16
    #   w = 37/16:  e = 47/256, -437/256: Delta = 5/8 1264/1024 = 395/512;  h = 35/64 - 395/1024 = 165/1024;
    #               and g becomes 545/256 + 235/4096, 5/256 - 2185/4096;   w = 37/16 + 395/512 - 165/512 = 707/256
    fleet = fleet_of("feddyn(alpha=0.5)", epochs=2)
    assert fleet.round() == 2
    assert kept(fleet) == (5 / 4, 35 / 16, 15 / 16)
    assert fleet.round() == 37 / 16
    assert kept(fleet) == (35 / 64, 545 / 256, 5 / 256)
    assert fleet.round() == 707 / 256
    assert kept(fleet) == (165 / 1024, 8955 / 4096, -2105 / 4096)


def test_where_one_of_two_answers_h_takes_half_of_it() -> None:
    #   a alone:  w = 7, e = 7:       Delta = -35/8;    h = 1/4 35/8 = 35/32;          w = 7 - 35/8 - 35/16 = 7/16
    #   b alone:  e = 7/16 - 4:       Delta = 285/128;  h = 35/32 - 285/512 = 275/512; w = 7/16 + 285/128 - 275/256
    #             g_b = -285/256                                                         = 407/256
    #   both:     e = 407/256 - 560/256, 407/256 - 1024/256 + 285/256 = -153/256, -332/256;  Delta = 5/8 1149/1024;
    #             h = 275/512 - 5745/16384 = 3055/16384;  w = 407/256 + 5745/8192 - 3055/8192 = 7857/4096
    fleet = fleet_of("feddyn(alpha=0.5)", epochs=2)
    assert fleet.round("a") == 7 / 16
    assert (fleet.newest.memory[H], fleet.remembered("a", G), fleet.memories["b"].now) == (35 / 32, 35 / 16, {})
    assert fleet.round("b") == 407 / 256
    assert kept(fleet) == (275 / 512, 35 / 16, -285 / 256)
    assert fleet.round() == 7857 / 4096
    assert kept(fleet) == (3055 / 16384, 8195 / 4096, -1555 / 1024)


def test_it_comes_to_rest_where_the_edges_own_minima_are_the_same() -> None:
    # There e = 0 on both: g_k = w - c_k is the slope of each, and their weighted sum, -h, is 0: w = 3.
    fleet = fleet_of("feddyn(alpha=0.5)", epochs=2)
    assert abs(fleet.rounds(60)[-1] - 3) < 1e-6
    h, g_a, g_b = kept(fleet)
    assert abs(h) < 1e-6
    assert abs(g_a - 3) + abs(g_b + 1) < 1e-5


def test_an_update_that_did_not_count_leaves_its_edges_slope_as_it_was() -> None:
    fleet, other = fleet_of("feddyn(alpha=0.5)", epochs=2), fleet_of("feddyn(alpha=0.5)", epochs=2)
    fleet.round("a", refused="b")
    other.round("a")
    fleet.abandon("ab")
    assert fleet.memories["b"].now == {}
    assert fleet.rounds(2) == other.rounds(2)
    assert kept(fleet) == kept(other)
