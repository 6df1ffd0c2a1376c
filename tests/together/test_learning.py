"""Runs learn what they must, as typed: the rows of the table of results that take seconds, each by its command."""

from pathlib import Path

import pytest

from tests.benchmarks.curves import ROWS, play

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.skipif(not (DATA / "MNIST" / "raw").is_dir(), reason=f"needs the MNIST files in {DATA / 'MNIST' / 'raw'}")
def test_softmax_regression_reads_nine_of_ten_digits_of_mnist_after_20_rounds() -> None:
    played = play(ROWS["softmax"], data=str(DATA), seed=0)
    assert len(played.accuracies) == 20
    assert ROWS["softmax"].reached(played), played


def test_three_hostile_edges_of_ten_drive_a_mean_away_and_a_trimmed_mean_learns_all_the_same() -> None:
    mean, trimmed = (play(ROWS[name], seed=0) for name in ("digits-mean", "digits-trimmed"))
    assert ROWS["digits-mean"].reached(mean), mean
    assert ROWS["digits-trimmed"].reached(trimmed), trimmed
    assert trimmed.accuracies[0] < trimmed.accuracies[-1]
