"""Real hubs, killed in the middle of whatever they do; `python -m tests.crash --kills 1000` does it longer."""

import os
import signal
from pathlib import Path

import pytest

from tests.crash import kill_loop

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")


async def test_forty_kills_lose_no_round_train_nothing_twice_and_change_no_bit_of_the_model(tmp_path: Path) -> None:
    report = await kill_loop(tmp_path, kills=40, seed=0)
    assert report.rounds > 10
    assert report.mid_round > 0  # some hit a round with answers in it, and the next hub went on with them
    assert (report.lost, report.trained_twice) == (0, 0)
    assert report.same_model
    assert report.proved > 0


async def test_a_hub_that_is_told_to_stop_at_any_instant_stops_soon_and_loses_nothing(tmp_path: Path) -> None:
    report = await kill_loop(tmp_path, kills=8, seed=0, number=signal.SIGTERM)
    assert report.lost == 0
    assert report.slowest_exit < 30
