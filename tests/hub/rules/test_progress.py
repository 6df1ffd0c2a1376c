"""A run ends at its target, when nothing improves any more, or after its last round, and says which."""

import math

import pytest

from hub.rules.progress import Progress


def progress(metric: str = "accuracy", *, rounds: int = 20, target: float | None = None, patience: int = 0) -> Progress:
    return Progress(rounds, metric, target, patience)


def test_a_run_goes_on_until_its_last_round() -> None:
    run = progress(rounds=3)
    assert run.finished(0) is None
    assert run.finished(2) is None
    assert run.finished(3) == "all 3 rounds are done"
    assert run.finished(4) == "4 rounds are done, 3 were planned"


def test_the_best_is_remembered_with_its_round() -> None:
    run = progress()
    assert run.note(1, {"accuracy": 0.5, "loss": 9.0})
    assert not run.note(2, {"accuracy": 0.4})
    assert not run.note(3, {"accuracy": 0.5})
    assert run.note(4, {"accuracy": 0.6})
    assert (run.best, run.best_round) == (0.6, 4)


@pytest.mark.parametrize("metric", ["loss", "test_loss", "Error", "perplexity", "val-LOSS"])
def test_of_losses_and_errors_the_smaller_is_better(metric: str) -> None:
    run = progress(metric)
    assert run.note(1, {metric: 2.0})
    assert not run.note(2, {metric: 3.0})
    assert run.note(3, {metric: 1.0})


def test_an_evaluation_without_the_metric_changes_nothing() -> None:
    run = progress(patience=1)
    run.note(1, {"accuracy": 0.5})
    assert not run.note(2, {"loss": 0.1})
    assert not run.note(3, {})
    assert run.best == 0.5
    assert run.finished(3) is None


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_what_is_not_a_number_is_never_the_best_and_reaches_no_target(metric: str) -> None:
    run = progress(metric, target=0.5)
    assert not run.note(1, {metric: math.nan})
    assert run.best is None
    assert run.finished(1) is None
    assert run.note(2, {metric: 0.7 if metric == "loss" else 0.3})


@pytest.mark.parametrize(("metric", "values"), [("accuracy", (0.89, 0.9)), ("loss", (0.91, 0.9))])
def test_the_target_ends_the_run_when_it_is_reached_exactly(metric: str, values: tuple[float, float]) -> None:
    run = progress(metric, target=0.9)
    assert run.finished(0) is None
    run.note(1, {metric: values[0]})
    assert run.finished(1) is None
    run.note(2, {metric: values[1]})
    assert run.finished(2) == f"{metric} 0.9 reached the target 0.9 in round 2"


def test_patience_ends_when_so_many_evaluations_brought_nothing_better() -> None:
    run = progress(patience=2)
    run.note(1, {"accuracy": 0.5})
    run.note(2, {"accuracy": 0.5})
    assert run.finished(2) is None
    run.note(3, {"accuracy": 0.4})
    assert run.finished(3) == "accuracy has not improved for 2 rounds (best 0.5)"


def test_something_better_renews_patience() -> None:
    run = progress(patience=2)
    for round, accuracy in enumerate((0.5, 0.4, 0.6, 0.5), start=1):
        run.note(round, {"accuracy": accuracy})
        assert run.finished(round) is None


def test_without_patience_nothing_is_too_long() -> None:
    run = progress(rounds=100)
    run.note(1, {"accuracy": 0.5})
    for round in range(2, 99):
        run.note(round, {"accuracy": 0.1})
        assert run.finished(round) is None
