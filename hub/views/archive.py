"""Reads what runs left in their folders: fact by fact, as a list of runs, or as what came of one of them."""

import json
import math
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from hub.events import Fact, Missed, RoundAbandoned, RoundClosed, RunEnded, RunStarted, Stamped, UpdateAccepted
from hub.events import from_line as read_line
from hub.journal import look_at
from hub.views.board import Board, State
from shared.errors import ConfigError

_EVENTS, _JOURNAL, _CONFIG, _MODEL = "events.jsonl", "journal.sqlite", "config.json", "model.safetensors"
_LONGEST = 16 * 2**20  # bytes of a line: the cohort of a round with 100,000 edges takes half of that
_GIST: tuple[type[Fact], ...] = (RunStarted, RoundClosed, RoundAbandoned, RunEnded, Missed)
_SHARES = (0.95, 0.9, 0.75, 0.5, 0.25)

Standing = Literal["finished", "resumable", "running", "damaged"]


class Kept(msgspec.Struct, kw_only=True):
    """A run folder, in numbers."""

    name: str
    folder: str
    standing: Standing = "resumable"
    why: str = ""
    """What is damaged."""
    run: str = ""
    app: str = ""
    algorithm: str = ""
    began: float = 0.0
    """Seconds since 1970."""
    rounds: int = 0
    """Committed."""
    planned: int = 0
    metric: str = ""
    best: float | None = None
    best_round: int = 0
    last: float | None = None
    loss: float | None = None
    seconds: float = 0.0
    """In which a hub worked on it."""
    bytes_down: int = 0
    bytes_up: int = 0
    missed: int = 0
    """Facts that its record lacks."""


class Story(msgspec.Struct):
    """What came of a run."""

    kept: Kept
    state: State
    answers: dict[str, list[float]]
    """Seconds from being asked to each answer that counted, by edge, shortest first."""
    model: str
    """The file with the final model; empty if there is none yet."""

    def within(self) -> tuple[float, float] | None:
        """Give a share of the asked edges and the seconds in which they answered; None if hardly any did.

        Whoever was asked and did not answer counts as not answering; so the share is the largest round one there is.
        """
        times = sorted(seconds for answers in self.answers.values() for seconds in answers)
        asked = max(len(times), sum(self.state.head.fates.values()))
        for share in _SHARES:
            if times and len(times) >= (needed := math.ceil(share * asked)):
                return share, times[needed - 1]
        return None


def read_facts(file: Path, *, only: tuple[type[Fact], ...] = ()) -> Iterator[Stamped]:
    """Give the facts in `file` one by one; a `Missed` stands where some cannot be read (a newer release's, a rotten
    line). A last line that is only half there is being written, or never was.

    Args:
        file: the `events.jsonl` of a run.
        only: the kinds to read, if not all: the others are passed over ten times as fast.

    Raises:
        ConfigError: the file cannot be read.
    """
    marks = [f'"event":"{kind.__name__}"'.encode() for kind in only]
    last, unread = Stamped(0, 0.0, Missed(count=0)), 0
    try:
        with file.open("rb") as lines:
            while line := lines.readline(_LONGEST):
                if marks and not any(mark in line for mark in marks):
                    continue
                if stamped := fact_of(line):
                    if unread:
                        yield Stamped(last.seq + 1, stamped.time, Missed(count=unread))
                    last, unread = stamped, 0
                    yield stamped
                elif line.endswith(b"\n") and line.strip():
                    unread += 1
    except OSError as error:
        raise ConfigError(f"cannot read {file} ({error.strerror})") from None
    if unread:
        yield Stamped(last.seq + 1, last.time, Missed(count=unread))


def fact_of(line: str | bytes) -> Stamped | None:
    """Read a line of `events.jsonl`; None if it is not one that this release knows."""
    try:
        return read_line(line)
    except (ValueError, RecursionError):  # the latter is msgspec's answer to a line of brackets
        return None


def board_of(folder: Path) -> Board:
    """Give the board that a run folder's facts lead to.

    Raises:
        ConfigError: it is not a run folder, or nothing can be read there.
    """
    if not is_run(folder):
        raise ConfigError(f"{folder} is not a run folder; fedhub runs lists them")
    return Board.of(read_facts(folder / _EVENTS))


def story_of(folder: Path) -> Story:
    """Tell what came of the run in `folder`.

    Raises:
        ConfigError: it is not a run folder, or nothing can be read there.
    """
    if not is_run(folder):
        raise ConfigError(f"{folder} is not a run folder; fedhub runs lists them")
    answers: dict[str, array[float]] = {}

    def noted() -> Iterator[Stamped]:
        for stamped in read_facts(folder / _EVENTS):
            if isinstance(stamped.fact, UpdateAccepted):
                answers.setdefault(stamped.fact.edge, array("d")).append(stamped.fact.seconds)
            yield stamped

    state = Board.of(noted()).state
    model = folder / _MODEL
    return Story(
        kept=kept_in(folder),
        state=state,
        answers={edge: sorted(times) for edge, times in answers.items()},
        model=str(model) if model.is_file() else "",
    )


def runs(folder: Path) -> list[Kept]:
    """List the runs in `folder`, newest first; one that is damaged says how.

    Raises:
        ConfigError: the folder cannot be read.
    """
    try:
        found = [kept_in(one) for one in folder.iterdir() if is_run(one)] if folder.exists() else []
    except OSError as error:
        raise ConfigError(f"cannot read {folder} ({error.strerror})") from None
    return sorted(found, key=lambda kept: (-kept.began, kept.name))


def find(run: str, folder: Path) -> Path:
    """Find a run: by its folder, by its name in `folder`, or the newest one if `run` is empty.

    Raises:
        ConfigError: there is none.
    """
    if run:
        for place in (Path(run), folder / run):
            if is_run(place):
                return place
        raise ConfigError(f"{run} is not a run folder; fedhub runs lists them")
    if there := runs(folder):
        return Path(there[0].folder)
    raise ConfigError(f"there is no run in {folder} yet; fedhub demo makes one")


def is_run(folder: Path) -> bool:
    """Tell whether a run was begun in `folder`."""
    return any((folder / name).is_file() for name in (_JOURNAL, _EVENTS))


def kept_in(folder: Path, *, note: Callable[[Fact, Kept], None] = lambda fact, kept: None) -> Kept:
    """Say of a run folder what a list of runs says.

    Args:
        folder: the run's.
        note: told each fact that counts here, with what the run came to up to then, that fact included.
    """
    kept = Kept(name=folder.name, folder=str(folder), app=_app(folder))
    try:
        _add_up(folder, kept, note)
    except ConfigError as error:
        kept.why = str(error)
    locked, damage = look_at(folder)
    kept.why = kept.why or damage or ("" if kept.run else f"{_EVENTS} says nothing of a run")
    if kept.why:
        kept.standing = "damaged"
    elif locked:
        kept.standing = "running"
    return kept


def _add_up(folder: Path, kept: Kept, note: Callable[[Fact, Kept], None]) -> None:
    since = 0.0
    for stamped in read_facts(folder / _EVENTS, only=_GIST):
        fact = stamped.fact
        if not isinstance(fact, RunStarted):  # before which there was no hub
            kept.seconds += max(0.0, stamped.time - since)
        since = stamped.time
        match fact:
            case RunStarted():
                kept.run, kept.algorithm, kept.metric = fact.run, fact.algorithm, fact.metric
                kept.rounds, kept.planned, kept.standing = fact.round, fact.rounds, "resumable"
                kept.began = kept.began or stamped.time
            case RoundClosed():
                kept.rounds, kept.loss = fact.round, fact.metrics.get("loss", fact.loss)
                kept.last = fact.metrics.get(kept.metric, kept.last)
                if fact.best:
                    kept.best, kept.best_round = fact.metrics.get(kept.metric), fact.round
            case RunEnded():
                kept.rounds, kept.standing = fact.rounds, "finished" if fact.finished else "resumable"
            case Missed():
                kept.missed += fact.count
            case _:
                pass
        if isinstance(fact, RoundClosed | RoundAbandoned):
            kept.bytes_down, kept.bytes_up = kept.bytes_down + fact.bytes_down, kept.bytes_up + fact.bytes_up
        note(fact, kept)


def _app(folder: Path) -> str:
    """Give the name of the app, if it was written down: that file is for people, and no run depends on it."""
    try:
        return Path(json.loads((folder / _CONFIG).read_text("utf-8"))["app"]).stem
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
