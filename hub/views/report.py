"""Says what runs came to, in tables: a list of the runs in a folder, or all there is to say about one."""

from collections.abc import Iterable, Iterator
from itertools import compress
from statistics import median

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hub.events import Stage
from hub.views.archive import Kept, Standing, Story
from hub.views.board import Edge, Fate, State
from hub.views.terminal import BAD, DIM, GOOD, STAGES, WARN, clock, loss_of, safe, share_of, waste, work
from hub.views.words import gaps, number, percent, took
from shared.console import size
from shared.messages import Role

_STANDINGS: dict[Standing, str] = {"finished": "", "resumable": WARN, "running": GOOD, "damaged": BAD}
_FATES: tuple[Fate, ...] = ("accepted", "late", "left", "refused")
_MOST_ROUNDS, _MOST_EDGES = 24, 100
_DAY, _SHORT_DAY = "%Y-%m-%d %H:%M", "%b %d %H:%M"
_WIDE = 110  # columns


def table_of(runs: Iterable[Kept], width: int) -> Table:
    """List runs, a line each; on a narrow screen some columns are left out."""
    wide = width >= _WIDE
    columns = ("run", "begun", "app", "algorithm", ">rounds", ">best", ">last", ">time", ">crossed", "")
    shown = [wide or column not in ("algorithm", ">last") for column in columns]
    table = PlainTable(*compress(columns, shown))
    for kept in runs:
        cells: tuple[str | Text, ...] = (
            Text(safe(kept.name), "bold"),
            clock(kept.began, _DAY if wide else _SHORT_DAY) if kept.began else "",
            kept.app,
            kept.algorithm,
            f"{kept.rounds}/{kept.planned}",
            _value(kept.metric, kept.best) or (f"loss {kept.loss:.3g}" if kept.loss is not None else ""),
            _value(kept.metric, kept.last),
            took(kept.seconds),
            size(kept.bytes_down + kept.bytes_up),
            standing(kept),
        )
        table.add(*compress(cells, shown))
    return table.table


def report(story: Story) -> Group:
    """Tell what came of a run: its rounds, its edges, where the time went, and where the model is."""
    kept, state = story.kept, story.state
    about = [kept.app, kept.algorithm, f"{state.head.parameters:,} parameters"]
    about += [f"begun {clock(kept.began, _DAY)}"] if kept.began else []
    came = [f"{kept.rounds} of {kept.planned} rounds"]
    came += (
        [f"{kept.metric} {number(kept.metric, kept.best)} in round {kept.best_round}"] if kept.best is not None else []
    )
    came += [took(kept.seconds), f"{size(kept.bytes_down)} down, {size(kept.bytes_up)} up", ""]
    parts: list[RenderableType] = [
        Text.assemble((safe(kept.name), "bold"), "  ", (safe(" · ".join(filter(None, about))), DIM)),
        Text(safe(" · ".join(came))).append(kept.standing, _STANDINGS[kept.standing]),
    ]
    if kept.why:
        parts.append(Text(safe(kept.why), BAD))
    if state.head.missed:
        parts.append(Text(f"{gaps(state.head.missed)}: the record has gaps", WARN))
    if state.rows:
        parts += ["", *_rounds(state)]
    if trainers := {name: edge for name, edge in state.edges.items() if edge.role == Role.TRAINER}:
        parts += ["", *_edges(story, trainers)]
    if closing := list(_closing(story)):
        parts += ["", *closing]
    return Group(*parts)


def to_json(story: Story) -> str:
    """Give all of it as one line."""
    state, within = story.state, story.within()
    told = {
        **msgspec.to_builtins(story.kept),
        "model": story.model,
        "answers": {"share": within[0], "seconds": within[1]} if within else None,
        "fates": state.head.fates,
        "spent": state.head.spent,
        "lost_seconds": state.head.lost_seconds,
        "lost_bytes": state.head.lost_bytes,
        "missed": state.head.missed,
        "history": state.rows,
        "edges": {
            name: {**msgspec.to_builtins(edge), "median_seconds": median(story.answers[name])}
            if story.answers.get(name)
            else edge
            for name, edge in state.edges.items()
        },
    }
    return msgspec.json.encode(told).decode()


def standing(kept: Kept) -> Text:
    """Say how a run stands, and what its record lacks."""
    words = f"{kept.standing}: {kept.why}" if kept.why else kept.standing
    return Text(safe(words + (f" · {gaps(kept.missed)}" if kept.missed else "")), _STANDINGS[kept.standing])


def _rounds(state: State) -> Iterator[RenderableType]:
    rows, metric = state.rows, state.head.metric
    table = PlainTable(
        ">round", f">{metric}", ">loss", ">answered", ">late", ">left", ">refused", ">time", ">down", ">up"
    )
    few = rows if len(rows) <= _MOST_ROUNDS else [rows[len(rows) * at // _MOST_ROUNDS] for at in range(_MOST_ROUNDS)]
    shown = {row.number: row for row in [*few, rows[-1], *(row for row in rows if row.number == state.head.best)]}
    for _, row in sorted(shown.items()):
        loss = loss_of(row)
        table.add(
            str(row.number),
            Text(_value(metric, row.metrics.get(metric)), f"bold {GOOD}" if row.best else ""),
            "" if loss is None else f"{loss:.3g}",
            f"{row.answered}/{row.asked}",
            *(Text(str(count or ""), WARN) for count in (row.late, row.left, row.refused)),
            took(row.seconds),
            size(row.down),
            size(row.up),
        )
    yield table.table
    if len(shown) < len(rows):
        yield Text(f"{len(shown)} of {rows[-1].number:,} rounds", DIM)


def _edges(story: Story, trainers: dict[str, Edge]) -> Iterator[RenderableType]:
    table = PlainTable("edge", "kind", ">share", *(f">{fate}" for fate in _FATES), ">median", ">down", ">up")
    total = sum(edge.weight for edge in trainers.values())
    shown = sorted(trainers, key=lambda name: -trainers[name].weight)[:_MOST_EDGES]
    for name in sorted(shown):
        edge, answers = trainers[name], story.answers.get(name)
        table.add(
            name,
            edge.kind,
            percent(share_of(edge.weight, total)),
            *(Text(str(edge.fates.get(fate) or ""), "" if fate == "accepted" else WARN) for fate in _FATES),
            took(median(answers)) if answers else "",
            size(edge.down),
            size(edge.up),
        )
    yield table.table
    if len(shown) < len(trainers):
        yield Text(f"the {len(shown)} of {len(trainers):,} edges that weigh most", DIM)


def _closing(story: Story) -> Iterator[Text]:
    """Say how fast edges answered, where their time went, and where the model is."""
    head = story.state.head
    if within := story.within():
        share, asked = percent(within[0]), sum(head.fates.values())
        yield _line("answers", f"{share} answer within {took(within[1])} (an edge was asked {asked:,} times)")
    whole = sum(head.spent.values())
    spent = [(STAGES[stage][2], head.spent[stage]) for stage in Stage if head.spent.get(stage)]
    if work(head):
        words = (f"{word} {took(seconds)} ({percent(share_of(seconds, whole))})" for word, seconds in spent)
        yield _line("time", " · ".join(words))
    if head.fates:
        yield _line("lost", waste(head))
    if story.model:
        yield _line("model", story.model)
    if story.kept.standing == "resumable":
        yield _line("go on", f"fedhub serve --resume {story.kept.folder}")


def _line(name: str, words: str) -> Text:
    return Text.assemble((f"{name:<9}", DIM), safe(words))


def _value(metric: str, value: float | None) -> str:
    return "" if value is None else number(metric, value)


class PlainTable:
    """A table without lines, whose cells are never read as markup. A column that begins with `>` is of numbers.

    Where there is too little room, the cells are cut; with `fold`, only texts give way, on more lines.
    """

    def __init__(self, *columns: str, fold: bool = False) -> None:
        self.table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=DIM)
        for column in columns:
            name, numbers = column.removeprefix(">"), column.startswith(">")
            self.table.add_column(
                Text(safe(name)),
                justify="right" if numbers else "left",
                no_wrap=numbers or not fold,
                overflow="fold" if fold else "ellipsis",
            )

    def add(self, *cells: str | Text) -> None:
        """Add a row."""
        self.table.add_row(*(Text(safe(cell)) if isinstance(cell, str) else cell for cell in cells))
