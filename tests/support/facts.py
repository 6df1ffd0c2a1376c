"""Facts of a run that nobody played, as a hub would publish them: to show pages more than a test can play."""

import random
from collections.abc import Iterator

from hub.events import (
    EdgeJoined,
    EdgeLeft,
    EdgesMoved,
    Fact,
    Move,
    RoundClosed,
    RoundCommitted,
    RoundStarted,
    RunStarted,
    Stage,
    UpdateAccepted,
    UpdateRefused,
)

_NBYTES = 9_700
_BATCH = 0.05  # seconds between two facts about moves


class MadeUp:
    """A run of `edges` trainers, of which in each round some are late, some refused, and some leave and come back."""

    def __init__(self, edges: int, *, rounds: int = 1000, deadline: float = 2.0, seed: int = 0) -> None:
        self._dice = random.Random(seed)
        self._rounds = rounds
        self._deadline = deadline
        self.edges = [f"edge-{number:04d}" for number in range(edges)]
        self._here = 0
        self._back: list[str] = []

    def opening(self) -> Iterator[Fact]:
        """Begin, and have everybody join."""
        yield RunStarted(
            run="5eed", name="made-up", algorithm="fedavg", parameters=2_410, model_bytes=_NBYTES, model="0" * 64,
            round=0, rounds=self._rounds, metric="accuracy", deadline=self._deadline,
        )  # fmt: skip
        for edge in self.edges:
            yield self._join(edge)

    def round(self, number: int) -> list[tuple[float, Fact]]:
        """Play a round; give its facts with their seconds since its start, the last at its end."""
        dice, seconds = self._dice, self._deadline
        returning, self._back = self._back, []
        facts: list[tuple[float, Fact]] = [(0.0, self._join(edge)) for edge in returning]
        facts.append(
            (0.0, RoundStarted(round=number, attempt=1, cohort=tuple(self.edges), goal=len(self.edges),
                               quorum=max(1, len(self.edges) // 2), seconds=seconds))
        )  # fmt: skip
        moves: list[Move] = []
        late, left = list[str](), list[str]()
        refused: dict[str, str] = {}
        slowest = 0.0
        for edge in self.edges:
            down = dice.uniform(0.0, 0.05) * seconds
            moves += [Move(edge, Stage.DOWNLOADING, down), Move(edge, Stage.TRAINING, down * 1.1, _NBYTES)]
            chance = dice.random()
            answered = seconds * min(0.97, 0.1 + dice.betavariate(2, 5))
            if chance < 0.02:
                late.append(edge)
                continue
            if chance < 0.03 and len(self.edges) > 20:
                left.append(edge)
                self._here -= 1
                facts.append((answered, EdgeLeft(edge=edge, role="trainer", reason="went away", here=self._here)))
                self._back.append(edge)
                continue
            moves.append(Move(edge, Stage.UPLOADING, answered * 0.95))
            slowest = max(slowest, answered)
            if chance < 0.04:
                refused[edge] = "not-finite"
                said = UpdateRefused(
                    round=number, edge=edge, code="not-finite", reason="weight holds NaN", attempt=1, final=True,
                    seconds=answered, nbytes=_NBYTES,
                )  # fmt: skip
                facts.append((answered, said))
            else:
                took = UpdateAccepted(
                    round=number, edge=edge, examples=100, weight=100, loss=1 / number + 0.1, seconds=answered,
                    nbytes=_NBYTES,
                )  # fmt: skip
                facts.append((answered, took))
        moves.sort(key=lambda move: move.at)
        while moves:
            until = moves[0].at + _BATCH
            batch = tuple(move for move in moves if move.at <= until)
            moves = moves[len(batch) :]
            facts.append((min(until, batch[-1].at), EdgesMoved(round=number, attempt=1, moves=batch)))
        facts.sort(key=lambda timed: timed[0])
        ends = seconds if late else slowest
        answers = len(self.edges) - len(late) - len(left) - len(refused)
        closed = RoundClosed(
            round=number, attempt=1, outcome="deadline-passed" if late else "everyone-answered",
            asked=len(self.edges), answered=answers, late=tuple(late), left=tuple(left), refused=refused,
            loss=1 / number + 0.1, metrics={"accuracy": 1 - 0.6 / number**0.5, "loss": 1 / number + 0.12},
            evaluated="central", best=number % 3 == 0, seconds=ends * 1.02, bytes_down=len(self.edges) * _NBYTES,
            bytes_up=answers * _NBYTES, model="0" * 64,
        )  # fmt: skip
        committed = RoundCommitted(round=number, model="0" * 64, listened=ends, averaged=0.002, saved=0.004)
        return [*facts, (ends * 1.005, committed), (ends * 1.02, closed)]

    def _join(self, edge: str) -> EdgeJoined:
        self._here += 1
        return EdgeJoined(
            edge=edge, role="trainer", agent="fedhub 0.1.0", examples=100, data_bytes=26_000, here=self._here,
            kind=("laptop", "phone", "slow")[len(self._back) % 3],
        )  # fmt: skip
