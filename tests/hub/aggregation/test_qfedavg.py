"""q-FedAvg gives the worse off more say, as worked out by hand, in any order of arrival, and never overflows."""

import itertools
import math
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.aggregation.qfedavg import Fair, squared_norm
from hub.aggregation.step import BLOCK
from hub.rules.admission import Code, Gate, Refusal
from hub.rules.rounds import Round
from shared.errors import NothingAccumulated
from shared.messages import Update
from shared.tensors import ModelSpec, Tensors
from tests.support.examples import same_tensors
from tests.support.quadratics import Number, fleet_of, said

LIKE: Tensors = {"w": np.zeros(1)}
Pull = tuple[float, float]
"""A move of one number, and the loss that it began with."""


def fair(updates: list[Pull], *, q: float, lipschitz: float = 1.0) -> float:
    """Give the aggregate of updates of one number."""
    rule = Fair(q, lipschitz)
    state = rule.init(LIKE)
    for move, loss in updates:
        metrics = {"start_loss": loss}
        assert rule.fits(1, abs(move), updates=len(updates), metrics=metrics)
        state = rule.accumulate(state, {"w": np.array([move])}, 1, largest=abs(move), metrics=metrics)
    return float(rule.finalize(state, LIKE)["w"][0])


def test_three_rounds_on_a_quadratic_are_what_they_are_by_hand() -> None:
    # q = 1, one step of lr = 1/2, so L = 2. With d = w - c_k: F_k = d^2 / 2, the move is -d/2, and
    #   h_k = 1 (2 d/2)^2 + 2 d^2/2 = 2 d^2,   w <- w - sum d^3 / 2 / sum 2 d^2 = w - sum d^3 / (4 sum d^2).
    #   w = 4:      d = 4, 0:            w = 4 - 64 / 64 = 3
    #   w = 3:      d = 3, -1:           w = 3 - 26 / 40 = 47/20
    #   w = 47/20:  d = 47/20, -33/20:   w = 47/20 - (103823 - 35937) / (80 (2209 + 1089)) = 276069 / 131920
    fleet = fleet_of("qfedavg(q=1)", model=lambda: Number(4.0))
    assert fleet.answer("a").metrics == {"loss": 8.0, "start_loss": 8.0}
    assert fleet.rounds() == pytest.approx([3, 47 / 20, 276069 / 131920], rel=1e-9)


def test_the_loss_that_counts_is_that_of_the_model_that_came() -> None:
    # After one of two steps the loss is a quarter of it; that is what is told as the training's.
    assert fleet_of("qfedavg", epochs=2).answer("a").metrics == {"loss": 49 / 8, "start_loss": 49 / 2}


def test_with_q_0_it_is_the_plain_mean_whatever_the_losses_and_the_examples() -> None:
    # 7: moves -7/2 and -3/2, of mean -5/2, though b has three times as many examples.
    assert fleet_of("qfedavg(q=0)").rounds() == [9 / 2, 13 / 4, 21 / 8]
    assert fair([(3.0, 0.0), (-1.0, 1e300), (4.0, 2.0)], q=0.0) == 2.0


def test_the_worse_edge_gets_the_more_say_the_larger_q_is() -> None:
    # Two edges pull with one strength, the one with a loss of 4 to the right, the one with a loss of 1 to the left:
    #   q = 0: 0;    q = 1: (4 - 1) / (1 + 1 + 4 + 1) = 3/7;    q = 2: (16 - 1) / (2 4 + 2 1 + 16 + 1) = 15/27
    pulls = [(1.0, 4.0), (-1.0, 1.0)]
    assert [fair(pulls, q=q) for q in (0.0, 1.0, 2.0)] == pytest.approx([0, 3 / 7, 15 / 27], rel=1e-9)


def test_it_comes_to_rest_where_the_worse_off_are_better_off() -> None:
    # Two edges want 0, one wants 4. The mean is 4/3, and the losses there 8/9, 8/9, 32/9. With q = 2 the pulls
    # F_k^2 d_k = d_k^5 / 4 cancel out: 2 w^5 = (4 - w)^5, so w = 4 / (1 + 2^(1/5)).
    fleets = [
        fleet_of(f"qfedavg(q={q})", examples={"a": said([0.0]), "b": said([0.0]), "c": said([4.0])}) for q in (0, 2)
    ]
    assert [fleet.rounds(60)[-1] for fleet in fleets] == pytest.approx([4 / 3, 4 / (1 + 2**0.2)], rel=1e-4)
    worst = [fleet.measured("c").metrics["loss"] for fleet in fleets]
    assert worst[1] < 0.65 * worst[0]


@pytest.mark.parametrize("loss", [0.25, 1.0, 8.0])
def test_edges_of_equal_losses_weigh_alike(loss: float) -> None:
    # q = 1, L = 1: F (3 - 1) / (9 + 1 + 2 F).
    assert fair([(3.0, loss), (-1.0, loss)], q=1.0) == pytest.approx(2 * loss / (10 + 2 * loss), rel=1e-9)


@pytest.mark.parametrize("q", [0.0, 0.5, 1.0, 3.0])
def test_where_the_model_is_perfect_on_all_edges_it_stays(q: float) -> None:
    assert fair([(0.0, 0.0), (0.0, 0.0)], q=q) == 0.0


def test_a_loss_below_zero_counts_as_next_to_none() -> None:
    assert fair([(1.0, -5.0), (1.0, -5.0)], q=1.0) == pytest.approx(0.0, abs=1e-6)


# --- exactness ---


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-100, 100), st.floats(0, 100)), min_size=1, max_size=5),
    st.floats(0, 3),
    st.randoms(use_true_random=False),
)
def test_the_order_of_arrival_changes_no_bit(updates: list[Pull], q: float, dice: Random) -> None:
    shuffled = updates.copy()
    dice.shuffle(shuffled)
    assert fair(updates, q=q) == fair(shuffled, q=q)


def test_nor_does_it_with_models_of_many_tensors() -> None:
    dice = np.random.default_rng(3)
    like: Tensors = {"w": np.zeros(500, np.float32), "half": np.zeros(3, np.float16), "n": np.array(0)}
    updates = [
        (
            {
                "w": dice.normal(size=500).astype(np.float32),
                "half": dice.normal(size=3).astype(np.float16),
                "n": np.array(n),
            },
            {"start_loss": float(dice.exponential())},
        )
        for n in range(4)
    ]
    rule, found = Fair(1.5, 10.0), []
    for order in itertools.permutations(updates):
        state = rule.init(like)
        for update, metrics in order:
            state = rule.accumulate(state, update, 7, largest=10.0, metrics=metrics)
        found.append(rule.finalize(state, like))
    assert all(same_tensors(one, found[0]) for one in found)
    assert found[0]["n"] == 3


def test_the_square_of_a_norm_is_summed_over_all_tensors_and_blocks() -> None:
    assert squared_norm([np.full(2 * BLOCK + 1, 2.0, np.float32), np.array([3.0], np.float16)]) == 8 * BLOCK + 4 + 9
    assert squared_norm([np.zeros(0)]) == 0


# --- what fits ---


@pytest.mark.parametrize(
    ("q", "loss", "magnitude"),
    [
        (1.0, 1.0, 2.0**32),  # too large for the mean by itself
        (1.0, 1.0, 2.0**15),  # as often as it may count in its sum
        (0.0, 1.0, math.nan),
        (2.0, 1e200, 0.0),  # F^q is no number any more
        (1e6, 1e-5, 2.0**32),
        (1.0, 1e308, 0.0),  # a number, but two of them have no sum
        (2.0, 1e154, 1e-300),
    ],
)
def test_what_would_overflow_does_not_fit(q: float, loss: float, magnitude: float) -> None:
    assert not Fair(q, 1.0).fits(1, magnitude, updates=2, metrics={"start_loss": loss})


@pytest.mark.parametrize("lipschitz", [1e-6, 1.0, 1e12, 1e200])
@pytest.mark.parametrize("q", [0.0, 0.1, 1.0, 5.0, 1e6])
@pytest.mark.parametrize("loss", [0.0, 1e-300, 1e-5, 1.0, 1.00001, 100.0, 1e20, 1e50])
@pytest.mark.parametrize("magnitude", [0.0, 1e-300, 1e-3, 1.0, 1e6])
def test_whatever_fits_leads_to_a_number(lipschitz: float, q: float, loss: float, magnitude: float) -> None:
    rule = Fair(q, lipschitz)
    metrics = {"start_loss": loss}
    if rule.fits(1, magnitude, updates=2, metrics=metrics):
        assert math.isfinite(fair([(magnitude, loss), (-magnitude / 2, loss)], q=q, lipschitz=lipschitz))


@pytest.mark.parametrize("metric", ["loss", "start_loss"])
def test_an_edge_whose_loss_is_no_number_has_no_say(metric: str) -> None:
    fleet = fleet_of("qfedavg")
    gate = Gate("r", ModelSpec.of(fleet.sent), 1000, fleet.algorithm.asks)
    metrics = {**fleet.answer("a").metrics, metric: math.nan}
    update = Update(
        run="r", round=1, attempt=1, model="0" * 64, spec=gate.spec.digest, examples=1, metrics=metrics, seconds=1.0
    )
    asked = Round(number=1, attempt=1, cohort=frozenset("ab"), goal=2, quorum=1, deadline=9.0)
    refusal = gate.standing(update, edge="a", arrived=1.0, round=asked, model="0" * 64)
    assert refusal == Refusal(Code.NOT_FINITE, f"the {metric} is nan: training diverged on that edge")


def test_of_nothing_there_is_none() -> None:
    rule = Fair(1.0, 1.0)
    with pytest.raises(NothingAccumulated):
        rule.finalize(rule.init(LIKE), LIKE)


# --- small and large losses ---


@pytest.mark.parametrize("q", [1.0, 5.0, 20.0])
@pytest.mark.parametrize("unit", [1e-6, 0.01, 1.0, 1e6])
def test_only_how_losses_compare_decides_who_has_how_much_say(q: float, unit: float) -> None:
    # Without slopes (L next to 0), the step is sum_k F_k^q Delta_k / sum_k F_k^q, whatever unit the losses are in.
    updates = [(1.0, 2.0), (-3.0, 1.0), (0.25, 0.5)]
    expected = sum(pull * loss**q for pull, loss in updates) / sum(loss**q for _, loss in updates)
    scaled = [(pull, loss * unit) for pull, loss in updates]
    assert fair(scaled, q=q, lipschitz=1e-100) == pytest.approx(expected, rel=1e-9)


def test_counters_take_the_largest_whatever_the_losses() -> None:
    rule, like = Fair(1.0, 1.0), {"n": np.array(0)}
    state = rule.init(like)
    for count, loss in ((7, 1e-9), (9, 1.0), (8, 1e9)):
        state = rule.accumulate(state, {"n": np.array(count)}, 1, largest=0.0, metrics={"start_loss": loss})
    assert len(state.moves) == 3
    assert rule.finalize(state, like)["n"] == 9
