"""What people write is read as they mean it, in any nesting, and whatever else they write is answered in a sentence."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from hub.aggregation.algorithm import NEEDED, setting
from hub.aggregation.catalogue import CATALOGUE, algorithm
from hub.aggregation.spelling import LONGEST, Call, build, parse, spell
from hub.config import Settings
from shared.errors import ConfigError


@dataclass(frozen=True)
class Mean:
    """The mean."""


@dataclass(frozen=True)
class Krum:
    """A rule with a setting that has no default."""

    f: Annotated[int, Meta(ge=0)] = setting(NEEDED, "how many edges may lie")
    multi: bool = setting(False, "whether several are averaged")
    distance: Literal["l1", "l2"] = setting("l2", "how far two updates are apart")


RULES: dict[str, type] = {"mean": Mean, "krum": Krum}


@dataclass(frozen=True)
class Bucketing:
    """A rule around another."""

    rule: Mean | Krum = setting(Mean(), "what is done with the buckets' means", among=RULES)
    size: int = setting(2, "updates in a bucket")
    layers: str = setting("", "which tensors")


RULES["bucketing"] = Bucketing


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("mean", Mean()),
        ("mean()", Mean()),
        ("krum(f=2)", Krum(2)),
        ("krum(f=2, multi=true, distance=l1)", Krum(2, multi=True, distance="l1")),
        ("bucketing", Bucketing(Mean(), 2)),
        ("bucketing(rule=mean, size=3)", Bucketing(Mean(), 3)),
        ("bucketing(rule=krum(f=2), size=2)", Bucketing(Krum(2), 2)),
        ("bucketing(rule=bucketing(rule=krum(f=1), size=4), layers=head.*)",
         Bucketing(Bucketing(Krum(1), 4), layers="head.*")),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_names_are_read_with_their_settings_in_any_nesting_and_written_back(text: str, meant: object) -> None:
    assert build(parse(text), RULES) == meant
    assert build(parse(spell(meant, RULES)), RULES) == meant


def test_what_is_at_its_default_is_not_written() -> None:
    assert spell(Bucketing(Krum(2, multi=True), 2), RULES) == "bucketing(rule=krum(f=2, multi=true))"
    assert spell(Bucketing(), RULES) == "bucketing"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("", "a name is missing at the end"),
        ("(", "a name is missing at '('"),
        ("krum(", "')' is missing after 'krum'"),
        ("krum(f", "'=' is missing after 'f'"),
        ("krum(f 2)", "'=' is missing after 'f'"),
        ("krum(f=", "a name is missing at the end"),
        ("krum(f=)", "a name is missing at ')'"),
        ("krum(f=2", "')' is missing after 'krum'"),
        ("krum(f=2 multi=true)", "',' is missing after '2'"),
        ("krum(,f=2)", "a setting of krum is missing at ','"),
        ("krum(f=2,,)", "a setting of krum is missing at ','"),
        ("krum(f=2, f=3)", "f is said twice"),
        ("krum(f=2))", "there is more after it: ')'"),
        ("krum f", "there is more after it: 'f'"),
        ("krum(2)", "'=' is missing after '2'"),
    ],
)
def test_what_cannot_be_read_is_answered_with_the_place_and_an_example(text: str, answer: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(text)
    assert str(error.value) == f"algorithm: {answer}; write it like fedadam(server_lr=0.03, tau=0.001)"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("krum", "krum needs f, how many edges may lie"),
        ("krum(f=1.5)", "krum's f = '1.5' is impossible: expected a whole number"),
        ("krum(f=-1)", "krum's f = '-1' is impossible: expected a whole number >= 0"),
        ("krum(f=1, multi=maybe)", "krum's multi = 'maybe' is impossible: expected true or false"),
        ("krum(f=1, distance=l3)", "krum's distance = 'l3' is impossible: invalid enum value 'l3'"),
        ("bucketing(rule=krun(f=1))", "'krun' is not known; did you mean 'krum'?"),
        ("bucketing(rule=krum(g=1))", "krum has no setting 'g'; there are f, multi, distance"),
    ],
)
def test_a_mistake_in_a_nested_name_is_told_like_any_other(text: str, answer: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(parse(text), RULES)
    assert str(error.value).startswith(f"algorithm: {answer}")


def test_a_spelling_without_end_is_refused_before_it_is_read() -> None:
    deepest = "a(b=" * (LONGEST // 4)
    with pytest.raises(ConfigError, match="a name is missing at the end"):
        parse(deepest)
    with pytest.raises(ConfigError, match="401 characters are too many; 400 are the most"):
        parse(deepest + "a")


def same_call(one: Call, names: Mapping[str, type]) -> str:
    """Write a call out in full."""
    inner = ",".join(
        f"{key}={same_call(value, names) if isinstance(value, Call) else value}" for key, value in one.settings.items()
    )
    return f"{one.name}({inner})" if inner else one.name


words = st.sampled_from(
    [*CATALOGUE, *RULES, "f", "rule", "tau", "server_lr", "beta", "1", "-0.5", "1e400", "true", "ä"]
)
pieces = st.lists(words | st.sampled_from(["(", ")", ",", "=", " ", "\n", "\x00", '"', "9" * 350]), max_size=30)


@given(st.text(max_size=60) | pieces.map("".join))
def test_no_text_raises_anything_but_a_sentence_for_the_operator(text: str) -> None:
    for read in (
        lambda: algorithm(text, Settings()),
        lambda: build(parse(text), RULES),
    ):
        with suppress(ConfigError):
            read()


calls = st.recursive(
    st.builds(Call, words, st.just({})),
    lambda inner: st.builds(
        Call,
        words,
        st.dictionaries(words, words | inner.filter(lambda call: bool(call.settings)), max_size=2),
    ),
    max_leaves=5,
)


@given(calls)
def test_whatever_is_written_in_the_grammar_is_read_as_it_was_meant(call: Call) -> None:
    text = same_call(call, RULES)
    if len(text) <= LONGEST:
        assert parse(text) == call


@given(st.builds(Bucketing, st.builds(Krum, st.integers(0, 2**53), st.booleans()), st.integers(-(2**53), 2**53)))
def test_whatever_is_made_is_written_so_that_it_is_made_again(made: Bucketing) -> None:
    assert build(parse(spell(made, RULES)), RULES) == made
