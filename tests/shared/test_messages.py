"""What may be said and what may not: every field has its bounds, and each side only says its own messages."""

from typing import Any, get_args

import msgspec
import pytest

from shared.messages import Farewell, Message, ToEdge, ToHub, ToViewer
from tests.support.examples import HASH, HELLO, SAID_BY_EDGES, SAID_BY_THE_HUB, SAID_TO_VIEWERS, UPDATE, WELCOME

EVERYTHING = {**SAID_BY_EDGES, **SAID_BY_THE_HUB, **SAID_TO_VIEWERS}
FROM_THE_HUB = ToEdge | ToViewer


def read(message: Message, **changes: Any) -> Message:
    """Send `message` with some fields changed, and read it on the other side."""
    fields = {**msgspec.to_builtins(message), **changes}
    return msgspec.convert(fields, ToHub if isinstance(message, get_args(ToHub)) else FROM_THE_HUB)


def refused(message: Message, **changes: Any) -> bool:
    try:
        read(message, **changes)
    except msgspec.ValidationError:
        return True
    return False


@pytest.mark.parametrize("name", EVERYTHING)
def test_a_message_says_its_type_in_lower_case(name: str) -> None:
    message = EVERYTHING[name]
    assert msgspec.to_builtins(message)["type"] == type(message).__name__.lower()


def test_there_is_an_example_of_everything_that_can_be_said() -> None:
    assert {type(message) for message in EVERYTHING.values()} == set(get_args(ToHub)) | set(get_args(FROM_THE_HUB))


def test_only_goodbye_is_said_by_both_sides() -> None:
    assert {kind.__name__ for kind in set(get_args(ToHub)) & set(get_args(FROM_THE_HUB))} == {"Goodbye"}


@pytest.mark.parametrize("name", EVERYTHING)
def test_a_message_is_what_it_was_when_it_was_said(name: str) -> None:
    with pytest.raises(AttributeError):
        EVERYTHING[name].round = 8  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", EVERYTHING)
def test_a_field_from_the_future_is_ignored(name: str) -> None:
    assert read(EVERYTHING[name], mood="good") == EVERYTHING[name]


@pytest.mark.parametrize("edge", ["a", "Edge-01", "192.168.1.20", "0", "a" * 64, "x_y.z-"])
def test_a_plain_name_is_an_edge_id(edge: str) -> None:
    assert not refused(HELLO, edge=edge)


@pytest.mark.parametrize(
    "edge", ["", "a" * 65, ".hidden", "-flag", "_x", "a b", "a/b", "a\n", "\x1b[31m", "é", "a\0", 7, None]
)
def test_what_could_hurt_a_log_or_a_page_is_no_edge_id(edge: Any) -> None:
    assert refused(HELLO, edge=edge)


@pytest.mark.parametrize("hash", ["", HASH[:-1], HASH + "0", HASH.upper(), HASH + "\n", "g" * 64])
def test_only_64_lower_case_hexadecimal_digits_are_a_hash(hash: str) -> None:
    assert refused(UPDATE, model=hash)
    assert refused(WELCOME, model=hash)
    assert refused(SAID_BY_EDGES["ready"], model=hash)


@pytest.mark.parametrize(
    ("agent", "bad"), [("", False), ("~" * 64, False), ("~" * 65, True), ("é", True), ("x\n", True)]
)
def test_an_agent_is_printable_ascii(agent: str, bad: bool) -> None:
    assert refused(HELLO, agent=agent) is bad


@pytest.mark.parametrize(
    ("versions", "bad"), [([], True), ([1], False), ([1] * 16, False), ([1] * 17, True), (1, True)]
)
def test_hello_offers_one_to_sixteen_versions(versions: Any, bad: bool) -> None:
    assert refused(HELLO, versions=versions) is bad


@pytest.mark.parametrize(("count", "bad"), [(0, False), (2**53, False), (-1, True), (2**53 + 1, True), (1.5, True)])
def test_counts_are_whole_and_exact_in_every_language(count: float, bad: bool) -> None:
    assert refused(SAID_BY_EDGES["ready"], examples=count) is bad
    assert refused(SAID_BY_EDGES["ready"], data_bytes=count) is bad


@pytest.mark.parametrize("examples", [-89, 0, 1e12, 2**64 - 1, float("nan"), float("inf"), 3.5])
def test_any_number_of_examples_is_read_because_admission_judges_it(examples: float) -> None:
    assert not refused(UPDATE, examples=examples)


@pytest.mark.parametrize("examples", ["600", None, True, [600]])
def test_what_is_no_number_is_no_number_of_examples(examples: Any) -> None:
    assert refused(UPDATE, examples=examples)


@pytest.mark.parametrize(
    ("metrics", "bad"),
    [
        ({}, False),
        ({"loss": 1}, False),
        ({"loss": float("nan")}, False),
        ({str(n): 0.0 for n in range(32)}, False),
        ({str(n): 0.0 for n in range(33)}, True),
        ({"l" * 256: 0.0}, False),
        ({"l" * 257: 0.0}, True),
        ({"loss": "0.5"}, True),
    ],
)
def test_metrics_are_at_most_32_numbers_with_short_names(metrics: Any, bad: bool) -> None:
    assert refused(UPDATE, metrics=metrics) is bad


@pytest.mark.parametrize("field", ["run", "spec"])
def test_what_an_edge_names_freely_is_short(field: str) -> None:
    assert not refused(UPDATE, **{field: "r" * 256})
    assert refused(UPDATE, **{field: "r" * 257})


def test_the_reason_of_a_goodbye_is_short() -> None:
    goodbye = SAID_BY_EDGES["goodbye-leaving"]
    assert not refused(goodbye, reason="é" * 1024)
    assert refused(goodbye, reason="é" * 1025)


def test_a_goodbye_has_one_of_six_codes() -> None:
    goodbye = SAID_BY_EDGES["goodbye-leaving"]
    assert not any(refused(goodbye, code=str(code)) for code in Farewell)
    assert refused(goodbye, code="tired")


@pytest.mark.parametrize(
    ("tensor", "bad"),
    [
        (["w", "float32", [2, 3]], False),
        (["w", "float32", []], False),
        (["w", "float32", [0, 2**32]], False),
        (["w", "float32", [0, 2**32 + 1]], True),
        (["w", "float32", [-1]], True),
        (["w", "float32", [1] * 65], True),
        (["w", "complex64", [1]], True),
        (["w", "float32"], True),
    ],
)
def test_a_spec_lists_tensors_that_can_be(tensor: Any, bad: bool) -> None:
    assert refused(WELCOME, spec=[tensor]) is bad
