"""Puts runs side by side: how good they got, and what it took each of them to get as far as a target."""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import compress
from pathlib import Path

import msgspec
from rich.console import Group
from rich.table import Table
from rich.text import Text

from hub.events import Fact, RoundClosed, RunStarted
from hub.rules.progress import is_better
from hub.views.archive import Kept, kept_in
from hub.views.report import PlainTable, standing
from hub.views.terminal import BLOCKS, DIM, GOOD, safe, share_of
from hub.views.words import names, number, took
from shared.console import size
from shared.errors import ConfigError

_WIDE = 120  # columns
_COLUMNS = {
    "run": True, "algorithm": True, ">rounds": False, ">best": True, ">in round": False, ">last": False,
    ">to target": True, ">bytes": True, ">time": True, ">in all": False, ">": False, "": True,
}  # fmt: skip
"""Whether there is room for it on a narrow screen too."""
_MOST_BLOCKS = 72  # of a curve


class Point(msgspec.Struct, frozen=True):
    """A model that was measured, and what it had taken to get there."""

    round: int
    value: float
    nbytes: int
    """That had crossed, both ways, those of tries that came to nothing included."""
    seconds: float
    """In which a hub had worked on the run."""


class Curve(msgspec.Struct, kw_only=True):
    """A run, as its metric developed."""

    label: str
    """The run's name; its folder where another one has the same name."""
    kept: Kept
    points: list[Point]
    """By round, each round once; at least one."""
    best: Point
    to_target: Point | None
    """The first that is as good as the target; None if none is."""


class Comparison(msgspec.Struct, kw_only=True):
    """Runs side by side."""

    metric: str
    target: float
    chosen: bool
    """Whether somebody chose the target; if not, it is the worst of the runs' bests."""
    runs: list[Curve]


class _Round(msgspec.Struct, frozen=True):
    number: int
    metrics: dict[str, float]
    nbytes: int
    seconds: float


class _Record(msgspec.Struct, frozen=True):
    label: str
    kept: Kept
    rounds: list[_Round]

    @property
    def metrics(self) -> dict[str, None]:
        """The names of all that was measured."""
        return {name: None for round in self.rounds for name in round.metrics}


def compare(folders: Sequence[Path], *, metric: str = "", target: float | None = None) -> Comparison:
    """Put the runs in `folders` side by side, in that order; one that is named twice is there once.

    Args:
        folders: at least one.
        metric: the measurement to compare by; if empty, the one that counted in all of the runs.
        target: the value to get to; if None, the worst of the runs' bests, so that each of them got there.

    Raises:
        ConfigError: the target is no number, or there is no metric that all of the runs measured.
    """
    if target is not None and not math.isfinite(target):
        raise ConfigError(f"--target {target:g} cannot be reached; write a value of the metric, like 0.95")
    records = _records(folders)
    metric = metric or _common_metric(records)
    curves = [_points(record, metric) for record in records]
    bests = [_best(metric, points) for points in curves]
    if target is None:
        goal = next(one.value for one in bests if not any(is_better(metric, one.value, other.value) for other in bests))
    else:
        goal = target
    runs = [
        Curve(
            label=record.label,
            kept=record.kept,
            points=points,
            best=best,
            to_target=next((point for point in points if not is_better(metric, goal, point.value)), None),
        )
        for record, points, best in zip(records, curves, bests, strict=True)
    ]
    return Comparison(metric=metric, target=goal, chosen=target is not None, runs=runs)


def _records(folders: Sequence[Path]) -> list[_Record]:
    there = {folder.resolve(): folder for folder in folders}
    alike = Counter(place.name for place in there)
    return [_record(folder, place.name if alike[place.name] == 1 else str(folder)) for place, folder in there.items()]


def _record(folder: Path, label: str) -> _Record:
    """Read what was measured in a run, and when.

    Raises:
        ConfigError: nothing was.
    """
    rounds: list[_Round] = []

    def note(fact: Fact, kept: Kept) -> None:
        match fact:
            case RunStarted():
                _go_back(rounds, fact.round)
            case RoundClosed():
                _go_back(rounds, fact.round - 1)
                rounds.append(_Round(fact.round, fact.metrics, kept.bytes_down + kept.bytes_up, kept.seconds))
            case _:
                pass

    record = _Record(label, kept_in(folder, note=note), rounds)
    if not record.metrics:
        why = record.kept.why or "nobody has measured its model"
        raise ConfigError(f"{label} cannot be compared: {why}")
    return record


def _go_back(rounds: list[_Round], newest: int) -> None:
    """Forget the rounds after `newest`: a hub that found a snapshot damaged goes back, and plays them again."""
    while rounds and rounds[-1].number > newest:
        rounds.pop()


def _common_metric(records: Sequence[_Record]) -> str:
    counted = {record.kept.metric: record.label for record in reversed(records)}
    if len(counted) == 1:
        return next(iter(counted))
    said = ", ".join(f"{label} by {metric}" for metric, label in reversed(counted.items()))
    common = [name for name in records[0].metrics if all(name in record.metrics for record in records)]
    hint = (
        f"choose what all of them measured: --metric {' or '.join(common)}" if common else "they share no measurement"
    )
    raise ConfigError(f"the runs go by different metrics ({said}); {hint}")


def _points(record: _Record, metric: str) -> list[Point]:
    points = [
        Point(round.number, round.metrics[metric], round.nbytes, round.seconds)
        for round in record.rounds
        if metric in round.metrics
    ]
    if not points:
        raise ConfigError(
            f"{record.label} did not measure {metric!r} but {', '.join(record.metrics)}; choose one with --metric"
        )
    return points


def _best(metric: str, points: Sequence[Point]) -> Point:
    best = points[0]
    for point in points:
        best = point if is_better(metric, point.value, best.value) else best
    return best


def side_by_side(comparison: Comparison, width: int, *, chart: bool) -> Group:
    """Say it in a table, a line a run, on `width` columns; on few of them some are left out. A chart goes below it."""
    below = [Text(safe(line), DIM) for line in _notes(comparison)]
    below += [Text(), *_chart(comparison, width)] if chart else []
    return Group(_table(comparison, width), "", *below)


def _table(comparison: Comparison, width: int) -> Table:
    metric = comparison.metric
    shown = [width >= _WIDE or narrow for narrow in _COLUMNS.values()]
    table = PlainTable(*compress(_COLUMNS, shown), fold=True)
    for run in comparison.runs:
        kept, there = run.kept, run.to_target
        cells: tuple[str | Text, ...] = (
            Text(safe(run.label), "bold"),
            kept.algorithm,
            f"{kept.rounds}/{kept.planned}",
            number(metric, run.best.value),
            str(run.best.round),
            number(metric, run.points[-1].value),
            f"{there.round} round{'s' * (there.round != 1)}" if there else "-",
            size(there.nbytes) if there else "-",
            took(there.seconds) if there else "-",
            size(kept.bytes_down + kept.bytes_up),
            took(kept.seconds),
            "" if kept.standing == "finished" and not kept.missed else standing(kept),
        )
        table.add(*compress(cells, shown))
    return table.table


def _notes(comparison: Comparison) -> Iterator[str]:
    """Say what the target is and who did not get there."""
    metric, runs = comparison.metric, comparison.runs
    worst = "the best of this run" if len(runs) == 1 else "the worst of the runs' bests"
    why = "" if comparison.chosen else f", {worst}; --target chooses another"
    yield f"target: {metric} {number(metric, comparison.target)}{why}"
    missed = [run.label for run in runs if not run.to_target]
    if len(missed) == len(runs):
        yield "no run has reached it"
    elif missed:
        yield f"not reached by {names(missed)}"


def _chart(comparison: Comparison, width: int) -> Iterator[Text]:
    """Draw each curve on a line of its own, all over the same rounds and between the same bounds."""
    metric, runs = comparison.metric, comparison.runs
    values = [point.value for run in runs for point in run.points]
    low, high = min(values), max(values)
    rounds = max(run.points[-1].round for run in runs)
    label = min(24, max(len(run.label) for run in runs))
    room = max(1, min(_MOST_BLOCKS, 4 * rounds, width - label - 12))
    bounds = f"{number(metric, low)} to {number(metric, high)}"
    yield Text(f"{safe(metric)} from {bounds}, round 1 to {rounds}", DIM)
    for run in runs:
        line = Text(safe(run.label))
        line.truncate(label, overflow="ellipsis", pad=True)
        line.append(f"  {_blocks(run.points, low, high, rounds, room):<{room}}", GOOD)
        yield line.append(f"  {number(metric, run.points[-1].value)}")


def _blocks(points: Sequence[Point], low: float, high: float, rounds: int, room: int) -> str:
    """Draw a curve in `room` columns for `rounds` rounds: in each the newest measurement by then, up to the last."""
    columns = range(1, max(1, points[-1].round * room // rounds) + 1)
    until = (math.ceil(column * rounds / room) for column in columns)
    newest = (bisect_right(points, round, key=lambda point: point.round) - 1 for round in until)
    heights = (1 + round(7 * share_of(points[at].value - low, high - low)) if at >= 0 else 0 for at in newest)
    return "".join(BLOCKS[height] for height in heights)
