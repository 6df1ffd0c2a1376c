"""Draws runs side by side into a PNG file; the only file that knows matplotlib."""

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hub.rules.progress import is_better
from hub.views.compare import Comparison, Curve, Point
from hub.views.terminal import safe
from hub.views.words import number
from shared.console import size
from shared.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

# M. Okabe and K. Ito, Color Universal Design (2008), without their yellow, which is hard to see on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", ":", "-.")
_GREY = "#666666"
_LETTERS = 140  # that a line of the legend has room for


class _Line(msgspec.Struct, frozen=True):
    """What is drawn as one curve: a run, or the mean of some with their range."""

    label: str
    points: list[Point]
    low: list[float]
    high: list[float]


def save_picture(comparison: Comparison, file: Path, *, band: bool) -> None:
    """Draw the curves over rounds and over what had crossed.

    Args:
        comparison: of at least one run.
        file: to write, a PNG.
        band: whether runs of one algorithm are one curve, their mean, with their range.

    Raises:
        ConfigError: matplotlib is not installed, the file cannot be written, or runs of one algorithm were never
            measured in the same round.
    """
    if file.suffix.lower() != ".png":
        raise ConfigError(f"the picture is a PNG, and {file} is not called like one; write --png {file.stem}.png")
    picture = _draw(comparison, list(_bands(comparison.runs) if band else _lines(comparison.runs)))
    try:
        file.write_bytes(picture)
    except OSError as error:
        raise ConfigError(f"cannot write {file} ({error.strerror})") from None


def _lines(runs: Sequence[Curve]) -> Iterator[_Line]:
    for run in runs:
        values = [point.value for point in run.points]
        mark = "" if run.kept.standing == "finished" else f" ({run.kept.standing})"
        yield _Line(f"{safe(run.label)}{mark}\n{safe(run.kept.algorithm)}", run.points, values, values)


def _bands(runs: Sequence[Curve]) -> Iterator[_Line]:
    """Give the mean of the runs of each algorithm, over the rounds in which all of them were measured."""
    alike: dict[str, list[Curve]] = {}
    for run in runs:
        alike.setdefault(run.kept.algorithm, []).append(run)
    for algorithm, group in alike.items():
        measured = [{point.round: point for point in run.points} for run in group]
        rounds = sorted(set.intersection(*(set(points) for points in measured)))
        if not rounds:
            raise ConfigError(f"--band: the runs of {algorithm} were never measured in the same round")
        there = [[points[round] for points in measured] for round in rounds]
        yield _Line(
            f"{safe(algorithm)}\n{len(group)} run{'s' * (len(group) != 1)}",
            [_mean(points) for points in there],
            [min(point.value for point in points) for points in there],
            [max(point.value for point in points) for points in there],
        )


def _mean(points: Sequence[Point]) -> Point:
    count = len(points)
    return Point(
        round=points[0].round,
        value=sum(point.value for point in points) / count,
        nbytes=sum(point.nbytes for point in points) // count,
        seconds=sum(point.seconds for point in points) / count,
    )


def _draw(comparison: Comparison, lines: Sequence[_Line]) -> bytes:
    """Draw it, whatever the user's own style of pictures is.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context, rcParamsDefault
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(f"a picture needs matplotlib ({error}); try: pip install 'fedhub[plot]'") from None

    longest = max(len(part) for line in lines for part in line.label.splitlines())
    columns = max(1, min(len(lines), _LETTERS // (longest + 6)))
    with warnings.catch_warnings(), rc_context(dict(rcParamsDefault)):
        warnings.simplefilter("ignore")  # that a letter of a name is not in the font
        figure = Figure(figsize=(11, 4.4 + 0.45 * -(-len(lines) // columns)), dpi=100, layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        curves = _panel(left, comparison, lines, lambda point: point.round)
        _panel(right, comparison, lines, lambda point: point.nbytes)
        left.set_ylim(_bounds(comparison.target, lines))
        left.set_xlabel("round")
        left.xaxis.get_major_locator().set_params(integer=True)
        left.set_ylabel(safe(comparison.metric), parse_math=False)
        right.set_xlabel("crossed by then, down and up")
        right.xaxis.get_major_locator().set_params(nbins=7, steps=[1, 2, 5, 10])
        right.xaxis.set_major_formatter(lambda nbytes, _: size(nbytes))
        goal = f"target\n{number(comparison.metric, comparison.target)}"
        right.text(1.02, comparison.target, goal, transform=right.get_yaxis_transform(), color=_GREY, va="center")
        legend = figure.legend(
            curves, [line.label for line in lines], loc="outside lower center", ncols=columns, frameon=False
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
        png = io.BytesIO()
        figure.savefig(png, format="png")
    return png.getvalue()


def _bounds(target: float, lines: Sequence[_Line]) -> tuple[float, float]:
    """Give the bounds of what is shown: a curve's steep first sixth may lie outside: it would press the rest flat."""
    values = [value for line in lines for side in (line.low, line.high) for value in side[len(side) // 6 :]]
    low, high = min(*values, target), max(*values, target)
    air = 0.05 * (high - low) or 0.05 * abs(high) or 0.05
    return low - air, high + air


def _panel(axes: "Axes", comparison: Comparison, lines: Sequence[_Line], x: Callable[[Point], float]) -> "list[Line2D]":
    """Draw the curves over what `x` gives, with a dot where each gets to the target; give them."""
    metric, target = comparison.metric, comparison.target
    curves = []
    for at, line in enumerate(lines):
        colour, places = _COLOURS[at % len(_COLOURS)], [x(point) for point in line.points]
        dashes = _DASHES[at // len(_COLOURS) % len(_DASHES)]
        axes.fill_between(places, line.low, line.high, color=colour, alpha=0.16, linewidth=0)
        curves += axes.plot(places, [point.value for point in line.points], dashes, color=colour, linewidth=1.7)
        if there := next((point for point in line.points if not is_better(metric, target, point.value)), None):
            dot = 10 - 5 * at / len(lines)  # so that one does not hide another
            axes.plot(x(there), there.value, "o", color=colour, markersize=dot, markeredgecolor="white", zorder=3)
    axes.axhline(target, color=_GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter(lambda value, _: number(metric, value))
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return curves
