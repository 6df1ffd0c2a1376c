"""FedAvgM goes on where it was going, as worked out by hand."""

from tests.hub.aggregation.quadratic import chosen, rounds


def test_three_rounds_on_a_quadratic_are_what_they_are_by_hand() -> None:
    # beta = 1/2:  w = 7:  Delta = -2,  m = -2,             w = 5
    #              w = 5:  Delta = -1,  m = -1 - 1 = -2,    w = 3
    #              w = 3:  Delta =  0,  m = -1,             w = 2
    assert rounds(chosen("fedavgm(beta=0.5)")) == [5.0, 3.0, 2.0]


def test_the_server_lr_scales_the_step_and_not_the_momentum() -> None:
    # server_lr = 1/2:  w = 7:  Delta = -2,    m = -2,                w = 6
    #                   w = 6:  Delta = -3/2,  m = -1 - 3/2 = -5/2,   w = 19/4
    #                   w = 19/4:  Delta = -7/8,  m = -5/4 - 7/8 = -17/8,   w = 19/4 - 17/16 = 59/16
    assert rounds(chosen("fedavgm(beta=0.5, server_lr=0.5)")) == [6.0, 4.75, 3.6875]


def test_without_momentum_it_is_fedavg() -> None:
    assert rounds(chosen("fedavgm(beta=0)")) == rounds(chosen("fedavg")) == [5.0, 4.0, 3.5]
