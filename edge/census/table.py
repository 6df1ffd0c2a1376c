"""Shows a census in a terminal: a line for each edge, as wide as the terminal allows."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edge.census.count import Census

MOST = 30
"""With more edges than these, the first few stand for all unless all are asked for."""

_FIRST = 20
_BAR = 12  # columns
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_HEIGHTS = " ▁▂▃▄▅▆▇█"
_DIM = "bright_black"


def table_of(census: Census, *, width: int, every: bool) -> Group:
    """Lay a census out on `width` columns; of more than 30 edges the first 20 are shown, unless `every` one shall be.

    Labels are counted in numbers where these fit; otherwise each label is a bar as high as its share of the edge's
    most frequent one.
    """
    edges = len(census.sizes)
    shown = edges if every or edges <= MOST else _FIRST
    parts: list[RenderableType] = [Text(census.headline, "bold"), Text(census.in_short), ""]
    parts.append(_table(census, shown, width))
    if shown < edges:
        parts.append(Text(f"and {edges - shown:,} more edges: --all shows them", _DIM))
    if not census.labels:
        parts += ["", Text("its targets are not one whole number each, so there are no labels to count", _DIM)]
    return Group(*parts)


def _table(census: Census, shown: int, width: int) -> Table:
    """Show the first edges, and the sums of all."""
    numbers = _as_numbers(census, width)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=_DIM)
    for column in ("edge", "examples"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", width=_BAR, no_wrap=True)
    if census.labels:
        table.add_column("labels", justify="right", no_wrap=True)
        for label in census.labels if numbers else ["each label's share"]:
            table.add_column(str(label), justify="right" if numbers else "left", no_wrap=True)
    largest = census.sizes.max()
    for edge in range(shown):
        known = census.counts[edge]
        cells = [str(edge + 1), f"{census.sizes[edge]:,}", _bar(census.sizes[edge] / largest)]
        table.add_row(*cells, *_cells(known, numbers=numbers, there=bool(census.labels)))
    total = census.counts.sum(axis=0)
    table.add_row(
        *("all", f"{census.sizes.sum():,}", ""),
        *_cells(total, numbers=numbers, there=bool(census.labels)),
        style="bold",
    )
    return table


def _cells(counts: npt.NDArray[np.int64], *, numbers: bool, there: bool) -> Iterator[str]:
    """Write how many labels there are, and how many examples of each."""
    if not there:
        return
    yield str(np.count_nonzero(counts))
    if numbers:
        yield from (f"{count:,}" if count else "·" for count in counts)
    else:
        yield "".join(_HEIGHTS[int(np.ceil(share * 8))] for share in counts / max(1, counts.max()))


def _as_numbers(census: Census, width: int) -> bool:
    """Tell whether there is room for a number of each label."""
    taken = len("edge  examples  ") + _BAR + len("  labels")
    widest = [
        max(len(f"{total:,}"), len(str(label)))
        for label, total in zip(census.labels, census.counts.sum(axis=0), strict=True)
    ]
    return taken + sum(2 + columns for columns in widest) <= width


def _bar(share: float) -> str:
    """Draw a bar of `share` of its full length, an eighth of a column at least."""
    eighths = max(1, round(share * _BAR * 8))
    return _EIGHTHS[8] * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
