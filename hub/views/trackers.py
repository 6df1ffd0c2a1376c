"""Tells TensorBoard and MLflow of each round, for people who compare many runs there."""

import asyncio
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Protocol, TypeVar

from hub.events import RoundClosed, RunEnded, RunStarted
from hub.feed import Follower
from hub.views.board import Board, Row
from shared.console import printable, say
from shared.errors import ConfigError

_REST = 60.0  # seconds that a tracker is left alone after a failure
_PATIENCE = 5.0  # seconds that a tracker has to take in what is left when the run is over
_MOST_DUE = 2000  # rounds that wait for a tracker; of more, the oldest are lost

_NEEDS = {"tensorboard": "tensorboardX", "mlflow": "mlflow"}

T = TypeVar("T")


class Tracker(Protocol):
    """Where the numbers of one run go. Its methods may take their time, and may fail."""

    def add(self, round: int, at: float, scalars: Mapping[str, float]) -> None:
        """Take in what there is to say of a round that ended `at` so many seconds since 1970."""

    def end(self, at: float, *, finished: bool) -> None:
        """Take in that the run is over, for good or for now."""


Opener = Callable[[RunStarted, int, float], Tracker]
"""Gets a tracker ready for a run: what began or goes on, the first round that it will be told of, and the time."""


def check_trackers(names: Sequence[str]) -> None:
    """See that each of `names`, tensorboard or mlflow, can be told of a run, without loading it.

    Raises:
        ConfigError: the package that one needs is not installed.
    """
    for name in names:
        if find_spec(_NEEDS[name]) is None:
            raise ConfigError(f"track: {name} needs another package; try: pip install 'fedhub[{name}]'")


def trackers(names: Sequence[str], folder: Path) -> list[Callable[[Follower], Coroutine[None, None, None]]]:
    """Give a view for each of `names`, tensorboard or mlflow, of the run in `folder`.

    Raises:
        ConfigError: the package that one needs is not installed.
    """
    check_trackers(names)
    views = {"tensorboard": tensorboard, "mlflow": mlflow}
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


@dataclass(frozen=True)
class _Due:
    """What a tracker is to be told of next."""

    run: RunStarted
    at: float
    """Seconds since 1970."""
    first: int
    """The first round that it is told of, if it is told of none yet."""
    row: Row | None = None
    """The round that is over, if one is."""
    ended: RunEnded | None = None


async def _track(follower: Follower, name: str, opener: Opener) -> None:
    """Tell a tracker of each round, until the feed ends; one that has not taken it all in soon after is left behind.

    What it misses is lost, as for any view that fails; `events.jsonl` has it all.
    """
    board = Board()
    run: RunStarted | None = None
    due: asyncio.Queue[_Due | None] = asyncio.Queue()
    telling = asyncio.create_task(_tell(due, name, opener))
    try:
        async for stamped in follower:
            board.take(stamped)
            board.forget_changes()  # nobody looks, and what is to be shown must not pile up
            fact = stamped.fact
            if isinstance(fact, RunStarted):
                run = fact
            if run is None or not isinstance(fact, RunStarted | RoundClosed | RunEnded):
                continue
            row = board.state.rows[-1] if isinstance(fact, RoundClosed) else None
            first = row.number if row else board.state.head.committed + 1
            while due.qsize() >= _MOST_DUE:
                due.get_nowait()
            due.put_nowait(_Due(run, stamped.time, first, row, fact if isinstance(fact, RunEnded) else None))
        due.put_nowait(None)
        await asyncio.wait([telling], timeout=_PATIENCE)
        if telling.done():
            telling.result()
        else:
            say(f"{name} does not answer: it is left behind, and may lack the last rounds (events.jsonl has them)")
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)


async def _tell(due: "asyncio.Queue[_Due | None]", name: str, opener: Opener) -> None:
    """Tell a tracker what is due, in its own time: it may be slow or out of order, and the run shall not notice."""
    tracker: Tracker | None = None
    failed: float | None = None
    while one := await due.get():
        if failed is not None and one.at < failed + _REST:
            continue
        try:
            if tracker is None:
                tracker = await _aside(partial(opener, one.run, one.first, one.at))
            if one.row:
                await _aside(partial(tracker.add, one.row.number, one.at, _scalars(one.row)))
            if one.ended:
                await _aside(partial(tracker.end, one.at, finished=one.ended.finished))
            failed = None
        except Exception as error:  # noqa: BLE001  # what goes wrong in there, whatever it is, is no reason to stop a run
            if failed is None:
                reason = printable(f"{type(error).__name__}: {error}").partition("\n")[0]
                say(f"cannot tell {name} of the run ({reason[:160]}); the run goes on, and it is tried again later")
            tracker, failed = None, one.at


async def _aside(call: Callable[[], T]) -> T:
    """Have `call` done by a thread of its own, which ends with the process: one of asyncio's would be waited for."""
    answer: Future[T] = Future()
    answer.set_running_or_notify_cancel()  # nobody can cancel it from now on: it may be answered when nobody waits

    def work() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:  # noqa: BLE001  # it is for whoever waits
            answer.set_exception(error)

    Thread(target=work, name="tracker", daemon=True).start()
    return await asyncio.wrap_future(answer)


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
