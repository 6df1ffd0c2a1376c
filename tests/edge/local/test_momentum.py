"""Edges that mix what they send with what they sent before: three rounds by hand."""

from dataclasses import replace

from tests.hub.aggregation.quadratic import chosen
from tests.support.quadratics import Fleet, fleet_of

M = "momentum m w"


def a_fleet(beta: float) -> Fleet:
    return fleet_of(replace(chosen("fedavg"), local="momentum", settings={"beta": beta}))


def test_three_rounds_on_a_quadratic_are_what_they_are_by_hand() -> None:
    # beta = 1/2, a step of lr = 1/2 moves by -(w - c_k) / 2. The first is sent as it is, then m <- m/2 + move/2.
    #   w = 7:    moves -7/2, -3/2;  m = -7/2, -3/2;    mean -2;    w = 5
    #   w = 5:    moves -5/2, -1/2;  m = -3, -1;        mean -3/2;  w = 7/2
    #   w = 7/2:  moves -7/4, 1/4;   m = -19/8, -3/8;   mean -7/8;  w = 21/8
    fleet = a_fleet(0.5)
    for w, m_a, m_b in [(5, -7 / 2, -3 / 2), (7 / 2, -3, -1), (21 / 8, -19 / 8, -3 / 8)]:
        assert (fleet.round(), fleet.remembered("a", M), fleet.remembered("b", M)) == (w, m_a, m_b)


def test_what_did_not_count_is_not_mixed_in() -> None:
    fleet, other = a_fleet(0.5), a_fleet(0.5)
    fleet.abandon("ab")
    fleet.round(refused=())
    other.round()
    fleet.abandon("a")
    assert fleet.rounds(2) == other.rounds(2)
    assert fleet.remembered("a", M) == other.remembered("a", M)


def test_an_edge_that_comes_late_sends_its_first_move_whole() -> None:
    fleet = a_fleet(0.5)
    fleet.round("a")  # to 7/2
    fleet.round("b")
    assert fleet.remembered("b", M) == 1 / 4
    assert fleet.of_hub() == 15 / 4


def test_without_memory_it_is_fedavg() -> None:
    assert a_fleet(0.0).rounds() == fleet_of("fedavg").rounds()
