"""The live log: one line a round for people, with a bar for the round that runs; or every fact as JSON for programs."""

from contextlib import AbstractContextManager, nullcontext
from typing import assert_never

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from hub.events import (
    DiskTrouble,
    EdgeJoined,
    EdgeLeft,
    EdgesMoved,
    Fact,
    Missed,
    Ordered,
    RoundAbandoned,
    RoundClosed,
    RoundCommitted,
    RoundReopened,
    RoundStarted,
    RunEnded,
    RunStarted,
    Stamped,
    StopRequested,
    StrangerRefused,
    UpdateAccepted,
    UpdateRefused,
    WaitingForEdges,
    to_line,
)
from hub.feed import Follower
from hub.rules.admission import Code
from hub.views.words import missing, names, number, own_models, sentence, short
from shared.console import printable, say, size
from shared.messages import Role

_STRANGERS_SHOWN = 20  # of each second


async def follow_log(follower: Follower, style: str, *, own: bool = True) -> None:
    """Write the log to stderr until the feed ends.

    Args:
        follower: gives the facts.
        style: `pretty`, `json`, or `auto`, which is pretty on a terminal only.
        own: whether this is the hub's own terminal, where a Ctrl-C stops it.
    """
    console = Console(stderr=True, highlight=False)
    try:
        if style == "pretty" or (style == "auto" and console.is_terminal):
            await log_pretty(follower, console, own=own)
        else:
            await log_json(follower)
    except (OSError, SystemExit):  # the latter is rich's answer to a closed pipe
        async for _ in follower:
            pass  # nobody reads the log any more; the run goes on


async def log_json(follower: Follower) -> None:
    """Write every fact to stderr as a line of JSON, until the feed ends."""
    async for stamped in follower:
        say(to_line(stamped))


async def log_pretty(follower: Follower, console: Console, *, own: bool = True) -> None:
    """Write a line a round to `console`, until the feed ends."""
    with PrettyLog(console, own=own) as log:
        async for stamped in follower:
            log.take(stamped)


class PrettyLog:
    """Facts as lines for people; on a terminal, with a bar for the round that runs."""

    def __init__(self, console: Console, *, own: bool = True) -> None:
        self._console = console
        self._own = own
        self._metric = "accuracy"
        self._unmeasured = False
        self._came: list[str] = []
        self._went: dict[str, str] = {}
        self._known: set[str] = set()
        self._here = 0
        self._answered = 0
        self._second, self._strangers = 0.0, 0
        self._bar = Progress(
            TextColumn("{task.description}", style="dim"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._live: AbstractContextManager[object] = self._bar if console.is_terminal else nullcontext()

    def __enter__(self) -> "PrettyLog":
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._say_unseen()
        self._live.__exit__(None, None, None)

    def take(self, stamped: Stamped) -> None:
        """Show one fact, in the way it deserves: a line, a step of the bar, or nothing."""
        fact: Fact = stamped.fact
        match fact:
            case RunStarted():
                self._metric = fact.metric
                self._say(fact)
            case EdgeJoined():
                self._here = fact.here
                if fact.role == Role.TRAINER:
                    if fact.edge not in self._came:
                        self._came.append(fact.edge)
                    self._advance(fact.here)
                else:
                    self._say(fact, "dim")
            case EdgeLeft():
                self._here = fact.here
                self._went[fact.edge] = fact.reason
            case StrangerRefused():
                self._turned_away(stamped.time, fact)
            case WaitingForEdges():
                self._flush()
                if self._console.is_terminal:
                    self._start_bar("waiting for edges", fact.needed, "")
                    self._advance(fact.here)
                else:
                    self._say(fact)
            case RoundStarted():
                self._flush()
                again = f", try {fact.attempt}" if fact.attempt > 1 else ""
                self._start_bar(f"round {fact.round:>3}{again}", fact.goal, "training")
                self._answered = 0
            case RoundReopened():
                self._flush()
                self._say(fact)
                self._start_bar(f"round {fact.round:>3}", fact.goal, "training")
                self._answered = len(fact.answered)
                self._advance(self._answered)
            case DiskTrouble():
                self._say(fact, "bold red")
            case EdgesMoved():
                pass
            case UpdateAccepted():
                self._answered += 1
                self._advance(self._answered)
            case UpdateRefused():
                if fact.code != Code.LATE:
                    self._say(fact, "yellow")
            case RoundCommitted():
                if self._task is not None:
                    self._bar.update(self._task, note="measuring")
            case RoundClosed():
                self._stop_bar()
                self._round(fact)
            case RoundAbandoned():
                self._stop_bar()
                self._say(fact, "yellow")
            case Ordered():
                self._say(fact, "yellow")
            case StopRequested():
                self._say(fact, more=" (again to stop at once)" if self._own else "")
            case RunEnded():
                self._stop_bar()
                self._say(fact)
            case Missed():
                self._say(fact, "yellow")
            case _:
                assert_never(fact)

    def _round(self, fact: RoundClosed) -> None:
        value = fact.metrics.get(self._metric)
        metric = "" if value is None else f"{short(self._metric)} {number(self._metric, value)}"
        own = own_models(fact.metrics, self._metric)
        if fact.metrics and value is None and not self._unmeasured:
            self._unmeasured = True
            there = ", ".join(sorted(fact.metrics))
            self._line(f"nobody measures {self._metric}; measured are {there} (choose with --metric)", "yellow")
        loss = fact.metrics.get("loss", fact.loss)
        line = Text(f"round {fact.round:>3}  ")
        line.append(f"{metric:<10}{f'  {own}' if own else ''}", "bold green" if fact.best else "")
        line.append(f"  loss {loss:<7.3g}" if loss is not None else " " * 13)
        line.append(f" {f'{fact.answered}/{fact.asked}':>7}  ")
        notes = missing(fact)
        line.append(f"{notes:<28}", "yellow" if notes else "")
        line.append(f" {fact.seconds:>6.1f}s  down {size(fact.bytes_down):<7} up {size(fact.bytes_up)}", "dim")
        self._console.print(line, soft_wrap=True)

    def _turned_away(self, time: float, fact: StrangerRefused) -> None:
        """Show a stranger, unless there are so many that everything else would scroll away."""
        if time - self._second >= 1.0:
            self._say_unseen()
            self._second, self._strangers = time, 0
        self._strangers += 1
        if self._strangers <= _STRANGERS_SHOWN:
            self._say(fact, "yellow")

    def _say_unseen(self) -> None:
        if (unseen := self._strangers - _STRANGERS_SHOWN) > 0:
            self._line(f"turned away {unseen} more", "yellow")
        self._strangers = 0

    def _flush(self) -> None:
        """Say who came since the last round, and who went and did not come back."""
        self._say_unseen()
        new = [edge for edge in self._came if edge not in self._known]
        for word, edges in (("joined", new), ("back", [edge for edge in self._came if edge in self._known])):
            if edges:
                self._line(f"{word}: {names(edges, shown=10)} · {self._here} here", "dim")
        self._known.update(new)
        gone: dict[str, list[str]] = {}
        for edge, reason in self._went.items():
            if edge not in self._came:
                gone.setdefault(reason, []).append(edge)
        for reason, edges in gone.items():
            self._line(f"left: {names(edges, shown=10)} ({reason}) · {self._here} here", "dim")
        self._came.clear()
        self._went.clear()

    def _start_bar(self, what: str, total: int, note: str) -> None:
        self._stop_bar()
        self._task = self._bar.add_task(what, total=total, note=note)

    def _advance(self, completed: int) -> None:
        if self._task is not None:
            self._bar.update(self._task, completed=completed)

    def _stop_bar(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None

    def _say(self, fact: Fact, style: str = "", more: str = "") -> None:
        """Say a fact in the words that all views use, and what else there is to say here."""
        if said := sentence(fact, self._metric):
            self._line(said.text + more, style)

    def _line(self, text: str, style: str = "") -> None:
        self._console.print(Text(printable(text), style), soft_wrap=True)
