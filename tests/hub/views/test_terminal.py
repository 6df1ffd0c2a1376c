"""The board on a terminal: it fits whatever the size is, says where everybody is, and obeys nobody's bytes."""

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from hub.events import Stage
from hub.views.board import Edge, Head, Lane, Line, Phase, Round, Row, State
from hub.views.terminal import draw, waste
from hub.views.words import took

SIZES = [(1, 1), (20, 5), (40, 11), (80, 24), (132, 43), (200, 60)]
BEGAN = 1_800_000_000.0


def lane(number: int) -> Lane:
    """Give the way of one of many edges, two seconds into the round."""
    ways = [
        Lane([(Stage.WAITING, 0.0), (Stage.DOWNLOADING, 0.1)]),
        Lane([(Stage.WAITING, 0.0), (Stage.DOWNLOADING, 0.1), (Stage.TRAINING, 0.5)]),
        Lane([(Stage.WAITING, 0.0), (Stage.TRAINING, 0.5), (Stage.UPLOADING, 1.2)]),
        Lane([(Stage.WAITING, 0.0), (Stage.TRAINING, 0.5), (Stage.UPLOADING, 1.2), (Stage.DONE, 1.5)], weight=5),
        Lane([(Stage.WAITING, 0.0), (Stage.TRAINING, 0.5), (Stage.REFUSED, 0.9)], why="not-finite"),
        Lane([(Stage.WAITING, 0.0), (Stage.AWAY, 0.7)]),
    ]
    return ways[number % len(ways)]


def row(number: int) -> Row:
    return Row(
        number=number, outcome="deadline-passed", asked=10, answered=8, late=2, left=0, refused=0, loss=2.0 / number,
        metrics={"accuracy": 1 - 0.9 / number}, best=True, seconds=1.4, down=97_000, up=80_000,
        phases={"listening": 1.2}, spent={}, lost_seconds=0.0, lost_bytes=0,
    )  # fmt: skip


def board(edges: int = 10, rounds: int = 8, *, phase: Phase = "training", seconds: float = 5.0) -> State:
    """Make the board of a run in its ninth round."""
    names = [f"edge-{number:03}" for number in range(edges)]
    return State(
        time=BEGAN,
        head=Head(
            run="r", name="1120-digits", algorithm="fedavg", parameters=2410, rounds=20, committed=rounds, phase=phase,
            here=edges, down=900_000, up=800_000, spent={Stage.TRAINING: 100.0}, lost_seconds=20.0, lost_bytes=17_000,
            fates={"accepted": 60, "late": 4},
        ),
        edges={
            name: Edge("trainer", "phone", "fedhub", 120, 5_000, here=True, since=BEGAN, weight=5) for name in names
        },
        round=Round(
            rounds + 1, 1, BEGAN, seconds, edges, 1, {name: lane(number) for number, name in enumerate(names)}
        ),
        rows=[row(number) for number in range(1, rounds + 1)],
        lines=[Line(BEGAN, "info", f"something happened, number {number}") for number in range(40)],
    )  # fmt: skip


def text(state: State, *, after: float = 2.0, width: int = 80, height: int = 24, note: str = "") -> str:
    return draw(state, BEGAN + after, width, height, note=note).plain


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("edges", [0, 1, 10, 300, 1000])
@pytest.mark.parametrize("rounds", [0, 1, 8, 700])
def test_the_board_fits_every_screen(width: int, height: int, edges: int, rounds: int) -> None:
    lines = text(board(edges, rounds), width=width, height=height).split("\n")
    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("phase", ["opening", "waiting", "paused", "training", "measuring", "stopping", "ended"])
def test_every_phase_fits_every_screen_with_a_round_and_without(width: int, height: int, phase: Phase) -> None:
    with_round, without = board(phase=phase), board(phase=phase)
    without.round = None
    for state in (with_round, without, State()):
        lines = text(state, width=width, height=height).split("\n")
        assert len(lines) <= height
        assert max(map(cell_len, lines)) <= width


def test_each_edge_has_a_lane_that_says_where_it_is() -> None:
    shown = text(board(6))
    for name, what in [
        ("edge-000", "downloads"), ("edge-001", "trains"), ("edge-002", "uploads"), ("edge-003", "✓ 1.5 s"),
        ("edge-004", "refused"), ("edge-005", "away"),
    ]:  # fmt: skip
        assert re.search(rf"{name} .*{what}", shown), shown
    assert "1 of 6 answered" in shown


def test_at_its_end_each_lane_says_what_came_of_it() -> None:
    state = board(6)
    assert state.round is not None
    state.round.outcome, state.round.listened = "deadline-passed", 5.0
    for one, fate in zip(
        state.round.lanes.values(), ("late", "late", "spared", "accepted", "refused", "left"), strict=True
    ):
        one.fate = fate  # type: ignore[assignment]  # one of them
    shown = text(state)
    for name, what in [
        ("000", "late"),
        ("002", "not needed"),
        ("003", "✓ 1.5 s"),
        ("004", "not-finite"),
        ("005", "left"),
    ]:
        assert re.search(rf"edge-{name} .*{what}", shown), shown
    assert "deadline passed" in shown


def test_a_wide_screen_shows_lanes_side_by_side() -> None:
    lines = text(board(60), width=200, height=60).split("\n")
    assert any("edge-000" in line and "edge-030" in line for line in lines)


def test_where_lanes_do_not_fit_each_edge_is_a_dot_and_who_is_awaited_still_has_a_lane() -> None:
    shown = text(board(300), width=100, height=40)
    assert shown.count("●") == 1 + 300
    assert "50 trains" in shown
    assert "edge-001" in shown
    assert not re.search(r"edge-003 ", shown), "it is done"


def test_where_dots_do_not_fit_either_a_dot_stands_for_some() -> None:
    shown = text(board(1000))
    assert "a dot stands for 2 edges" in shown
    assert shown.count("●") <= 501


@pytest.mark.parametrize(
    ("after", "says"),
    [(0.0, "5.0 s to the deadline"), (4.6, "0.40 s to the"), (5.0, "deadline has passed"), (90.0, "has")],
)
def test_the_time_to_the_deadline_is_counted_down(after: float, says: str) -> None:
    assert says in text(board(), after=after)


def test_lanes_are_drawn_against_what_rounds_take_and_no_longer_than_the_deadline() -> None:
    assert "1.0 min" not in text(board(seconds=60.0), after=2.0)
    assert "5.0 s ─" in text(board(seconds=60.0), after=2.0)
    assert "60 s deadline" in text(board(seconds=60.0), after=55.0)


@pytest.mark.parametrize(
    ("phase", "says"),
    [("waiting", "waiting for edges: 2 of 3 here"), ("paused", "paused"), ("ended", "all rounds are done")],
)
def test_the_board_says_what_the_hub_is_about(phase: Phase, says: str) -> None:
    state = board(2, phase=phase)
    state.head.needed, state.head.note = 3, "all rounds are done"
    assert says in text(state)


def test_before_the_first_round_whoever_is_here_is_listed() -> None:
    state = board(3, 0, phase="waiting")
    state.round = None
    assert re.search(r"edge-002 +phone 120 examples", text(state))


def test_that_the_hub_is_away_is_said_at_every_size() -> None:
    for width, height in SIZES[1:]:
        assert "the hub is away" in text(board(), width=width, height=height, note="the hub is away")


def test_what_others_call_themselves_reaches_the_terminal_as_text() -> None:
    evil = "\x1b]0;owned\x07\x1b[2J[red]x[/red]\r\n\x9b31m\u202e\x00"
    state = board(2)
    assert state.round is not None
    state.head.name = state.head.algorithm = state.head.note = evil
    state.head.metric = evil
    state.rows = [row(1)]
    state.rows[0].metrics = {evil: 0.5}
    state.lines = [Line(BEGAN, "bad", evil)]
    state.round.lanes = {evil: Lane([(Stage.REFUSED, 0.0)], "refused", evil)}
    state.round.outcome = evil
    waiting = board(1, phase="waiting")
    waiting.round, waiting.edges = None, {evil: Edge("trainer", evil, evil, 1, 1, here=True, since=BEGAN)}
    for one, (width, height) in ((one, size) for one in (state, waiting) for size in SIZES):
        out = io.StringIO()
        console = Console(file=out, force_terminal=True, color_system="truecolor", width=width, legacy_windows=False)
        console.print(draw(one, BEGAN + 1, width, height, note=evil))
        seen = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())  # colours, which are rich's
        assert all(char.isprintable() or char == "\n" for char in seen), ascii(seen)
    assert "[red]x[/red]" in text(state)


def test_numbers_that_are_none_do_no_harm() -> None:
    nan, inf = float("nan"), float("inf")
    state = board(2)
    assert state.round is not None
    state.rows[1].metrics, state.rows[2].metrics, state.rows[3].loss = {"accuracy": nan}, {"accuracy": inf}, nan
    state.lines = [Line(at, "info", "when?") for at in (nan, inf, -1e300, 1e18)]
    state.head.lost_seconds, state.head.spent = nan, {Stage.TRAINING: inf}
    for began, seconds, listened in ((nan, nan, None), (inf, 1.0, None), (-inf, inf, None), (BEGAN, 0.0, nan)):
        state.round.began, state.round.seconds, state.round.listened = began, seconds, listened
        for width, height in SIZES:
            assert text(state, width=width, height=height)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "0.00 s"), (0.354, "0.35 s"), (4.56, "4.6 s"), (61, "61 s"), (270, "4.5 min"), (9000, "2.5 h")],
)
def test_times_are_written_as_people_say_them(seconds: float, words: str) -> None:
    assert took(seconds) == words


def test_what_was_lost_is_said_without_seconds_where_nobody_noted_what_edges_did() -> None:
    head = Head(down=1000, up=1000, lost_bytes=500, fates={"accepted": 6, "late": 2}, spent={Stage.WAITING: 9.0})
    assert waste(head) == "500 B (25%) · 2 late"
    head.spent[Stage.TRAINING], head.lost_seconds = 20.0, 0.5
    assert waste(head) == "0.50 s of 20 s of work (2.5%) · 500 B (25%) · 2 late"
