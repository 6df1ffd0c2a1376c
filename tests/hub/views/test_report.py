"""What came of a run is told as far as its record goes, and where that has gaps, so much is said."""

import io
import json

import pytest
from rich.console import Console

from hub.events import Stage
from hub.views.archive import Kept, Story
from hub.views.board import Head, State
from hub.views.report import report, to_json


def story(head: Head) -> Story:
    kept = Kept(name="1120-digits", folder="runs/1120-digits")
    return Story(kept=kept, state=State(head=head), answers={}, model="")


def told(head: Head) -> str:
    out = io.StringIO()
    Console(file=out, width=200).print(report(story(head)))
    return out.getvalue()


@pytest.mark.parametrize(("missed", "words"), [(1, "1 fact is missing"), (12, "12 facts are missing")])
def test_facts_that_are_missing_are_told(missed: int, words: str) -> None:
    assert f"{words}: the record has gaps" in told(Head(missed=missed))
    assert json.loads(to_json(story(Head(missed=missed))))["missed"] == missed
    assert "missing" not in told(Head())


def test_a_run_that_was_recorded_before_edges_said_what_they_do_has_no_seconds() -> None:
    old = told(Head(down=900, up=900, lost_bytes=180, fates={"accepted": 8, "late": 2}, spent={Stage.WAITING: 20.0}))
    assert "lost     180 B (10%) · 2 late" in old
    assert "waits" not in old
    new = told(Head(fates={"accepted": 8}, spent={Stage.WAITING: 5.0, Stage.TRAINING: 15.0}))
    assert "waits 5.0 s (25%) · trains 15 s (75%)" in new
    assert "0.00 s of 15 s of work (0%)" in new
