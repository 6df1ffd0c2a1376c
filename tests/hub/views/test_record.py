"""Every fact is kept as a line of its own, whatever a crash or a disk has done to the file before."""

import asyncio
from pathlib import Path

import pytest

from hub.events import Missed, from_line
from hub.feed import Feed
from hub.views.record import record


async def recorded(file: Path, *counts: int) -> None:
    feed = Feed()
    recording = asyncio.create_task(record(feed.follow(), file))
    for count in counts:
        feed.publish(Missed(count=count))
    feed.close()
    await recording


async def test_facts_are_appended_line_by_line(tmp_path: Path) -> None:
    await recorded(tmp_path / "events.jsonl", 1, 2)
    await recorded(tmp_path / "events.jsonl", 3)
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [from_line(line).fact for line in lines] == [Missed(count=1), Missed(count=2), Missed(count=3)]


async def test_a_line_that_a_crash_cut_short_spoils_no_other(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    await recorded(file, 1)
    file.write_bytes(file.read_bytes() + b'{"seq":2,"ti')
    await recorded(file, 3)
    whole = [line for line in file.read_text().splitlines() if line.endswith("}}")]
    assert [from_line(line).fact for line in whole] == [Missed(count=1), Missed(count=3)]


async def test_a_file_that_cannot_be_written_is_told_once_and_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "events.jsonl").mkdir()
    await recorded(tmp_path / "events.jsonl", 1, 2, 3)
    assert capsys.readouterr().err.count("not recorded") == 1
