"""Tells TensorBoard and MLflow of each round, for people who compare many runs there."""

import asyncio
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from hub.events import RoundClosed, RunEnded, RunStarted
from hub.feed import Follower
from hub.views.board import Board, Row
from shared.console import printable, say
from shared.errors import ConfigError

_REST = 60.0  # seconds that a tracker is left alone after a failure


class Tracker(Protocol):
    """Where the numbers of one run go. Its methods may take their time, and may fail."""

    def add(self, round: int, at: float, scalars: Mapping[str, float]) -> None:
        """Take in what there is to say of a round that ended `at` so many seconds since 1970."""

    def end(self, at: float, *, finished: bool) -> None:
        """Take in that the run is over, for good or for now."""


Opener = Callable[[RunStarted, int, float], Tracker]
"""Gets a tracker ready for a run: what began or goes on, the first round that it will be told of, and the time."""


def trackers(names: Sequence[str], folder: Path) -> list[Callable[[Follower], Coroutine[None, None, None]]]:
    """Give a view for each of `names`, tensorboard or mlflow, of the run in `folder`.

    Raises:
        ConfigError: the package that one needs is not installed.
    """
    needs = {"tensorboard": "tensorboardX", "mlflow": "mlflow"}
    views = {"tensorboard": tensorboard, "mlflow": mlflow}
    for name in names:
        if find_spec(needs[name]) is None:
            raise ConfigError(f"track: {name} needs another package; try: pip install 'fedhub[{name}]'")
    return [partial(views[name], folder=folder) for name in dict.fromkeys(names)]


async def tensorboard(follower: Follower, folder: Path) -> None:
    """Write event files into `tensorboard` in the run's folder, until the feed ends."""

    def opener(run: RunStarted, first: int, at: float) -> Tracker:
        from hub.views.tensorboard import EventFile

        return EventFile(folder / "tensorboard", _settings(run), metric=_tag(run.metric), first=first, at=at)

    await _track(follower, "TensorBoard", opener)


async def mlflow(follower: Follower, folder: Path) -> None:
    """Tell MLflow, until the feed ends: the one at MLFLOW_TRACKING_URI, else `mlruns` beside the run's folder."""

    def opener(run: RunStarted, first: int, at: float) -> Tracker:
        from hub.views.mlflow import MlflowRun

        return MlflowRun(folder.absolute().parent / "mlruns", run.run, run.name, settings=_settings(run), at=at)

    await _track(follower, "MLflow", opener)


async def _track(follower: Follower, name: str, opener: Opener) -> None:
    """Tell a tracker of each round, in a thread: it may be slow or out of order, and the run shall not notice.

    What it misses is lost, as for any view that fails; `events.jsonl` has it all.
    """
    board = Board()
    run: RunStarted | None = None
    tracker: Tracker | None = None
    failed: float | None = None
    async for stamped in follower:
        board.take(stamped)
        fact, at = stamped.fact, stamped.time
        if isinstance(fact, RunStarted):
            run = fact
        if run is None or not isinstance(fact, RunStarted | RoundClosed | RunEnded):
            continue
        changes = board.changes()
        rows = changes.rows if changes else []
        if failed is not None and at < failed + _REST:
            continue
        try:
            if tracker is None:
                first = board.state.head.committed + 1 - len(rows)
                tracker = await asyncio.to_thread(opener, run, first, at)
            for row in rows:
                await asyncio.to_thread(tracker.add, row.number, at, _scalars(row))
            if isinstance(fact, RunEnded):
                await asyncio.to_thread(tracker.end, at, finished=fact.finished)
            failed = None
        except Exception as error:  # noqa: BLE001  # what goes wrong in there, whatever it is, is no reason to stop a run
            if failed is None:
                reason = printable(f"{type(error).__name__}: {error}").partition("\n")[0]
                say(f"cannot tell {name} of the run ({reason[:160]}); the run goes on, and it is tried again later")
            tracker, failed = None, at


def _settings(run: RunStarted) -> dict[str, str | float]:
    """Give what one run may have different from another."""
    return {
        "algorithm": run.algorithm,
        "rounds": run.rounds,
        "deadline": run.deadline,
        "parameters": run.parameters,
        "metric": run.metric,
    }


def _scalars(row: Row) -> dict[str, float]:
    """Give the numbers of a round under names that sort by unit."""
    return {
        **({} if row.loss is None else {"loss/training": row.loss}),
        **{_tag(name): value for name, value in row.metrics.items()},
        "edges/asked": row.asked,
        "edges/answered": row.answered,
        "edges/late": row.late,
        "edges/left": row.left,
        "edges/refused": row.refused,
        "seconds/round": row.seconds,
        **{f"seconds/{phase}": seconds for phase, seconds in row.phases.items()},
        **{f"edge-seconds/{stage}": seconds for stage, seconds in row.spent.items()},
        "edge-seconds/wasted": row.lost_seconds,
        "bytes/down": row.down,
        "bytes/up": row.up,
        "bytes/wasted": row.lost_bytes,
    }


def _tag(metric: str) -> str:
    """Name a metric so that any tracker takes it: edges make these names up."""
    return f"metric/{re.sub(r'[^A-Za-z0-9_-]', '_', metric)[:100] or '_'}"
