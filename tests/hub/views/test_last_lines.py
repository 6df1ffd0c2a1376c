"""What the log says of measurements that nobody makes, and the last lines of figures that cannot be held together."""

import io
from pathlib import Path

from rich.console import Console

from hub.events import RoundClosed, RunStarted, Stamped
from hub.rules.rounds import Outcome
from hub.views.log import PrettyLog
from hub.views.summary import Summary, closing_words

STARTED = RunStarted(
    run="r", name="run", algorithm="fedavg", parameters=1, model_bytes=4, model="0" * 64, round=0, rounds=2,
    metric="f1", deadline=1.0,
)  # fmt: skip


def closed(round: int, metrics: dict[str, float], *, evaluated: str = "central") -> RoundClosed:
    return RoundClosed(
        round=round, attempt=1, outcome=Outcome.EVERYONE_ANSWERED, asked=1, answered=1, late=(), left=(), refused={},
        loss=1.0, metrics=metrics, evaluated=evaluated, best=False, seconds=1.0, bytes_down=1, bytes_up=1,
        model="0" * 64,
    )  # type: ignore[arg-type]  # fmt: skip


def test_a_measurement_that_nobody_makes_is_told_once() -> None:
    out = io.StringIO()
    with PrettyLog(Console(file=out, width=200)) as log:
        for seq, fact in enumerate((STARTED, closed(1, {"accuracy": 0.5, "loss": 1.0}), closed(2, {"accuracy": 0.6}))):
            log.take(Stamped(seq, float(seq), fact))
    said = [line for line in out.getvalue().splitlines() if "nobody" in line]
    assert said == ["nobody measures f1; measured are accuracy, loss (choose with --metric)"]


def test_what_edges_measured_is_not_set_beside_the_test_data_without_a_word() -> None:
    for by, told in (("federated", True), ("central", False)):
        summary = Summary()
        summary.take(STARTED)
        summary.take(closed(1, {"f1": 0.5}, evaluated=by))
        lines = closing_words(summary, Path("run"), compared={"alone": 0.2, "centralised": 0.6}, finished=True)
        assert any("on what edges hold out" in line for line in lines) == told
