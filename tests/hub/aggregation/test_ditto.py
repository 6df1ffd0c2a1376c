"""Ditto's own models are pulled to the common one, as worked out by hand, and leave it alone."""

from tests.support.quadratics import fleet_of

V = "ditto v w"


def test_three_rounds_on_a_quadratic_are_what_they_are_by_hand() -> None:
    # lr = 1/2, one step a round, lam = 1/2. w as with FedAvg: 7, 5, 4, 7/2. The own models begin where w is, 7:
    #   v <- v - ((v - c_k) + (v - w) / 2) / 2 = v/4 + w/4 + c_k/2
    #   w = 7:  v_a = 7/4 + 7/4 = 7/2,        v_b = 7/4 + 7/4 + 2 = 11/2
    #   w = 5:  v_a = 7/8 + 5/4 = 17/8,       v_b = 11/8 + 5/4 + 2 = 37/8
    #   w = 4:  v_a = 17/32 + 1 = 49/32,      v_b = 37/32 + 1 + 2 = 133/32
    fleet = fleet_of("ditto(lam=0.5)")
    by_hand = [(5, 7 / 2, 11 / 2), (4, 17 / 8, 37 / 8), (7 / 2, 49 / 32, 133 / 32)]
    for w, v_a, v_b in by_hand:
        assert (fleet.round(), fleet.remembered("a", V), fleet.remembered("b", V)) == (w, v_a, v_b)


def test_both_models_are_measured_and_the_common_one_as_it_is() -> None:
    fleet = fleet_of("ditto(lam=0.5)")
    assert fleet.measured("a").metrics == {"loss": 49 / 2, "personal_loss": 49 / 2}  # nobody has one of its own yet
    fleet.round()
    assert fleet.measured("a").metrics == {"loss": 25 / 2, "personal_loss": 49 / 8}
    assert fleet.measured("b").metrics == {"loss": 1 / 2, "personal_loss": 9 / 8}
    assert fleet.remembered("a", V) == 7 / 2, "measuring teaches nothing"


def test_without_a_pull_an_own_model_is_what_the_edge_would_learn_alone() -> None:
    # 7 -> 7/2 -> 7/4 -> 7/8, and the loss that is told is the common model's.
    fleet = fleet_of("ditto(lam=0)")
    fleet.rounds()
    assert fleet.remembered("a", V) == 7 / 8
    assert fleet.answer("a").metrics == {"loss": (7 / 2) ** 2 / 2}


def test_an_edge_that_was_not_asked_keeps_its_model() -> None:
    fleet = fleet_of("ditto(lam=0.5)")
    fleet.round()
    fleet.round("b", refused="a")
    assert fleet.remembered("a", V) == 7 / 2
    assert fleet.remembered("b", V) == 37 / 8
