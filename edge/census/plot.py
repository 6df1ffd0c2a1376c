"""Draws a census as a picture: edges from left to right, labels from top to bottom, the darker the more examples."""

import importlib
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from edge.census.count import Census
from shared.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_KINDS = (".png", ".svg", ".pdf")
_INK, _QUIET, _BAR = "#1f2933", "#5b6773", "#8a97a5"
_PALEST = 0.2  # of matplotlib's Blues: one hue, told apart by lightness alone, so by those who see fewer colours too
_MOST = 40  # labels, or edges, that have room for a number each


def check(path: Path) -> None:
    """See that a picture can be drawn into the file `path`, before data are counted for it.

    Raises:
        ConfigError: its name ends in something else than png, svg or pdf, or matplotlib is not installed.
    """
    if path.suffix.lower() not in _KINDS:
        raise ConfigError(f"-o {path}: the name of a picture ends in {', '.join(_KINDS[:-1])} or {_KINDS[-1]}")
    try:
        importlib.import_module("matplotlib.figure")
    except ImportError:
        raise ConfigError("pictures need matplotlib; install it with pip install 'fedhub[plot]'") from None


def plot(census: Census, path: Path) -> None:
    """Draw `census` into the file `path`.

    Raises:
        ConfigError: there are no labels, or the file cannot be written.
    """
    from matplotlib.figure import Figure

    if not census.labels:
        raise ConfigError(
            f"the targets of {census.app} are not one whole number each, so there are no labels to draw; "
            f"fededge data show {census.app} counts its examples"
        )
    rows = min(max(len(census.labels), 4), _MOST)
    figure = Figure(figsize=(11, 2.9 + 0.3 * rows), layout="constrained")
    _draw(figure, census, rows)
    try:
        figure.savefig(path, dpi=160)
    except OSError as fault:
        raise ConfigError(f"{path} cannot be written: {fault.strerror}") from None


def _draw(figure: "Figure", census: Census, rows: int) -> None:
    """Draw how much each edge has above, what it has of each label below, and the labels' sums to the right."""
    grid = figure.subplots(2, 2, sharex="col", width_ratios=(8.2, 1), height_ratios=(1.15, 0.3 * rows), squeeze=False)
    (sizes, corner), (shares, sums) = grid
    corner.set_axis_off()
    _bars(sizes, census)
    _shares(figure, shares, census)
    _sums(sums, census)
    for axes in (sizes, shares, sums):
        axes.tick_params(colors=_QUIET, labelsize=9, length=3)
        axes.spines[:].set_visible(False)


def _bars(axes: "Axes", census: Census) -> None:
    of = f" · partition {census.partition}" if census.partition else ""
    axes.set_title(
        f"{census.app} on {len(census.sizes):,} edges{of}", loc="left", weight="bold", fontsize=13, color=_INK, pad=24
    )
    axes.annotate(
        census.in_short, (0, 1), xytext=(0, 9), xycoords="axes fraction", textcoords="offset points", color=_QUIET
    )
    middle = float(median(census.sizes))
    edges = np.arange(len(census.sizes)) + 1
    axes.bar(edges, census.sizes, width=0.85 if len(edges) <= 120 else 1.0, color=_BAR)
    axes.axhline(middle, color=_INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_ylabel("examples", color=_INK)
    axes.annotate(
        "median", (1, middle), xytext=(4, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
        va="center", fontsize=9, color=_QUIET, annotation_clip=False,
    )  # fmt: skip
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.locator_params(axis="y", nbins=3, integer=True)
    axes.tick_params(labelbottom=False)


def _shares(figure: "Figure", axes: "Axes", census: Census) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap, PowerNorm
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    counts = np.ma.masked_equal(census.counts.T, 0)  # what an edge has nothing of stays white
    edges, labels = census.counts.shape
    drawn = axes.pcolormesh(
        np.arange(edges + 1) + 0.5,
        np.arange(labels + 1) - 0.5,
        counts,
        cmap=ListedColormap(colormaps["Blues"](np.linspace(_PALEST, 1, 256))),
        norm=PowerNorm(0.5, vmin=0, vmax=float(counts.max())),  # so that a few examples differ from none and from many
        edgecolors="white",
        linewidth=0.6 if edges <= 120 and labels <= _MOST else 0,
    )
    axes.set_xlim(0.5, edges + 0.5)
    axes.invert_yaxis()
    axes.set_xlabel("edge", color=_INK)
    axes.set_ylabel("label", color=_INK)
    if edges <= _MOST:
        axes.set_xticks(np.arange(edges) + 1)
    if labels <= _MOST:
        axes.set_yticks(range(labels), [str(label) for label in census.labels])
    bar = figure.colorbar(drawn, ax=axes, orientation="horizontal", shrink=0.35, aspect=30, anchor=(0.0, 1.0))
    bar.set_label("examples of a label on an edge (white: none)", color=_QUIET, fontsize=9)
    bar.locator = MaxNLocator(nbins=4, integer=True)
    bar.formatter = StrMethodFormatter("{x:,.0f}")
    bar.ax.tick_params(colors=_QUIET, labelsize=8)
    bar.outline.set_visible(False)


def _sums(axes: "Axes", census: Census) -> None:
    total = census.counts.sum(axis=0)
    axes.barh(np.arange(len(total)), total, height=0.85, color=_BAR)
    axes.set_ylim(len(total) - 0.5, -0.5)
    axes.set_yticks([])
    axes.set_xticks([])
    axes.set_title("all edges", loc="left", fontsize=9, color=_QUIET)
    if len(total) <= _MOST:
        for place, count in enumerate(total):
            axes.annotate(
                f"{count:,}", (count, place), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8,
                color=_QUIET, annotation_clip=False,
            )  # fmt: skip
