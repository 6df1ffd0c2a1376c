"""With FedProx an edge that runs out of time sends the steps that it took; one at least."""

import itertools

import pytest

from tests.support.quadratics import Number, fleet_of, said

# mu = 0 and lr = 1/2: K steps leave (1/2)^K of the distance, so that what is sent tells how many there were.


def steps(moved: float) -> float:
    return {7 - 7 / 2**k: k for k in range(20)}[-moved]


@pytest.mark.parametrize(("share", "took"), [(1.0, 8), (0.5, 4), (0.3, 3), (0.01, 1), (2.0, 8)])
def test_a_device_known_to_be_slow_takes_its_share_of_the_steps(share: float, took: int) -> None:
    fleet = fleet_of("fedprox(mu=0)", epochs=2, batch=1, examples={"a": said([0.0] * 4)})
    assert steps(float(fleet.answer("a", share=share).tensors["w"])) == took


@pytest.mark.parametrize("took", [1, 3, 7])
def test_where_the_deadline_comes_first_what_was_done_is_sent(took: int) -> None:
    fleet, asked = fleet_of("fedprox(mu=0)", epochs=4, batch=1, examples={"a": said([0.0] * 2)}), itertools.count(1)
    trained = fleet.answer("a", late=lambda: next(asked) >= took)
    assert steps(float(trained.tensors["w"])) == took
    assert trained.examples == 2, "it weighs what its examples weigh"
    # The loss is of the last pass, as far as it came: with steps from w, w^2 / 2.
    of_the_pass = [(7 / 2**k) ** 2 / 2 for k in range(2 * ((took - 1) // 2), took)]
    assert trained.metrics["loss"] == sum(of_the_pass) / len(of_the_pass)


def test_who_may_not_send_parts_does_it_all_however_late() -> None:
    fleet = fleet_of("fedprox(mu=0, partial=false)", epochs=3, examples={"a": said([0.0])})
    assert steps(float(fleet.answer("a", share=0.1, late=lambda: True).tensors["w"])) == 3


@pytest.mark.parametrize("algorithm", ["fedavg", "scaffold", "feddyn", "qfedavg", "ditto"])
def test_all_others_do_it_all_however_late(algorithm: str) -> None:
    fleet = fleet_of(algorithm, epochs=3, examples={"a": said([0.0])}, model=lambda: Number(8.0))
    whole = fleet.answer("a").tensors["w"]
    assert fleet.answer("a", share=0.1, late=lambda: True).tensors["w"] == whole
