"""The page about facts says what the code does; old lines are still read; no line holds what a terminal would obey."""

import json
import re
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from hub.events import (
    SCHEMA,
    EdgeLeft,
    Fact,
    Move,
    RoundClosed,
    Stage,
    Stamped,
    WaitingForEdges,
    from_line,
    to_line,
)
from hub.rules.admission import Code
from hub.rules.rounds import Outcome
from hub.views.board import Board, Fate
from shared.messages import Action

PAGE = (Path(__file__).parents[2] / "docs" / "events.md").read_text("utf-8")

WORDS = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "text",
    Stage: "text",
    Action: "text",
    Literal["", "central", "federated"]: "text",
    Literal["operator", "hub"]: "text",
    float | None: "number or null",
    tuple[str, ...]: "list of text",
    tuple[Move, ...]: "list of moves",
    dict[str, str]: "map of text",
    dict[str, float]: "map of numbers",
    Fact: "fact",
}

Row = tuple[str, ...]


def section(title: str) -> str:
    """The part of the page under a headline, up to the next one."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert found, f"there is no {title!r}"
    return found[1]


def table(text: str, head: str) -> list[Row]:
    """The rows of the table whose first column is called `head`, without its two first lines."""
    found = re.search(rf"^\| {head} \|.*\n\|[-|]+\|\n((?:\|.*\n)*)", text, re.MULTILINE)
    assert found, f"there is no table of each {head}"
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in found[1].splitlines()]


def fields_of(kind: type[msgspec.Struct]) -> list[Row]:
    """What the page must say of each field: its name, its type, and what it is where it is absent."""
    hints = get_type_hints(kind)
    return [
        (
            f"`{one.name}`",
            WORDS[hints[one.name]],
            "" if one.default is msgspec.NODEFAULT else f"`{json.dumps(one.default)}`",
        )
        for one in msgspec.structs.fields(kind)
    ]


def names(text: str, head: str) -> set[str]:
    """The first column of a table."""
    return {row[0].strip("`") for row in table(text, head)}


@pytest.mark.parametrize("kind", get_args(Fact), ids=lambda kind: kind.__name__)
def test_the_page_names_every_field_with_its_type(kind: type[msgspec.Struct]) -> None:
    rows = table(section(kind.__name__), "field")
    assert [row[:3] for row in rows] == fields_of(kind)
    assert all(row[3] for row in rows), "each field has a meaning"


def test_the_page_names_every_event_and_no_others() -> None:
    assert re.findall(r"^### (\w+)$", PAGE, re.MULTILINE) == [kind.__name__ for kind in get_args(Fact)]


def test_the_page_describes_the_line_and_the_moves() -> None:
    assert [row[:3] for row in table(section("A line"), "field")] == fields_of(Stamped)
    assert [row[:3] for row in table(section("EdgesMoved"), "place")] == fields_of(Move)


def test_the_page_lists_every_value_of_a_list() -> None:
    assert names(section("UpdateRefused"), "code") == set(Code)
    stages = section("Stages: where the time of the edges goes")
    assert names(stages, "stage") == set(Stage)
    assert names(stages, "fate") == set(get_args(Fate))
    actions = next(row for row in table(section("Ordered"), "field") if row[0] == "`action`")
    assert set(re.findall(r"`(\w+)`:", actions[3])) == set(get_args(Action))
    outcomes = next(row for row in table(section("RoundClosed"), "field") if row[0] == "`outcome`")
    assert set(re.findall(r"`([\w-]+)`", outcomes[3])) == set(Outcome) - {Outcome.TOO_FEW_ANSWERED}


def test_the_page_tells_the_version() -> None:
    assert re.findall(r"written: (\d+) today", PAGE) == [str(SCHEMA)]


def test_the_example_on_the_page_is_real_and_adds_up() -> None:
    text = section("One round, line by line")
    found = re.search(r"```jsonl\n(.*?)```", text, re.DOTALL)
    assert found
    lines = found[1].splitlines()
    assert [to_line(from_line(line)) for line in lines] == lines
    state = Board.of(map(from_line, lines)).state
    assert state.round is not None
    shown = [Stage.WAITING, Stage.DOWNLOADING, Stage.TRAINING, Stage.UPLOADING, Stage.DONE]

    def row(name: str, spent: dict[Stage, float], fate: str) -> Row:
        return (name, *(f"{spent.get(stage, 0.0):.4f}" for stage in shown), fate)

    listened = state.round.listened or 0.0
    edges = list[Row]()
    for name, lane in state.round.lanes.items():
        lane.spend(listened, spent := dict[Stage, float]())
        edges.append(row(name, spent, lane.fate or ""))
    assert table(text, "edge") == [*edges, row("together", state.head.spent, "")]
    closed = state.rows[-1]
    told = [f"{sum(closed.spent.values()):.4f} edge-seconds", f"{len(edges)} edges for {listened:.4f} s"]
    told += [f"{closed.lost_seconds:.4f} of them", f"{closed.lost_bytes:,} bytes"]
    told += [f"{1000 * closed.phases['listening']:.1f} ms", f"{1000 * closed.phases['averaging']:.1f} ms"]
    told += [f"{1000 * closed.phases['saving']:.1f} ms", f"{1000 * closed.phases['measuring']:.1f} ms"]
    assert [words for words in told if words not in text.replace("\n", " ")] == []


@pytest.mark.parametrize("kind", get_args(Fact), ids=lambda kind: kind.__name__)
def test_a_line_of_an_older_release_is_read_as_the_page_says(kind: type[msgspec.Struct]) -> None:
    """Such a line lacks the fields that have come since; these are the ones with a value for that."""
    plain: dict[Any, Any] = {bool: True, int: 1, float: 0.5, str: "x", Action: "drop", float | None: None}
    hints = get_type_hints(kind)
    fields = {
        one.name: plain.get(hints[one.name], {} if "dict" in str(hints[one.name]) else "")
        for one in msgspec.structs.fields(kind)
        if one.default is msgspec.NODEFAULT
    }
    fields |= {name: [] for name in fields if str(hints[name]).startswith("tuple")}
    old = json.dumps({"seq": 1, "time": 2.0, "fact": {"event": kind.__name__, **fields}})
    fact = from_line(old).fact
    assert type(fact) is kind
    defaults = [one for one in msgspec.structs.fields(kind) if one.default is not msgspec.NODEFAULT]
    assert all(getattr(fact, one.name) == one.default for one in defaults)


def test_what_a_newer_release_adds_is_passed_over() -> None:
    line = '{"seq":1,"time":2.0,"more":[],"fact":{"event":"Missed","count":3,"of":{"what":"facts"}}}'
    assert to_line(from_line(line)) == '{"seq":1,"time":2.0,"fact":{"event":"Missed","count":3}}'
    moves = (
        '{"seq":1,"time":2.0,"fact":{"event":"EdgesMoved","round":1,"attempt":1,"moves":[["a","away",1.5,7,"more"]]}}'
    )
    assert from_line(moves).fact.moves == (Move("a", Stage.AWAY, 1.5, 7),)  # type: ignore[union-attr]
    with pytest.raises(msgspec.ValidationError):
        from_line('{"seq":1,"time":2.0,"fact":{"event":"NewsOfTomorrow"}}')


def left(edge: str, reason: str = "") -> Stamped:
    return Stamped(1, 2.0, EdgeLeft(edge=edge, role="trainer", reason=reason, here=0))


NASTY = "".join(chr(code) for code in [*range(0x20), 0x22, 0x5C, *range(0x7F, 0xA1)]) + (
    "\u00ad\u061c\u200b\u200d\u200e\u2028\u2029\u202a\u202e\u2066\u2069\ufeff\ufff9\U000e0001\U0010ffff"
)


@given(some.text(), some.text())
@example(NASTY, "plain")
@example("ascii \x7f", "only")
@example("ü ✓ 漢字 🙂", "é")
def test_a_line_can_be_shown_as_it_is_and_says_the_same(edge: str, reason: str) -> None:
    line = to_line(left(edge, reason))
    assert line.isprintable()
    assert from_line(line) == left(edge, reason)
    assert json.loads(line)["fact"]["edge"] == edge


def test_what_can_be_shown_stays_readable() -> None:
    assert '"edge":"ü ✓ 漢字 🙂 \\u202e"' in to_line(left("ü ✓ 漢字 🙂 \u202e"))


def test_names_that_are_keys_are_escaped_too() -> None:
    closed = RoundClosed(
        round=1, attempt=1, outcome="goal-reached", asked=1, answered=1, late=(), left=(), refused={NASTY: "stale"},
        loss=None, metrics={NASTY: 1.0}, evaluated="", best=False, seconds=1.0, bytes_down=0, bytes_up=0, model="",
    )  # fmt: skip
    line = to_line(Stamped(1, 2.0, closed))
    assert line.isprintable()
    assert from_line(line).fact == closed


def test_a_fact_says_all_its_fields() -> None:
    line = to_line(Stamped(1, 2.0, WaitingForEdges(here=0, needed=3)))
    assert line == '{"seq":1,"time":2.0,"fact":{"event":"WaitingForEdges","here":0,"needed":3}}'
