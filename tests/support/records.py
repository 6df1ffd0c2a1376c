"""Run folders with a record of what nobody played: to read and compare more kinds of runs than a test can play."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hub.events import Fact, RoundClosed, RunEnded, RunStarted, Stamped, to_line

MEGABYTE = 1_000_000


def started(*, algorithm: str = "fedavg", metric: str = "accuracy", round: int = 0, rounds: int = 9) -> RunStarted:
    """A hub begins, or goes on with, a run."""
    return RunStarted(
        run="r", name="one", algorithm=algorithm, parameters=9, model_bytes=36, model="0" * 64, round=round,
        rounds=rounds, metric=metric,
    )  # fmt: skip


def closed(number: int, metrics: Mapping[str, float]) -> RoundClosed:
    """A round counts; a megabyte went down, and a megabyte up."""
    return RoundClosed(
        round=number, attempt=1, outcome="everyone-answered", asked=2, answered=2, late=(), left=(), refused={},
        loss=0.5, metrics=dict(metrics), evaluated="central" if metrics else "", best=False, seconds=1.0,
        bytes_down=MEGABYTE, bytes_up=MEGABYTE, model="0" * 64,
    )  # fmt: skip


def ended(rounds: int) -> RunEnded:
    """The run is over."""
    return RunEnded(reason="all rounds are done", finished=True, rounds=rounds, model="0" * 64, seconds=float(rounds))


def recorded(folder: Path, facts: Iterable[Fact]) -> Path:
    """Make a run folder whose record says `facts`, a second after each other; give it."""
    folder.mkdir(parents=True)
    (folder / "journal.sqlite").touch()
    stamped = (Stamped(at, 1000.0 + at, fact) for at, fact in enumerate(facts, start=1))
    (folder / "events.jsonl").write_text("".join(f"{to_line(one)}\n" for one in stamped))
    return folder


def curve(
    folder: Path, values: Sequence[float], *, algorithm: str = "fedavg", metric: str = "accuracy", every: int = 1
) -> Path:
    """Make the folder of a finished run that measured `values`, one after every so many rounds."""
    rounds = len(values) * every
    closings = [
        closed(number, {metric: values[number // every - 1]} if number % every == 0 else {})
        for number in range(1, rounds + 1)
    ]
    return recorded(folder, [started(algorithm=algorithm, metric=metric, rounds=rounds), *closings, ended(rounds)])
