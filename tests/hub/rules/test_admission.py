"""An update counts exactly when it answers the open round, is of this model, and can be added; else it hears why."""

import math
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.aggregation.mean import ExactMean
from hub.rules.admission import FINAL, Admitted, Code, Gate, Refusal, weight_cap
from hub.rules.rounds import Round
from shared.codec import Decoded, decode, encode
from shared.messages import ToHub, Update
from shared.tensors import ModelSpec, Tensors, TensorSpec
from tests.support.examples import DTYPES, HASH, MODEL, SPEC, UPDATE, same_tensors

SMALL: Tensors = {name: np.nan_to_num(np.clip(array, -9, 9)).astype(array.dtype) for name, array in MODEL.items()}
GATE = Gate("5f3a9c01", SPEC, max_examples=10_000)


def standing(*, edge: str = "a", arrived: float = 5.0, answered: str = "", **changes: Any) -> Refusal | None:
    """Ask whether the example update, with `changes`, answers round 3, which is open until 10."""
    round = Round(number=3, attempt=1, cohort=frozenset("ab"), goal=2, quorum=1, deadline=10.0, answered=set(answered))
    update = msgspec.structs.replace(UPDATE, **changes)
    return GATE.standing(update, edge=edge, arrived=arrived, round=round, model=HASH)


def heard(tensors: Tensors, **changes: Any) -> Decoded[Update]:
    """Send the example update with `tensors` and `changes` over a wire."""
    update = msgspec.structs.replace(UPDATE, spec=ModelSpec.of(tensors).digest)
    data = b"".join(encode(msgspec.structs.replace(update, **changes), tensors.values()).pieces)
    return decode(data, ToHub, max_tensors=1000)


def always(examples: int, magnitude: float) -> bool:
    return True


def judged(
    tensors: Tensors, *, gate: Gate = GATE, weight_cap: int = 10**9, fits: Any = always, **changes: Any
) -> Admitted | Refusal:
    return gate.contents(heard(tensors, **changes), weight_cap=weight_cap, fits=fits)


# --- standing ---


def test_an_answer_to_the_open_round_is_in_good_standing() -> None:
    assert standing() is None
    assert standing(edge="b", answered="a", examples=10_000) is None
    assert standing(examples=1) is None
    assert standing(examples=600.0) is None


def test_late_is_judged_by_when_it_arrived() -> None:
    assert standing(arrived=10.0) is None
    refusal = standing(arrived=10.001)
    assert refusal == Refusal(Code.LATE, "round 3 was over when the update arrived")


@pytest.mark.parametrize(
    ("changes", "code", "reason"),
    [
        ({"run": "other"}, Code.FOREIGN, "the update is for run other, this is 5f3a9c01"),
        ({"round": 2}, Code.LATE, "round 2 was over when the update arrived"),
        ({"round": -1}, Code.LATE, "round -1 was over"),
        ({"round": 4}, Code.STALE, "round 3, try 1 is open; the update is for round 4, try 1, and began with"),
        ({"attempt": 2}, Code.STALE, "the update is for round 3, try 2"),
        ({"attempt": 0}, Code.STALE, "try 0"),
        ({"model": "f" * 64}, Code.STALE, "began with model ffffffffffff"),
        ({"edge": "c"}, Code.UNASKED, "c was not asked in round 3"),
        ({"answered": "a"}, Code.DUPLICATE, "a has answered round 3 already"),
        ({"examples": 0}, Code.BAD_EXAMPLES, "0 examples; 1 to 10000 are accepted (max_examples)"),
        ({"examples": -89}, Code.BAD_EXAMPLES, "-89 examples"),
        ({"examples": 10_001}, Code.BAD_EXAMPLES, "10001 examples"),
        ({"examples": 1e12}, Code.BAD_EXAMPLES, "1000000000000.0 examples"),
        ({"examples": 2**64 - 1}, Code.BAD_EXAMPLES, "18446744073709551615 examples"),
        ({"examples": 1.5}, Code.BAD_EXAMPLES, "1.5 is not a number of examples"),
        ({"examples": math.nan}, Code.BAD_EXAMPLES, "nan is not a number of examples"),
        ({"examples": math.inf}, Code.BAD_EXAMPLES, "inf is not a number of examples"),
        ({"examples": -math.inf}, Code.BAD_EXAMPLES, "-inf is not a number of examples"),
        ({"metrics": {}}, Code.BAD_METRICS, "an update brings the metrics loss; this one has none"),
        ({"metrics": {"Loss": 1.0}}, Code.BAD_METRICS, "the metrics loss; this one has Loss"),
        ({"metrics": {"loss": 1.0, "accuracy": 0.5}}, Code.BAD_METRICS, "this one has accuracy, loss"),
        ({"metrics": {"loss": math.nan}}, Code.NOT_FINITE, "the loss is nan"),
        ({"metrics": {"loss": math.inf}}, Code.NOT_FINITE, "the loss is inf"),
        ({"metrics": {"loss": -math.inf}}, Code.NOT_FINITE, "the loss is -inf"),
    ],
)  # fmt: skip
def test_what_answers_nothing_or_claims_nonsense_is_refused(changes: dict[str, Any], code: Code, reason: str) -> None:
    refusal = standing(**changes)
    assert refusal is not None
    assert refusal.code is code
    assert reason in refusal.reason


def test_the_most_telling_reason_comes_first() -> None:
    assert standing(run="other", round=1, edge="c", examples=0).code is Code.FOREIGN  # type: ignore[union-attr]
    assert standing(round=1, attempt=9, edge="c").code is Code.LATE  # type: ignore[union-attr]
    assert standing(attempt=9, edge="c", examples=0).code is Code.STALE  # type: ignore[union-attr]
    assert standing(edge="c", examples=0).code is Code.UNASKED  # type: ignore[union-attr]
    assert standing(answered="a", examples=0).code is Code.DUPLICATE  # type: ignore[union-attr]


def test_a_refusal_is_final_exactly_if_asking_again_would_not_mend_it() -> None:
    assert {Code.BAD_EXAMPLES, Code.BAD_METRICS, Code.MISSHAPEN, Code.NOT_FINITE, Code.TOO_LARGE} == FINAL


# --- contents ---


def test_a_sound_update_is_admitted_with_its_tensors() -> None:
    verdict = judged(SMALL, examples=600.0)
    assert isinstance(verdict, Admitted)
    assert same_tensors(verdict.tensors, SMALL)
    assert verdict.weight == 600
    assert type(verdict.weight) is int


def test_another_spec_is_refused_with_the_likely_reason() -> None:
    verdict = judged({**SMALL, "more": np.zeros(1)})
    assert verdict == Refusal(
        Code.MISSHAPEN, "the update follows another model's spec; do hub and edge run the same app?"
    )


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({}, "0 tensors came, the model has 6"),
        ({**SMALL, "net.half": np.zeros(4, np.float16)}, "net.half float16[3] takes 6 bytes, 8 came"),
        ({**SMALL, "net.half": np.zeros(1, np.float16)}, "net.half float16[3] takes 6 bytes, 2 came"),
        ({**SMALL, "norm.count": np.zeros(1, np.complex128)}, "norm.count int64[] takes 8 bytes, 16 came"),
        ({**SMALL, "more": np.zeros(1)}, "7 tensors came, the model has 6"),
    ],
)
def test_whoever_names_the_right_spec_must_send_its_tensors(tensors: Tensors, reason: str) -> None:
    data = b"".join(
        encode(UPDATE, [array.view(np.uint8) if array.ndim else array for array in tensors.values()]).pieces
    )
    verdict = GATE.contents(decode(data, ToHub, max_tensors=10), weight_cap=10**9, fits=always)
    assert verdict == Refusal(Code.MISSHAPEN, reason)


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float32", "float64"], ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 40_000])
def test_one_number_that_is_none_spoils_an_update(dtype: Any, bad: float, place: int) -> None:
    array = np.zeros((3, 20_000), dtype)
    array.reshape(-1)[place] = bad
    spec = ModelSpec.of({"w": array})
    verdict = judged({"w": array}, gate=Gate("r", spec, 10))
    assert verdict == Refusal(Code.NOT_FINITE, "tensor w holds NaN or infinity")


def test_nan_beside_infinity_is_found_too() -> None:
    array = np.array([math.inf, math.nan, -math.inf])
    assert judged({"w": array}, gate=Gate("r", ModelSpec.of({"w": array}), 10)) == Refusal(
        Code.NOT_FINITE, "tensor w holds NaN or infinity"
    )


@pytest.mark.parametrize("values", [[1.0, -3.5], [3.5, -1.0], [-3.5, -2.0], [3.5, 2.0]])
def test_what_fits_is_asked_of_the_largest_absolute_value_and_the_examples(values: list[float]) -> None:
    asked = []

    def fits(examples: int, magnitude: float) -> bool:
        asked.append((examples, magnitude))
        return True

    model = {"w": np.array(values), "n": np.array([-99]), "empty": np.zeros(0)}
    judged(model, gate=Gate("r", ModelSpec.of(model), 10), fits=fits)
    assert asked == [(600, 3.5), (600, 0.0), (600, 0.0)]


def test_what_does_not_fit_is_refused_with_its_tensor_and_size() -> None:
    model = {"small": np.ones(3), "large": np.array([1.0, -1e30])}
    verdict = judged(model, gate=Gate("r", ModelSpec.of(model), 10), fits=lambda _, magnitude: magnitude < 10)
    assert verdict == Refusal(
        Code.TOO_LARGE, "tensor large holds 1e+30, too large to be added exactly for 600 examples"
    )


# --- weights: a lie about the number of examples takes over no mean (F5) ---


@pytest.mark.parametrize(("claimed", "weight"), [(1, 1), (99, 99), (100, 100), (101, 100), (10_000, 100)])
def test_no_edge_weighs_more_than_the_rounds_cap(claimed: int, weight: int) -> None:
    asked = []

    def fits(weight: int, magnitude: float) -> bool:
        asked.append(weight)
        return True

    verdict = judged(SMALL, weight_cap=100, fits=fits, examples=claimed)
    assert isinstance(verdict, Admitted)
    assert verdict.weight == weight
    assert set(asked) == {weight}


@pytest.mark.parametrize(
    ("claims", "cap"),
    [
        ([], 1000),
        ([0, 0], 1000),
        ([7], 70),
        ([7, 0, 0, 0, 0], 70),  # whoever claims nothing does not pull the cap down
        ([1, 2, 3], 20),
        ([3, 10**12, 1, 2, 2], 20),  # one liar does not move the median
        ([1, 50], 500),
        ([600, 600, 600], 1000),
    ],
)
def test_the_cap_is_ten_times_the_median_of_what_the_cohort_claimed_on_joining(claims: list[int], cap: int) -> None:
    assert weight_cap(claims, most=1000) == cap


@given(claims=st.lists(st.integers(0, 2**53)), most=st.integers(1, 2**53), dice=st.randoms())
def test_the_cap_is_a_weight_whatever_is_claimed_and_in_whatever_order(claims: list[int], most: int, dice: Any) -> None:
    cap = weight_cap(claims, most=most)
    assert 1 <= cap <= most
    dice.shuffle(claims)
    assert weight_cap(claims, most=most) == cap


# --- exactly the model's spec (F2) ---

tensor_specs = st.builds(
    TensorSpec,
    name=st.sampled_from("abcd"),
    dtype=st.sampled_from([dtype.name for dtype in DTYPES]),
    shape=st.lists(st.integers(0, 3), max_size=3).map(tuple),
)
specs = st.lists(tensor_specs, min_size=1, max_size=4, unique_by=lambda tensor: tensor.name).map(
    lambda tensors: ModelSpec(tuple(tensors))
)


def zeros(spec: ModelSpec) -> Tensors:
    return spec.views([bytes(tensor.nbytes) for tensor in spec.tensors])


@settings(max_examples=300, deadline=None)
@given(ours=specs, theirs=specs, data=st.data())
def test_exactly_the_models_spec_is_admitted(ours: ModelSpec, theirs: ModelSpec, data: st.DataObject) -> None:
    if data.draw(st.booleans()):  # as like as can be: one tensor changed, left out, doubled, or two changed places
        tensors = list(ours.tensors)
        at = data.draw(st.integers(0, len(tensors) - 1))
        match data.draw(st.sampled_from(["same", "change", "drop", "swap"])):
            case "change":
                tensors[at] = data.draw(tensor_specs)
            case "drop":
                del tensors[at]
            case "swap":
                tensors.insert(0, tensors.pop(at))
        theirs = ModelSpec(tuple({tensor.name: tensor for tensor in tensors}.values()))
    gate = Gate("r", ours, 10)
    honest = judged(zeros(theirs), gate=gate)
    assert isinstance(honest, Admitted) == (theirs == ours)
    liar = judged(zeros(theirs), gate=gate, spec=ours.digest)
    same_bytes = [tensor.nbytes for tensor in theirs.tensors] == [tensor.nbytes for tensor in ours.tensors]
    assert isinstance(liar, Admitted) == same_bytes  # it lied about bytes that are a sound update all the same


@settings(max_examples=300, deadline=None)
@given(
    examples=st.integers(1, 10_000),
    value=st.floats(width=32) | st.sampled_from([2.0**18, -(2.0**18), 2.0**18 + 1, 0.0]),
    cohort=st.integers(1, 1000),
)
def test_what_is_admitted_can_be_added(examples: int, value: float, cohort: int) -> None:
    mean = ExactMean()
    array = np.array([0.0, value], np.float32)
    gate = Gate("r", ModelSpec.of({"w": array}), 10_000)
    verdict = judged({"w": array}, gate=gate, fits=lambda n, m: mean.fits(n, m, updates=cohort), examples=examples)
    if isinstance(verdict, Admitted):
        state = mean.accumulate(mean.init({"w": array}), verdict.tensors, verdict.weight, largest=verdict.largest)
        assert abs(mean.finalize(state, {"w": array})["w"][1] - value) <= 2.0**-33 + abs(value) * 2.0**-51
    else:
        assert not (abs(value) * examples * cohort < 2.0**30 and abs(value) <= 2.0**18)
