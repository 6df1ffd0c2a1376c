"""The present state of a run as people look at it: who is here, where each edge is, what came of each round."""

from collections import deque
from collections.abc import Iterable
from typing import Literal, Self, assert_never

import msgspec

from hub.events import (
    DiskTrouble,
    EdgeJoined,
    EdgeLeft,
    EdgesMoved,
    Missed,
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
)
from hub.views.words import Level, sentence
from shared.messages import Role

_BARS = 20  # rounds that are shown of each edge
_LINES = 300  # of the log
_MOST_ROWS = 2000  # points of a curve: no screen has more
_MOST_AWAY = 2000  # edges that are remembered when they have left: names cost nothing to make up
_MOST_PAST = 16 * 2**20  # bytes of finished rounds that can be looked at again

_AT_WORK = (Stage.DOWNLOADING, Stage.TRAINING, Stage.UPLOADING)
_SETTLED = (Stage.DONE, Stage.REFUSED)

Phase = Literal["opening", "waiting", "paused", "training", "measuring", "stopping", "ended"]
Fate = Literal["accepted", "late", "refused", "left", "spared", "void"]
"""What came of an edge in a round. `spared`: it was not needed any more. `void`: the round did not count."""


class Lane(msgspec.Struct, omit_defaults=True):
    """One edge's way through one round."""

    stages: list[tuple[Stage, float]]
    """Each stage, with the second of the round at which it began."""
    fate: Fate | None = None
    """None while the round is open."""
    why: str = ""
    """The code of the refusal."""
    down: int = 0
    up: int = 0
    weight: int = 0
    loss: float | None = None

    def enter(self, stage: Stage, at: float) -> None:
        """Go on to a stage; time does not run backwards, whichever clock told it."""
        last, since = self.stages[-1]
        if stage is not last:
            self.stages.append((stage, max(at, since)))

    def spend(self, end: float, total: dict[Stage, float]) -> float:
        """Add the seconds in each stage up to `end` to `total`; give those of work.

        Together they are `end`: each moment is in one stage.
        """
        work, until = 0.0, end
        for stage, since in reversed(self.stages):
            if since < until:
                total[stage] = total.get(stage, 0.0) + until - since
                if stage in _AT_WORK:
                    work += until - since
                until = since
        return work


class Round(msgspec.Struct, omit_defaults=True):
    """A round, open or over."""

    number: int
    attempt: int
    began: float
    """Seconds since 1970."""
    seconds: float
    """Allowed, from its beginning to the deadline."""
    goal: int
    quorum: int
    lanes: dict[str, Lane]
    listened: float | None = None
    """Seconds until nobody was listened to any more."""
    outcome: str = ""
    """Empty while it is open."""


class Row(msgspec.Struct, omit_defaults=True):
    """A round that counts, in numbers."""

    number: int
    outcome: str
    asked: int
    answered: int
    late: int
    left: int
    refused: int
    loss: float | None
    metrics: dict[str, float]
    best: bool
    seconds: float
    down: int
    up: int
    phases: dict[str, float]
    """Seconds of the hub's: listening, averaging, saving, measuring."""
    spent: dict[Stage, float]
    """Edge-seconds in each stage; together they are the cohort times the time listened."""
    lost_seconds: float
    """Edge-seconds of work that did not count."""
    lost_bytes: int


class Edge(msgspec.Struct, omit_defaults=True):
    """An edge, and what has come of it so far."""

    role: str
    kind: str
    agent: str
    examples: int
    data_bytes: int
    here: bool
    since: float
    """When it came or left, in seconds since 1970."""
    reason: str = ""
    """Why it left."""
    weight: int = 0
    """Of all its updates that count: its share of the sum over all edges is its share of the model."""
    down: int = 0
    up: int = 0
    fates: dict[Fate, int] = {}


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of the log."""

    time: float
    level: Level
    text: str
    round: int = 0
    edge: str = ""


class Head(msgspec.Struct, omit_defaults=True):
    """What there is to say about the run as a whole."""

    run: str = ""
    name: str = ""
    algorithm: str = ""
    parameters: int = 0
    model_bytes: int = 0
    metric: str = "accuracy"
    rounds: int = 0
    """Planned."""
    deadline: float = 0.0
    """Seconds that a round allows."""
    began: float = 0.0
    committed: int = 0
    best: int = 0
    """The round with the best metric; 0 if nobody measured."""
    phase: Phase = "opening"
    note: str = ""
    paused: bool = False
    here: int = 0
    """Trainers."""
    needed: int = 0
    down: int = 0
    up: int = 0
    fates: dict[Fate, int] = {}
    abandoned: int = 0
    strangers: int = 0
    spent: dict[Stage, float] = {}
    lost_seconds: float = 0.0
    lost_bytes: int = 0
    missed: int = 0
    """Facts that did not reach the board."""


Bar = tuple[Fate, float]
"""What came of an edge in one round, and the seconds until it was known."""


class State(msgspec.Struct):
    """All of the board."""

    time: float = 0.0
    """Of the newest fact, in seconds since 1970."""
    head: Head = msgspec.field(default_factory=Head)
    edges: dict[str, Edge] = {}
    bars: dict[str, list[Bar]] = {}
    """Of each edge, in its last 20 rounds."""
    round: Round | None = None
    """The newest."""
    rows: list[Row] = []
    """Rounds that count, oldest first; of a very long run the older ones thinned out."""
    lines: list[Line] = []
    """The newest of the log."""

    def apply(self, changes: "Changes") -> None:
        """Become the state that `changes` lead to."""
        self.time = changes.time
        self.head = changes.head or self.head
        if changes.round:
            self.round = changes.round
        if self.round:
            self.round.lanes.update(changes.lanes)
        for edge in changes.gone:
            self.edges.pop(edge, None)  # one that came and went since the last changes was never here
            self.bars.pop(edge, None)
        self.edges.update(changes.edges)
        for edge in changes.edges:
            self.bars.setdefault(edge, [])
        for edge, bars in changes.bars.items():
            self.bars[edge] = [*self.bars[edge], *bars][-_BARS:]
        if changes.thinned:
            self.rows = thinned(self.rows)
        self.rows.extend(changes.rows)
        self.lines = [*self.lines, *changes.lines][-_LINES:]


class Changes(msgspec.Struct, omit_defaults=True):
    """What is new on the board: parts that take the place of the old ones, and what is added at the ends of lists."""

    time: float
    head: Head | None = None
    round: Round | None = None
    lanes: dict[str, Lane] = {}
    edges: dict[str, Edge] = {}
    gone: list[str] = []
    bars: dict[str, list[Bar]] = {}
    thinned: bool = False
    """Whether every other row of the older half is left out from now on; before `rows` are added."""
    rows: list[Row] = []
    lines: list[Line] = []


def thinned(rows: list[Row]) -> list[Row]:
    """Leave out every other row of the older half, but none that was the best when it came."""
    half = len(rows) // 2
    return [row for at, row in enumerate(rows[:half]) if at % 2 == 0 or row.best] + rows[half:]


class Board:
    """Folds facts into a `State`, and tells what has changed since it was last asked."""

    def __init__(self) -> None:
        self.state = State()
        self._past: deque[tuple[int, bytes]] = deque()
        self._past_bytes = 0
        self._away: dict[str, None] = {}
        """Who is remembered and not here, the longest away first."""
        self._commit: RoundCommitted | None = None
        self.forget_changes()

    @classmethod
    def of(cls, facts: Iterable[Stamped]) -> Self:
        """Make the board that `facts` lead to."""
        board = cls()
        for stamped in facts:
            board.take(stamped)
            board.forget_changes()  # nobody looks yet, and what is to be shown must not pile up
        return board

    def changes(self) -> Changes | None:
        """Give what has changed since the last call; None if nothing has."""
        if not self._changed:
            return None
        state = self.state
        changes = Changes(
            time=state.time,
            head=state.head if self._head else None,
            round=state.round if self._round else None,
            lanes={edge: state.round.lanes[edge] for edge in self._lanes} if state.round and not self._round else {},
            edges={edge: state.edges[edge] for edge in self._edges if edge in state.edges},
            gone=self._gone,
            bars={edge: bars for edge, bars in self._bars.items() if edge in state.edges},
            thinned=self._thinned,
            rows=self._rows,
            lines=self._lines,
        )
        self.forget_changes()
        return changes

    def past(self, number: int) -> bytes | None:
        """Give a round that is over as msgpack of `Round`, if it is still remembered."""
        return next((view for kept, view in reversed(self._past) if kept == number), None)

    def forget_changes(self) -> None:
        """Take what is on the board for known."""
        self._changed = self._head = self._round = self._thinned = False
        self._lanes: dict[str, None] = {}
        self._edges: dict[str, None] = {}
        self._gone: list[str] = []
        self._bars: dict[str, list[Bar]] = {}
        self._rows: list[Row] = []
        self._lines: list[Line] = []

    def take(self, stamped: Stamped) -> None:
        """Fold one fact in."""
        state, fact, now = self.state, stamped.fact, stamped.time
        head, round = state.head, state.round
        self._changed, state.time = True, max(now, state.time)
        match fact:
            case EdgesMoved():
                if round and (round.number, round.attempt) == (fact.round, fact.attempt) and not round.outcome:
                    for move in fact.moves:
                        if lane := self._open_lane(move.edge):
                            lane.down += move.nbytes
                            lane.enter(move.to, move.at)
                return
            case UpdateAccepted():
                if lane := self._open_lane(fact.edge):
                    lane.enter(Stage.DONE, fact.seconds)
                    lane.up, lane.weight, lane.loss = lane.up + fact.nbytes, fact.weight, fact.loss
                return
            case UpdateRefused():
                self._refuse(fact)
            case EdgeJoined():
                self._join(fact, now)
            case EdgeLeft():
                head.here = fact.here
                if fact.edge in state.edges:
                    self._leave(fact.edge, now, fact.reason)
                if round and (lane := self._open_lane(fact.edge)):
                    lane.enter(Stage.AWAY, now - round.began)
            case RunStarted():
                self._begin(fact, now)
            case WaitingForEdges():
                head.needed, head.here = fact.needed, fact.here
                self._between("waiting")
            case RoundStarted():
                self._open(fact, now, 0.0, {})
            case RoundReopened():
                again = round and (round.number, round.attempt) == (fact.round, fact.attempt)
                self._open(fact, now - fact.elapsed, fact.elapsed, round.lanes if round and again else {})
                for answered in sorted(fact.answered):
                    if lane := self._open_lane(answered):
                        lane.enter(Stage.DONE, fact.elapsed)
            case RoundCommitted():
                head.phase, head.committed = "measuring", fact.round
                if round:
                    round.listened = fact.listened or None
                    self._round = True
                self._commit = fact
            case RoundClosed():
                self._close(fact)
            case RoundAbandoned():
                self._between("waiting")
                head.abandoned += 1
                head.down, head.up = head.down + fact.bytes_down, head.up + fact.bytes_up
                if round and (round.number, round.attempt) == (fact.round, fact.attempt):
                    self._settle(round, "too-few-answered", fact.seconds, set(fact.late), counts=False)
            case Ordered():
                if fact.action in ("pause", "resume"):
                    head.paused = fact.action == "pause"
                    self._between(head.phase)
                elif fact.action == "deadline":
                    head.deadline = fact.seconds
                    if round and not round.outcome and round.listened is None:
                        round.seconds = fact.seconds
                        self._round = True
            case StopRequested():
                head.phase = "stopping"
            case RunEnded():
                head.phase, head.note, head.committed = "ended", fact.reason, fact.rounds
            case StrangerRefused():
                head.strangers += 1
            case Missed():
                head.missed += fact.count
            case DiskTrouble():
                pass
            case _:
                assert_never(fact)
        self._head = True
        if said := sentence(fact, self.state.head.metric):
            self._say(Line(now, said.level, said.text, round=getattr(fact, "round", 0), edge=getattr(fact, "edge", "")))

    def _say(self, line: Line) -> None:
        self._lines.append(line)
        self.state.lines.append(line)
        del self.state.lines[:-_LINES]

    def _open_lane(self, edge: str) -> Lane | None:
        """Give an edge's lane in the open round if it still goes on, to change it."""
        round = self.state.round
        if round is None or round.outcome or round.listened is not None:
            return None
        lane = round.lanes.get(edge)
        if lane is None or lane.stages[-1][0] in _SETTLED:
            return None
        self._lanes[edge] = None
        return lane

    def _begin(self, fact: RunStarted, now: float) -> None:
        """Begin a run or go on with it: nobody is here yet, and a round that was open is no more."""
        if self._commit and self._commit.round <= fact.round:
            self._close_unmeasured(self._commit)
        before = self.state.head
        self.state.head = Head(
            run=fact.run,
            name=fact.name,
            algorithm=fact.algorithm,
            parameters=fact.parameters,
            model_bytes=fact.model_bytes,
            metric=fact.metric,
            rounds=fact.rounds,
            deadline=fact.deadline,
            began=before.began or now,
            committed=fact.round,
            best=before.best,
            down=before.down,
            up=before.up,
            fates=before.fates,
            abandoned=before.abandoned,
            strangers=before.strangers,
            spent=before.spent,
            lost_seconds=before.lost_seconds,
            lost_bytes=before.lost_bytes,
            missed=before.missed,
        )
        for name in [name for name, edge in self.state.edges.items() if edge.here]:
            self._leave(name, now, "the hub has stopped")
        if self.state.round and not self.state.round.outcome:
            self.state.round.outcome, self._round = "interrupted", True

    def _join(self, fact: EdgeJoined, now: float) -> None:
        state = self.state
        state.head.here = fact.here
        before = state.edges.get(fact.edge)
        state.edges[fact.edge] = Edge(
            role=fact.role,
            kind=fact.kind,
            agent=fact.agent,
            examples=fact.examples,
            data_bytes=fact.data_bytes,
            here=True,
            since=now,
            weight=before.weight if before else 0,
            down=before.down if before else 0,
            up=before.up if before else 0,
            fates=before.fates if before else {},
        )
        state.bars.setdefault(fact.edge, [])
        self._edges[fact.edge] = None
        self._away.pop(fact.edge, None)
        if state.round and fact.role == Role.TRAINER and (lane := self._open_lane(fact.edge)):
            lane.enter(Stage.WAITING, now - state.round.began)

    def _leave(self, name: str, now: float, reason: str) -> None:
        """Take note that an edge is away; forget who has been for longest, if too many are."""
        edges = self.state.edges
        edge = edges[name]
        edge.here, edge.since, edge.reason = False, now, reason
        self._edges[name] = self._away[name] = None
        if len(self._away) > _MOST_AWAY:
            longest = next(iter(self._away))
            del self._away[longest], edges[longest], self.state.bars[longest]
            self._gone.append(longest)
            self._edges.pop(longest, None)
            self._bars.pop(longest, None)

    def _open(self, fact: RoundStarted | RoundReopened, began: float, elapsed: float, lanes: dict[str, Lane]) -> None:
        """Open a round, or open it again: whoever has not answered waits to be asked."""
        head = self.state.head
        head.phase, head.note, head.needed = "training", "", 0
        for edge in sorted(fact.cohort):
            lane = lanes.setdefault(edge, Lane([(Stage.WAITING, 0.0)]))
            if lane.stages[-1][0] not in _SETTLED:
                lane.enter(Stage.WAITING, elapsed)
        seconds = elapsed + fact.seconds
        self.state.round = Round(fact.round, fact.attempt, began, seconds, fact.goal, fact.quorum, lanes)
        self._round, self._lanes = True, {}

    def _between(self, phase: Phase) -> None:
        """Be in `phase`, unless the hub stops; what lies between two rounds is a pause or is not."""
        head = self.state.head
        if head.phase != "stopping":
            head.phase = ("paused" if head.paused else "waiting") if phase in ("waiting", "paused") else phase

    def _refuse(self, fact: UpdateRefused) -> None:
        head, round = self.state.head, self.state.round
        open_round = round and (round.number, round.attempt) == (fact.round, fact.attempt)
        if open_round and (lane := self._open_lane(fact.edge)):
            lane.up += fact.nbytes
            if fact.final:
                lane.why = fact.code
                lane.enter(Stage.REFUSED, fact.seconds or 0.0)
            return
        head.lost_bytes += fact.nbytes  # its round is over: its time is counted as lost already
        if edge := self.state.edges.get(fact.edge):
            edge.up += fact.nbytes
            self._edges[fact.edge] = None

    def _close(self, fact: RoundClosed) -> None:
        state, head, round = self.state, self.state.head, self.state.round
        commit, self._commit = self._commit, None
        listened = (commit.listened if commit else 0.0) or fact.seconds
        phases = {"listening": listened}
        if commit and commit.listened:
            phases |= {"averaging": commit.averaged, "saving": commit.saved}
            phases["measuring"] = max(0.0, fact.seconds - sum(phases.values()))
        head.down, head.up = head.down + fact.bytes_down, head.up + fact.bytes_up
        head.best = fact.round if fact.best else head.best
        self._between("waiting")
        before = (head.lost_seconds, head.lost_bytes)
        spent: dict[Stage, float] = {}
        if round and (round.number, round.attempt) == (fact.round, fact.attempt):
            spent = self._settle(round, fact.outcome, listened, set(fact.late), counts=True)
        row = Row(
            number=fact.round,
            outcome=fact.outcome,
            asked=fact.asked,
            answered=fact.answered,
            late=len(fact.late),
            left=len(fact.left),
            refused=len(fact.refused),
            loss=fact.loss,
            metrics=fact.metrics,
            best=fact.best,
            seconds=fact.seconds,
            down=fact.bytes_down,
            up=fact.bytes_up,
            phases=phases,
            spent=spent,
            lost_seconds=head.lost_seconds - before[0],
            lost_bytes=head.lost_bytes - before[1],
        )
        if len(state.rows) >= _MOST_ROWS and not self._rows:
            state.rows = thinned(state.rows)
            self._thinned = True
        state.rows.append(row)
        self._rows.append(row)

    def _close_unmeasured(self, commit: RoundCommitted) -> None:
        """Close a round that was committed by a hub that was killed before it could say what came of it."""
        round = self.state.round
        if round is None or round.outcome or round.number != commit.round:
            return
        ends = {edge: lane.stages[-1][0] for edge, lane in round.lanes.items()}
        accepted = [lane for edge, lane in round.lanes.items() if ends[edge] is Stage.DONE]
        weight = sum(lane.weight for lane in accepted)
        self._close(
            RoundClosed(
                round=round.number,
                attempt=round.attempt,
                outcome="interrupted",
                asked=len(round.lanes),
                answered=len(accepted),
                late=tuple(edge for edge, end in ends.items() if end not in (*_SETTLED, Stage.AWAY)),
                left=tuple(edge for edge, end in ends.items() if end is Stage.AWAY),
                refused={edge: round.lanes[edge].why for edge, end in ends.items() if end is Stage.REFUSED},
                loss=sum(lane.weight * (lane.loss or 0.0) for lane in accepted) / weight if weight else None,
                metrics={},
                evaluated="",
                best=False,
                seconds=commit.listened + commit.averaged + commit.saved,
                bytes_down=sum(lane.down for lane in round.lanes.values()),
                bytes_up=sum(lane.up for lane in round.lanes.values()),
                model=commit.model,
            )
        )

    def _settle(
        self, round: Round, outcome: str, listened: float, late: set[str], *, counts: bool
    ) -> dict[Stage, float]:
        """Say of each lane what came of it, and add its time up; give the edge-seconds in each stage."""
        state, head = self.state, self.state.head
        round.outcome, round.listened = outcome, listened
        total: dict[Stage, float] = {}
        for name, lane in round.lanes.items():
            last, since = lane.stages[-1]
            lane.fate = _fate(last, late=name in late, counts=counts)
            work = lane.spend(listened, total)
            if lane.fate != "accepted":
                head.lost_seconds += work
                head.lost_bytes += lane.down + lane.up
            head.fates[lane.fate] = head.fates.get(lane.fate, 0) + 1
            if edge := state.edges.get(name):
                edge.fates[lane.fate] = edge.fates.get(lane.fate, 0) + 1
                edge.down, edge.up = edge.down + lane.down, edge.up + lane.up
                edge.weight += lane.weight if lane.fate == "accepted" else 0
                bar = (lane.fate, since if last in _SETTLED else listened)
                state.bars[name] = [*state.bars[name], bar][-_BARS:]
                self._bars.setdefault(name, []).append(bar)
                self._edges[name] = None
        for stage, seconds in total.items():
            head.spent[stage] = head.spent.get(stage, 0.0) + seconds
        self._round = True
        self._remember(round)
        return total

    def _remember(self, round: Round) -> None:
        """Keep a round for whoever wants to look back, as long as there is room."""
        self._past.append((round.number, msgspec.msgpack.encode(round)))
        self._past_bytes += len(self._past[-1][1])
        while len(self._past) > 1 and self._past_bytes > _MOST_PAST:
            self._past_bytes -= len(self._past.popleft()[1])


def _fate(last: Stage, *, late: bool, counts: bool) -> Fate:
    """Tell what came of an edge whose last stage in a round was `last`."""
    if last is Stage.DONE:
        return "accepted" if counts else "void"
    if last is Stage.REFUSED:
        return "refused"
    if last is Stage.AWAY:
        return "left"
    return "late" if late else "spared"
