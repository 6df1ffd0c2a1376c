"""Draws the board for a terminal of any size: how it goes, where each edge is, what came of the last rounds."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import assert_never

from rich.text import Text

from hub.events import Stage
from hub.views.board import Fate, Head, Lane, Line, Round, Row, State
from hub.views.words import Level, number, percent, short, took
from shared.console import printable, size
from shared.messages import Role

DIM, _RULE = "bright_black", "grey37"
GOOD, WARN, BAD, _AWAY = "#22c55e", "#eab308", "#ef4444", "grey50"

AT_WORK = (Stage.DOWNLOADING, Stage.TRAINING, Stage.UPLOADING)

# A stage has a colour, and a line of its own for who sees none.
STAGES: dict[Stage, tuple[str, str, str]] = {
    Stage.WAITING: ("┄", DIM, "waits"),
    Stage.DOWNLOADING: ("─", "#38bdf8", "downloads"),
    Stage.TRAINING: ("━", "#818cf8", "trains"),
    Stage.UPLOADING: ("═", "#f59e0b", "uploads"),
    Stage.DONE: (" ", GOOD, "done"),
    Stage.REFUSED: (" ", BAD, "refused"),
    Stage.AWAY: ("╌", _AWAY, "away"),
}
_COLOURS = (GOOD, *(STAGES[stage][1] for stage in reversed(AT_WORK)), DIM, WARN, BAD, _AWAY)
_FATES: dict[Fate, tuple[str, str, str]] = {
    "accepted": ("✓", GOOD, ""),
    "late": ("◷", WARN, "late"),
    "refused": ("✗", BAD, "refused"),
    "left": ("○", _AWAY, "left"),
    "spared": ("·", DIM, "not needed"),
    "void": ("∅", DIM, "void"),
}
_LEVELS: dict[Level, str] = {"info": "", "good": GOOD, "warn": WARN, "bad": BAD}

BLOCKS = " ▁▂▃▄▅▆▇█"
_SPANS = [digit * 10.0**power for power in range(-2, 6) for digit in (1, 2, 5)]  # seconds that a lane may be long
_LANE = 58  # columns that a lane needs at least to stand beside another


def draw(state: State, now: float, width: int, height: int, *, note: str = "") -> Text:
    """Draw the board on `width` columns and at most `height` lines.

    Args:
        state: of the board.
        now: in seconds since 1970, by the hub's clock.
        width, height: of the screen.
        note: what there is to say besides, like that the hub is away.
    """
    names = list(state.round.lanes) if state.round else [name for name, edge in state.edges.items() if edge.here]
    curves, lanes, rounds, log = _shares(height, edges=len(names), any_round=bool(state.rows))
    lines = [*_header(state, now, width, note), *_curves(state, width, curves)]
    lines += _lanes(state, now, width, lanes, names)
    if rounds:
        lines.append(_rule("rounds", "", width))
        lines += [_row(row, state.head.metric, width) for row in state.rows[-rounds:]]
        lines.append(Text.assemble((" lost ", DIM), waste(state.head)))
    if log:
        lines.append(_rule("log", "", width))
        lines += [_line(line) for line in state.lines[-log:]]
    lines = lines[: max(1, height)]
    for line in lines:
        line.truncate(max(1, width), overflow="ellipsis")
    return Text("\n", no_wrap=True, overflow="crop", end="").join(lines)


def _shares(height: int, *, edges: int, any_round: bool) -> tuple[int, int, int, int]:
    """Share the lines of a screen out among curves, lanes, rounds and log: an edge has a lane if there is room for it.

    Three are the header's; the lanes, the rounds and the log have a headline each, and below the rounds is a sum.
    """
    if height < 12:
        curves = int(any_round and height > 6)
        return curves, height - 4 - curves, 0, 0
    curves, rounds = (height // 12, height // 8) if any_round else (0, 0)
    log = height // 6 - 2
    lanes = height - 5 - curves - rounds - log - 2 * any_round
    spare = max(0, lanes - max(1, edges))
    if any_round:
        more = min(spare // 2, max(0, 8 - curves))
        curves, rounds = curves + more, rounds + (spare - more) // 2
        log += spare - more - (spare - more) // 2
    else:
        log += spare
    return curves, lanes - spare, rounds, log


def _header(state: State, now: float, width: int, note: str) -> list[Text]:
    head = state.head
    colour = GOOD if head.phase in ("training", "measuring") else WARN
    if head.phase == "ended":
        colour = DIM
    name = Text.assemble((" ● ", colour), (safe(head.name or "fedhub"), "bold"))
    if head.algorithm:
        name.append(f"  {safe(head.algorithm)} · {head.parameters:,} parameters", DIM)
    open_round = state.round if state.round and not state.round.outcome else None
    current = open_round.number if open_round else head.committed
    planned = Text.assemble(("round ", DIM), (str(current), "bold"), (f" of {head.rounds} ", DIM))
    if head.rounds:
        planned.append_text(_meter(head.committed, head.rounds, min(24, width // 5)))
    here = Text.assemble(" ", (f"{head.here}", "bold"), f" edge{'s' * (head.here != 1)} here")
    if state.rows and (value := state.rows[-1].metrics.get(head.metric)) is not None:
        here = Text.assemble(" ", (f"{safe(head.metric)} {number(head.metric, value)}", "bold"), (" · ", DIM), here[1:])
    traffic = Text(f"{size(head.down)} down · {size(head.up)} up ", DIM)
    doing, clock = (Text(f" {safe(note)}", f"bold {WARN}"), Text()) if note else _phase(state, now, width)
    return [_spread(name, planned, width), _spread(here, traffic, width), _spread(doing, clock, width)]


def _phase(state: State, now: float, width: int) -> tuple[Text, Text]:
    """Say what the hub is about, and how long that may take."""
    head, round = state.head, state.round
    match head.phase:
        case "training" if round:
            lanes = round.lanes.values()
            answered = sum(lane.stages[-1][0] is Stage.DONE for lane in lanes)
            left = round.began + round.seconds - now
            clock = Text(f"{took(left)} to the deadline " if left > 0 else "the deadline has passed ")
            clock.stylize(WARN if left < round.seconds / 10 else "")
            doing = Text(" ").append_text(_meter(answered, round.goal, 20) if width >= 60 else Text())
            doing.append(f"{answered} of {len(round.lanes)} answered")
            if round.goal != len(round.lanes):
                doing.append(f", {round.goal} wanted", DIM)
            if round.attempt > 1:
                doing.append(f" · try {round.attempt}", WARN)
            return doing.append(" · a pause comes after it" if head.paused else "", WARN), clock
        case "waiting" if head.needed > head.here:
            return Text(f" waiting for edges: {head.here} of {head.needed} here", WARN), Text()
        case "opening" | "training":
            return Text(" the hub is opening", DIM), Text()
        case "waiting":
            return Text(" the next round is about to begin", DIM), Text()
        case "paused":
            return Text(" paused: no further round begins", WARN), Text()
        case "measuring":
            return Text(f" measuring the model of round {head.committed}"), Text()
        case "stopping":
            return Text(" stopping: the round is closed, the model is saved", WARN), Text()
        case "ended":
            return Text(f" {safe(head.note)}", "bold"), Text()
        case _:
            assert_never(head.phase)


def _curves(state: State, width: int, height: int) -> list[Text]:
    """Draw how the metric and the loss went, side by side."""
    metric = state.head.metric
    measured = [row.metrics[metric] for row in state.rows if metric in row.metrics]
    losses = [loss for row in state.rows if (loss := loss_of(row)) is not None]
    pictures = [
        _curve(name, values, width // 2, height, style)
        for name, values, style in ((metric, measured, GOOD), ("loss", losses, "#f472b6"))
        if name == "loss" or values or not losses
    ]
    return [Text.assemble(*parts) for parts in zip(*pictures, strict=True)] if height else []


def _curve(name: str, values: Sequence[float], width: int, height: int, style: str) -> list[Text]:
    """Draw a curve over `height` lines, with its name and bounds on the left."""
    values = [value for value in values if math.isfinite(value)]
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    name, room = short(safe(name))[:9], max(1, width - 18)
    if not values:
        labels = [name] + [""] * height
    elif height == 1:
        labels = [f"{name} {number(name, values[-1])}"]
    else:
        labels = [f"{name} {number(name, high)}", *[""] * (height - 2), number(name, low)]
    heights = [
        1 + round((value - low) / (high - low) * (8 * height - 1)) if high > low else 4 * height
        for value in _fit(values, room)
    ]
    lines = []
    for line, label in zip(reversed(range(height)), labels, strict=False):
        text = Text(f" {label:>15} ", DIM)
        text.append("".join(BLOCKS[max(0, min(8, one - 8 * line))] for one in heights), style)
        text.truncate(width, pad=True)
        lines.append(text)
    return lines


def _fit(values: Sequence[float], room: int) -> list[float]:
    """Squeeze values into `room` columns, each the mean of its share; or give a few of them more columns than one."""
    if len(values) <= room:
        wide = min(3, room // max(1, len(values)))
        return [value for value in values for _ in range(wide)]
    ends = [len(values) * column // room for column in range(room + 1)]
    return [sum(values[begin:end]) / (end - begin) for begin, end in pairwise(ends)]


def _lanes(state: State, now: float, width: int, height: int, names: list[str]) -> list[Text]:
    """Draw where each edge is: as lanes side by side against the deadline if they fit, else as a dot each."""
    round, rows = state.round, max(0, height)
    columns = 1
    while len(names) > rows * columns and width // (columns + 1) >= _LANE:
        columns += 1
    crowded = len(names) > rows * columns
    if round is None:
        lines = _crowd([GOOD] * len(names), width, rows) if crowded else [_present(state, name) for name in names]
        return [_rule("edges", "", width), *lines]
    end = _end(round, now)
    span = _span(round, end, state.rows)
    title = f"round {round.number}" + (f": {round.outcome.replace('-', ' ')}" if round.outcome else "")
    if crowded:
        dots = _crowd([_look(lane)[1] for lane in round.lanes.values()], width, rows)
        rows, columns = rows - len(dots), max(1, width // _LANE)
        names = [name for name in names if round.lanes[name].stages[-1][0] is not Stage.DONE][: max(0, rows * columns)]
        return [_rule(title, _counts(round), width), *dots, *_side_by_side(round, names, end, span, width, columns)]
    scale = f"{took(span)}{' deadline' if span >= round.seconds else ''}"
    rule = _rule(title, _legend(), width, scale)
    return [rule, *_side_by_side(round, names, end, span, width, columns)]


def _side_by_side(round: Round, names: list[str], end: float, span: float, width: int, columns: int) -> list[Text]:
    each = (width - columns + 1) // columns
    label = min(24, max(map(len, names), default=0), each // 4)
    cells = [_lane(round, name, end, span, each, label) for name in names]
    deep = -(-len(cells) // columns)
    return [Text(" ").join(cells[row::deep]) for row in range(deep)]


def _lane(round: Round, name: str, end: float, span: float, width: int, label: int) -> Text:
    """Draw an edge's way through the round, and at its end what came of it."""
    lane = round.lanes[name]
    line = Text(f" {safe(name)}", "")
    line.truncate(label + 1, overflow="ellipsis", pad=True)
    line.append(" ")
    room, at = max(1, width - label - 18), 0
    until = [since for _, since in lane.stages[1:]] + [end]
    for (stage, _), stop in zip(lane.stages, until, strict=True):
        upto = _column(min(stop, end), span, room)
        if upto > at:
            mark, style, _ = STAGES[stage]
            line.append(mark * (upto - at), style)
            at = upto
    line.append(" " * (room - at))
    line.append("│ " if span >= round.seconds else "  ", BAD if end >= round.seconds else _RULE)
    mark, style, word = _look(lane)
    stage, since = lane.stages[-1]
    if stage is Stage.DONE:
        word = took(since)
    elif lane.fate and lane.why:
        word = safe(lane.why)
    line.append(f"{mark} {word}", style)
    line.truncate(width, overflow="ellipsis", pad=True)
    return line


def _look(lane: Lane) -> tuple[str, str, str]:
    """Give the sign, the colour and the word for where an edge is, or for what came of it."""
    if lane.fate:
        return _FATES[lane.fate]
    stage = lane.stages[-1][0]
    mark, style, word = STAGES[stage]
    return {Stage.DONE: "✓", Stage.REFUSED: "✗"}.get(stage, mark), style, word


def _present(state: State, name: str) -> Text:
    edge = state.edges[name]
    what = "measures" if edge.role == Role.EVALUATOR else f"{edge.examples:,} examples"
    return Text.assemble((" ● ", GOOD), f"{safe(name)}  ", (f"{safe(edge.kind)} {what}".strip(), DIM))


def _crowd(dots: Sequence[str], width: int, height: int) -> list[Text]:
    """Draw a dot of its colour for each edge; where even dots do not fit, one for so many of a colour."""
    if height < 1:
        return []
    gap = 2 if len(dots) * 2 <= (width - 2) * height else 1
    columns = max(1, (width - 2) // gap)
    share = -(-len(dots) // (columns * height))
    if share > 1 and height > 1:
        share = -(-len(dots) // (columns * (height - 1)))
        explained = [Text(f" a dot stands for {share} edges", DIM)]
    else:
        explained = []
    if share > 1:
        dots = sorted(dots, key=_COLOURS.index)[share // 2 :: share]
    rows = [dots[at : at + columns] for at in range(0, len(dots), columns)]
    return [Text.assemble(" ", *(("●".ljust(gap), style) for style in row)) for row in rows] + explained


def _counts(round: Round) -> Text:
    """Say how many edges are where, in the colours of their dots."""
    counts: dict[tuple[str, str], int] = {}
    for lane in round.lanes.values():
        _, style, word = _look(lane)
        counts[word or "answered", style] = counts.get((word or "answered", style), 0) + 1
    ordered = sorted(counts.items(), key=lambda one: _COLOURS.index(one[0][1]))
    return Text("  ").join(Text(f"{count:,} {word}", style) for (word, style), count in ordered)


def _legend() -> Text:
    return Text(" ").join(Text(f"{mark} {word}", style) for mark, style, word in map(STAGES.__getitem__, AT_WORK))


def _end(round: Round, now: float) -> float:
    """Give the second of the round that it has got to."""
    if round.listened is not None:
        return round.listened
    return max(
        max((lane.stages[-1][1] for lane in round.lanes.values()), default=0.0),
        0.0 if round.outcome else now - round.began,
    )


def _span(round: Round, end: float, rows: Sequence[Row]) -> float:
    """Choose how many seconds a lane is long: what rounds take, with some air, but not more than the deadline."""
    usual = max((row.phases.get("listening", 0.0) for row in rows[-5:]), default=0.0)
    wanted = max(end, usual) * 1.1
    return max(end, min(round.seconds, next((span for span in _SPANS if span >= wanted), round.seconds))) or 1.0


def _row(row: Row, metric: str, width: int) -> Text:
    """Say in a line what came of a round."""
    value, loss = row.metrics.get(metric), loss_of(row)
    line = Text(f" round {row.number:>4}  ")
    shown = "" if value is None else f"{short(safe(metric))} {number(metric, value)}"
    line.append(f"{shown:<10}  ", f"bold {GOOD}" if row.best else "")
    line.append("" if loss is None else f"loss {loss:.3g}")
    line.append(f"{row.answered:>{max(1, 42 - line.cell_len)}} of {row.asked:<5}")
    line.append(f"{took(row.seconds):>9}", DIM)
    if width >= 100:
        line.append(f"  {size(row.down):>7} down  {size(row.up):>7} up", DIM)
    counts = ((row.late, "late"), (row.left, "left"), (row.refused, "refused"))
    line.append("  " + ", ".join(f"{count} {word}" for count, word in counts if count), WARN)
    return line


def waste(head: Head) -> str:
    """Say how much of what edges did came to nothing; of its time only if that is known."""
    parts = []
    if worked := work(head):
        share = share_of(head.lost_seconds, worked)
        parts.append(f"{took(head.lost_seconds)} of {took(worked)} of work ({percent(share)})")
    parts.append(f"{size(head.lost_bytes)} ({percent(share_of(head.lost_bytes, head.down + head.up))})")
    parts += [f"{count:,} {fate}" for fate, count in head.fates.items() if fate not in ("accepted", "spared") and count]
    return " · ".join(parts)


def work(head: Head) -> float:
    """Give the edge-seconds of work in a run; 0 for one that was recorded before edges said what they do."""
    return sum(head.spent.get(stage, 0.0) for stage in AT_WORK)


def _line(line: Line) -> Text:
    return Text.assemble((f" {clock(line.time)} ", DIM), (safe(line.text), _LEVELS[line.level]))


# --- words and signs -----------------------------------------------------------------------------


def safe(text: str) -> str:
    """Make text from elsewhere safe to show on one line."""
    return printable(text.replace("\n", " "))


def loss_of(row: Row) -> float | None:
    """Give a round's loss: as it was measured, else as it was trained with."""
    return row.metrics.get("loss", row.loss)


def share_of(part: float, whole: float) -> float:
    """Give the share that `part` is of `whole`: from 0 to 1, whatever they are."""
    return max(0.0, min(1.0, part / whole)) if whole > 0 else 0.0


def _column(seconds: float, span: float, room: int) -> int:
    return round(share_of(seconds, span) * room)


def clock(seconds: float, form: str = "%H:%M:%S") -> str:
    """Write a time of the hub's as the clock on this wall shows it."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC).astimezone():{form}}"
    except (ValueError, OverflowError, OSError):  # no such time
        return "?"


def _spread(left: Text, right: Text, width: int) -> Text:
    """Put one text to the left and one to the right; the left one goes first where there is no room for both."""
    room = width - left.cell_len - right.cell_len
    if room >= 0:
        return Text.assemble(left, " " * room, right)
    if right.cell_len > width // 2:
        return left
    left.truncate(width - right.cell_len - 1, overflow="ellipsis")
    return Text.assemble(left, " ", right)


def _meter(done: int, whole: int, width: int) -> Text:
    column = _column(done, whole, width)
    return Text.assemble(("━" * column, GOOD), ("─" * (width - column), _RULE), " ")


def _rule(title: str, middle: str | Text, width: int, end: str = "") -> Text:
    """Draw a line across the screen that says what is below it."""
    line = Text.assemble(("─ ", _RULE), (safe(title), "bold"), " ")
    right = Text.assemble(" ", (end, DIM), " ") if end else Text()
    if middle and line.cell_len + len(middle) + right.cell_len + 8 <= width:
        line = Text.assemble(line, ("─── ", _RULE), middle, " ")
    room = max(0, width - line.cell_len - right.cell_len - (3 if end else 0))
    return Text.assemble(line, ("─" * room, _RULE), right, ("───" if end else "", _RULE))
