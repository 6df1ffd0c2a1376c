"""What happened is said in words that are true wherever they are read."""

import io

import pytest
from rich.console import Console

from hub.events import Fact, Missed, Ordered, Stamped, StopRequested
from hub.views.log import PrettyLog
from hub.views.words import number, own_models, percent, sentence


def said(fact: Fact) -> str:
    words = sentence(fact, "accuracy")
    assert words
    return words.text


@pytest.mark.parametrize(
    ("count", "words"),
    [(1, "1 fact is missing here"), (12, "12 facts are missing here"), (1200, "1,200 facts are missing here")],
)
def test_missing_facts_are_counted_whyever_they_are_missing(count: int, words: str) -> None:
    assert said(Missed(count=count)) == words


def test_who_orders_is_said() -> None:
    assert said(Ordered(action="deadline", round=1, seconds=2.5)) == "the operator sets the deadline to 2.5 s"
    assert said(Ordered(action="deadline", round=1, seconds=60.0, by="hub")) == "the hub sets the deadline to 60 s"


def test_only_the_hubs_own_terminal_says_that_a_second_time_stops_at_once() -> None:
    stop = StopRequested(round=3, answered=1, asked=4)
    assert said(stop) == "closing round 3 (1 of 4 in), saving ..."
    for own, hint in ((True, " (again to stop at once)"), (False, "")):
        out = io.StringIO()
        with PrettyLog(Console(file=out, width=100), own=own) as log:
            log.take(Stamped(1, 1.0, stop))
        assert out.getvalue() == f"{said(stop)}{hint}\n"


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0, "0%"), (0.0001, "<0.1%"), (0.042, "4.2%"), (0.37, "37%"), (0.994, "99.4%"), (0.9999, "99.9%"), (1, "100%"),
    ],
)  # fmt: skip
def test_shares_hide_neither_a_little_nor_what_is_lacking(share: float, words: str) -> None:
    assert percent(share) == words


@pytest.mark.parametrize(
    ("metric", "value", "words"),
    [
        ("accuracy", 0.9137, "91.4%"),
        ("loss", 0.123456, "0.1235"),
        ("loss", 2.0, "2"),
        ("perplexity", 123456.0, "123500"),
    ],
)
def test_metrics_are_written_with_four_digits_and_accuracies_in_per_cent(metric: str, value: float, words: str) -> None:
    assert number(metric, value) == words


def test_what_edges_own_models_reach_is_told_beside_the_common_one() -> None:
    assert own_models({"accuracy": 0.5, "personal_accuracy": 0.9312}, "accuracy") == "own 93.1%"
    assert own_models({"accuracy": 0.5}, "accuracy") == ""
    assert number("personal_accuracy", 0.5) == "50.0%"
