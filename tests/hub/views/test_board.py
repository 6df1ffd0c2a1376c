"""The board is the sum of the facts: however they reach a viewer, it sees the same."""

import itertools
import random
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.events import (
    DiskTrouble,
    EdgeJoined,
    EdgeLeft,
    EdgesMoved,
    Fact,
    Missed,
    Move,
    Ordered,
    RoundAbandoned,
    RoundClosed,
    RoundCommitted,
    RoundReopened,
    RoundStarted,
    RunEnded,
    RunStarted,
    Stage,
    Stamped,
    StopRequested,
    StrangerRefused,
    UpdateAccepted,
    UpdateRefused,
    WaitingForEdges,
    from_line,
    to_line,
)
from hub.views.board import Board, Changes, Lane, State

Dice = st.randoms(use_true_random=False)
ON_THE_WAY = (Stage.WAITING, Stage.DOWNLOADING, Stage.TRAINING, Stage.UPLOADING)


class Story:
    """Makes facts up as a hub with some edges might tell them."""

    def __init__(self, dice: random.Random, *, edges: int = 6) -> None:
        self.dice = dice
        self.names = [f"edge-{number}" for number in range(edges)]
        self.now, self.seq = 1000.0, 0
        self.here: list[str] = []
        self.round, self.attempt = 0, 1

    def facts(self, count: int) -> Iterator[Stamped]:
        """Tell a run, cut off after so many facts at the latest."""
        return itertools.islice(self._stamped(), count)

    def _stamped(self) -> Iterator[Stamped]:
        for fact in self._run():
            self.seq += 1
            yield Stamped(self.seq, self.now, fact)

    def _run(self) -> Iterator[Fact]:
        yield self._started()
        while True:
            self.now += self.dice.random()
            yield from self._between()
            if not self.here:
                yield WaitingForEdges(here=0, needed=2)
                yield from self._join(self.dice.choice(self.names))
            yield from self._round()

    def _started(self) -> Fact:
        return RunStarted(
            run="r", name="a run", algorithm="fedavg", parameters=9, model_bytes=36, model="0" * 64,
            round=self.round, rounds=20, metric="accuracy", deadline=9.0,
        )  # fmt: skip

    def _between(self) -> Iterator[Fact]:
        for name in self.names:
            if name not in self.here and self.dice.random() < 0.4:
                yield from self._join(name)
        match self.dice.randrange(12):
            case 0:
                yield Ordered(action="pause", round=self.round)
                yield Ordered(action="resume", round=self.round)
            case 1:
                yield StrangerRefused(peer="10.0.0.1:7", reason="no Hello came in time")
            case 2:
                yield DiskTrouble(reason="the disk is full")
            case 3:
                yield Missed(count=3)
            case 4:
                yield StopRequested(round=self.round, answered=0, asked=0)
                yield RunEnded(reason="stopped", finished=False, rounds=self.round, model="0" * 64, seconds=1.0)
                yield from self._leave_all()
                yield self._started()
            case _:
                pass

    def _join(self, name: str) -> Iterator[Fact]:
        role = "evaluator" if name == "edge-0" else "trainer"
        self.here.append(name)
        yield EdgeJoined(
            edge=name, role=role, agent="fedhub", examples=5, data_bytes=50, here=len(self.here), kind="phone"
        )

    def _leave(self, name: str) -> Iterator[Fact]:
        self.here.remove(name)
        yield EdgeLeft(edge=name, role="trainer", reason="the line was cut", here=len(self.here))

    def _leave_all(self) -> Iterator[Fact]:
        for name in list(self.here):
            yield from self._leave(name)

    def _round(self) -> Iterator[Fact]:
        number, cohort, began = self.round + 1, tuple(self.here), self.now
        said: dict[str, str] = {}
        yield RoundStarted(round=number, attempt=self.attempt, cohort=cohort, goal=len(cohort), quorum=1, seconds=9.0)
        for _ in range(self.dice.randrange(5 * len(cohort))):
            self.now += self.dice.random()
            name, after = self.dice.choice(cohort), self.now - began
            match self.dice.randrange(14):
                case 0 if name in self.here:
                    yield from self._leave(name)
                case 0:
                    yield from self._join(name)
                case 1 if name not in said:
                    said[name] = "accepted"
                    yield UpdateAccepted(
                        round=number, edge=name, examples=5, weight=5, loss=0.5, seconds=after, nbytes=40
                    )
                case 2:
                    final = name not in said and self.dice.random() < 0.5
                    said.update({name: "refused"} if final else {})
                    yield UpdateRefused(
                        round=number, edge=name, code="stale", reason="of another round", attempt=self.attempt,
                        final=final, seconds=after, nbytes=40,
                    )  # fmt: skip
                case 3:
                    yield UpdateRefused(round=number, edge=name, code="late", reason="late", nbytes=40)
                case 4:
                    yield Ordered(action="deadline", round=number, seconds=5 + self.dice.random())
                case 5 if self.dice.random() < 0.2:  # the hub is killed, and comes back
                    yield self._started()
                    self.here.clear()
                    self.now += 60.0
                    began = self.now - after
                    answered = tuple(sorted(edge for edge, what in said.items() if what == "accepted"))
                    yield RoundReopened(
                        round=number, attempt=self.attempt, cohort=cohort, answered=answered, goal=len(cohort),
                        quorum=1, seconds=max(0.0, 9.0 - after), elapsed=after,
                    )  # fmt: skip
                case _:
                    at = max(0.0, after - self.dice.random() / 20)
                    move = Move(name, self.dice.choice(ON_THE_WAY), at, self.dice.randrange(40))
                    yield EdgesMoved(round=number, attempt=self.attempt, moves=(move,))
        yield from self._end(number, cohort, said, self.now - began)

    def _end(self, number: int, cohort: tuple[str, ...], said: dict[str, str], after: float) -> Iterator[Fact]:
        late = tuple(name for name in cohort if name in self.here and name not in said and self.dice.random() < 0.7)
        left = tuple(name for name in cohort if name not in self.here and name not in said)
        answered = sum(what == "accepted" for what in said.values())
        refused = {name: "stale" for name, what in said.items() if what == "refused"}
        if not answered:
            yield RoundAbandoned(
                round=number, attempt=self.attempt, asked=len(cohort), answered=0, needed=1, again=True, seconds=after,
                bytes_down=7, bytes_up=8, late=late, left=left, refused=refused,
            )  # fmt: skip
            self.attempt += 1
            return
        self.round, attempt, self.attempt = number, self.attempt, 1
        listened = after if self.dice.random() < 0.8 else 0.0  # older releases did not say it
        yield RoundCommitted(round=number, model="0" * 64, listened=listened, averaged=0.1, saved=0.1)
        self.now += 0.3
        yield RoundClosed(
            round=number, attempt=attempt, outcome="deadline-passed", asked=len(cohort), answered=answered, late=late,
            left=left, refused=refused, loss=0.5, metrics={"accuracy": self.dice.random()}, evaluated="central",
            best=self.dice.random() < 0.5, seconds=after + 0.3, bytes_down=7, bytes_up=8, model="0" * 64,
        )  # fmt: skip


def on_the_wire(state: State) -> State:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=State)


def show(board: Board, viewer: State) -> None:
    """Bring a viewer up to date, over the wire."""
    if changes := board.changes():
        viewer.apply(msgspec.msgpack.decode(msgspec.msgpack.encode(changes), type=Changes))


@settings(max_examples=60, deadline=None)
@given(dice=Dice, count=st.integers(1, 400))
def test_whoever_begins_to_look_at_any_time_sees_the_board(dice: random.Random, count: int) -> None:
    board, viewers = Board(), [State()]
    for stamped in Story(dice).facts(count):
        board.take(stamped)
        if dice.random() < 0.2:
            changes = msgspec.msgpack.encode(board.changes())
            for viewer in viewers:
                if shown := msgspec.msgpack.decode(changes, type=Changes | None):
                    viewer.apply(shown)
            if dice.random() < 0.2:
                viewers.append(on_the_wire(board.state))
    last = msgspec.msgpack.encode(board.changes())
    for viewer in viewers:
        if shown := msgspec.msgpack.decode(last, type=Changes | None):
            viewer.apply(shown)
        assert viewer == board.state


@settings(max_examples=60, deadline=None)
@given(dice=Dice, count=st.integers(1, 400))
def test_each_moment_of_each_asked_edge_is_in_one_stage(dice: random.Random, count: int) -> None:
    board, rows, total = Board(), 0, 0.0
    for stamped in Story(dice).facts(count):
        board.take(stamped)
        round = board.state.round
        for lane in round.lanes.values() if round else ():
            times = [since for _, since in lane.stages]
            assert times == sorted(times)
            assert times[0] == 0
        if isinstance(stamped.fact, RoundClosed | RoundAbandoned):
            assert round is not None
            assert round.listened is not None
            assert all(lane.fate for lane in round.lanes.values())
            total += len(round.lanes) * round.listened
        if isinstance(stamped.fact, RoundClosed):
            rows += 1
            assert len(board.state.rows) == rows
            spent = board.state.rows[-1].spent
            assert sum(spent.values()) == pytest.approx(len(round.lanes) * round.listened)  # type: ignore[union-attr,operator]
    assert sum(board.state.head.spent.values()) == pytest.approx(total)


@settings(max_examples=40, deadline=None)
@given(dice=Dice, count=st.integers(1, 400))
def test_the_recorded_facts_lead_to_the_same_board(dice: random.Random, count: int) -> None:
    facts = list(Story(dice).facts(count))
    read = Board.of(from_line(to_line(stamped)) for stamped in facts)
    assert read.state == Board.of(facts).state


def test_a_board_of_a_long_run_stays_small() -> None:
    story = Story(random.Random(5), edges=12)
    board = Board.of(story.facts(20_000))
    assert story.round > 100
    assert len(board.state.lines) == 300
    assert max(len(bars) for bars in board.state.bars.values()) == 20
    assert board.changes() is None, "nobody looked, so nothing is kept to be shown"


def test_of_a_very_long_run_older_rounds_are_thinned_out_on_every_screen() -> None:
    def facts() -> Iterator[Stamped]:
        for number in range(1, 5001):
            start = RoundStarted(round=number, attempt=1, cohort=("a",), goal=1, quorum=1, seconds=9.0)
            close = RoundClosed(
                round=number, attempt=1, outcome="everyone-answered", asked=1, answered=1, late=(), left=(),
                refused={}, loss=0.5, metrics={}, evaluated="", best=False, seconds=1.0, bytes_down=1, bytes_up=1,
                model="0" * 64,
            )  # fmt: skip
            yield Stamped(2 * number, float(number), start)
            yield Stamped(2 * number + 1, number + 0.5, close)

    board, viewer = Board(), State()
    for stamped in facts():
        board.take(stamped)
        if stamped.seq % 7 == 0:
            show(board, viewer)
    show(board, viewer)
    numbers = [row.number for row in board.state.rows]
    assert viewer == board.state
    assert numbers == sorted(numbers)
    assert numbers[-500:] == list(range(4501, 5001))
    assert len(numbers) <= 2010


def test_names_cost_nothing_to_make_up_so_those_away_for_longest_are_forgotten_everywhere() -> None:
    board, viewer = Board(), State()
    for number in range(5_200):
        join = EdgeJoined(edge=f"e{number}", role="trainer", agent="", examples=1, data_bytes=1, here=1)
        left = EdgeLeft(edge=f"e{number}", role="trainer", reason="went away", here=0)
        for fact in (join, left):
            board.take(Stamped(number, float(number), fact))
        if number == 4_990:
            show(board, viewer)
    show(board, viewer)
    assert len(board.state.edges) == 2_000
    assert viewer == board.state


def test_an_edge_that_came_and_was_forgotten_between_two_looks_is_no_matter() -> None:
    board, viewer = Board(), State()
    show(board, viewer)
    for number in range(2_002):
        join = EdgeJoined(edge=f"e{number}", role="trainer", agent="", examples=1, data_bytes=1, here=1)
        left = EdgeLeft(edge=f"e{number}", role="trainer", reason="went away", here=0)
        for fact in (join, left):
            board.take(Stamped(number, float(number), fact))
    show(board, viewer)
    assert viewer == board.state


def test_time_does_not_run_backwards_in_a_lane() -> None:
    lane = Lane([(Stage.WAITING, 0.0)])
    lane.enter(Stage.TRAINING, 2.0)
    lane.enter(Stage.UPLOADING, 1.0)
    assert lane.stages == [(Stage.WAITING, 0.0), (Stage.TRAINING, 2.0), (Stage.UPLOADING, 2.0)]
    spent: dict[Stage, float] = {}
    assert lane.spend(3.0, spent) == 1.0
    assert spent == {Stage.WAITING: 2.0, Stage.UPLOADING: 1.0}


def test_a_round_that_was_committed_by_a_hub_that_was_killed_while_it_measured_is_not_lost() -> None:
    facts = [
        EdgeJoined(edge="a", role="trainer", agent="", examples=1, data_bytes=1, here=1),
        RoundStarted(round=1, attempt=1, cohort=("a", "b"), goal=2, quorum=1, seconds=5.0),
        UpdateAccepted(round=1, edge="a", examples=1, weight=3, loss=0.5, seconds=1.0, nbytes=100),
        RoundCommitted(round=1, model="m", listened=5.0, averaged=0.1, saved=0.1),
        RunStarted(
            run="r", name="n", algorithm="fedavg", parameters=1, model_bytes=4, model="m", round=1, rounds=3, metric="x"
        ),
    ]
    board = Board.of(Stamped(number, 100.0 + number, fact) for number, fact in enumerate(facts))
    (row,) = board.state.rows
    assert (row.number, row.outcome, row.answered, row.late, row.loss) == (1, "interrupted", 1, 1, 0.5)
    assert board.state.edges["a"].weight == 3
    assert board.state.bars["a"] == [("accepted", 1.0)]
    assert board.past(1) is not None
