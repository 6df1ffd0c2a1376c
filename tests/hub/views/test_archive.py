"""What runs left in their folders is read as it is: whole, torn, damaged, or still being written."""

import itertools
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest

from hub.events import EdgeJoined, Fact, Missed, RoundClosed, RunStarted, Stamped, UpdateAccepted, to_line
from hub.views.archive import board_of, find, kept_in, read_facts, runs, story_of
from hub.views.board import Board
from shared.errors import ConfigError
from tests.support.federation import Adder, agent, edges, raw_edge, running_hub

STARTED = RunStarted(
    run="r", name="one", algorithm="fedavg", parameters=9, model_bytes=36, model="0" * 64, round=0, rounds=3,
    metric="accuracy",
)  # fmt: skip


def accepted(edge: str, seconds: float) -> Fact:
    return UpdateAccepted(round=1, edge=edge, examples=1, weight=1, loss=0.5, seconds=seconds, nbytes=10)


def closed(number: int, accuracy: float, *, best: bool) -> Fact:
    return RoundClosed(
        round=number, attempt=1, outcome="everyone-answered", asked=4, answered=2, late=(), left=(), refused={},
        loss=0.5, metrics={"accuracy": accuracy}, evaluated="central", best=best, seconds=1.0, bytes_down=10,
        bytes_up=20, model="0" * 64,
    )  # fmt: skip


def lines(facts: Sequence[Fact]) -> str:
    return "".join(f"{to_line(Stamped(at, 1000.0 + at, fact))}\n" for at, fact in enumerate(facts, start=1))


def command(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hub", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_all_that_was_recorded_is_read(tmp_path: Path) -> None:
    facts = [STARTED, accepted("a", 1.0), closed(1, 0.5, best=True)]
    (tmp_path / "events.jsonl").write_text(lines(facts))
    assert [stamped.fact for stamped in read_facts(tmp_path / "events.jsonl")] == facts


def test_a_last_line_that_is_half_there_is_left_out(tmp_path: Path) -> None:
    whole = lines([STARTED, accepted("a", 1.0)])
    for cut in range(1, len(lines([accepted("a", 1.0)]))):
        (tmp_path / "events.jsonl").write_text(whole[:-cut])
        facts = [stamped.fact for stamped in read_facts(tmp_path / "events.jsonl")]
        assert facts == [STARTED] if cut > 1 else [STARTED, accepted("a", 1.0)]


def test_lines_that_cannot_be_read_are_counted_where_they_are(tmp_path: Path) -> None:
    strange = [
        b'{"seq":2,"time":1.0,"fact":{"event":"OfANewerRelease","what":1}}',
        b"\xff\x00 rotten \xfe",
        b'{"seq":1,"x":' + b"[" * 100_000,
    ]
    first, last = (lines([fact]).encode() for fact in (STARTED, accepted("a", 1.0)))
    (tmp_path / "events.jsonl").write_bytes(first + b"\n\n" + b"\n".join(strange) + b"\n" + last + strange[0] + b"\n")
    facts = [stamped.fact for stamped in read_facts(tmp_path / "events.jsonl")]
    assert facts == [STARTED, Missed(count=3), accepted("a", 1.0), Missed(count=1)]


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text(lines([STARTED, accepted("RunStarted", 1.0), closed(1, 0.5, best=True)]))
    read = read_facts(tmp_path / "events.jsonl", only=(RunStarted, RoundClosed))
    assert [type(stamped.fact) for stamped in read] == [RunStarted, RoundClosed]


def test_reading_takes_no_more_memory_for_a_long_run(tmp_path: Path) -> None:
    with (tmp_path / "events.jsonl").open("w") as file:
        for _ in range(100):
            file.write(lines([accepted(f"edge-{number}", 1.0) for number in range(200)]))
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_facts(tmp_path / "events.jsonl")) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


async def test_the_board_of_a_run_is_that_of_its_facts(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rounds=3) as hub, edges(agent(hub.url, "a", Adder())):
        await hub.ended()
    board = board_of(hub.folder)
    assert board.state.head.phase == "ended"
    assert [row.number for row in board.state.rows] == [1, 2, 3]
    assert board.state.edges["a"].fates == {"accepted": 3}
    assert board.state == Board.of(list(read_facts(hub.folder / "events.jsonl"))).state


async def test_each_run_says_how_it_stands(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rounds=2, name="done") as hub, edges(agent(hub.url, "a", Adder())):
        await hub.ended()
    async with running_hub(tmp_path, rounds=5, name="stopped") as hub, raw_edge(hub.url, "a") as edge:
        await edge.answer(await edge.train())
        await edge.train()
        hub.hub.stop()
        await hub.ended()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "journal.sqlite").write_bytes(b"no database at all" * 100)
    (tmp_path / "damaged" / "events.jsonl").write_text(lines([STARTED, closed(1, 0.5, best=True)]))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "journal.sqlite").touch()
    (tmp_path / "something else").mkdir()
    async with running_hub(tmp_path, rounds=1, name="running") as hub, raw_edge(hub.url, "a") as edge:
        await edge.train()
        found = {kept.name: kept for kept in runs(tmp_path)}
    assert {name: kept.standing for name, kept in found.items()} == {
        "running": "running", "stopped": "resumable", "done": "finished", "damaged": "damaged", "empty": "damaged",
    }  # fmt: skip
    assert found["damaged"].why == "journal.sqlite is damaged"
    assert "events.jsonl" in found["empty"].why
    assert (found["done"].rounds, found["done"].planned, found["done"].app) == (2, 2, "test")
    assert (found["stopped"].rounds, found["stopped"].planned) == (1, 5)
    assert found["done"].bytes_up > 0
    order = list(found)
    assert order[:3] == ["running", "stopped", "done"], "newest first"


def test_best_and_last_time_and_bytes_are_those_of_all_the_hubs_that_worked_on_a_run(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").touch()
    first = [STARTED, closed(1, 0.5, best=True), closed(2, 0.9, best=True)]  # killed after 2 s
    again = [Stamped(1, 5000.0, STARTED), Stamped(2, 5003.0, closed(3, 0.8, best=False))]
    (tmp_path / "events.jsonl").write_text(lines(first) + "".join(f"{to_line(one)}\n" for one in again))
    kept = kept_in(tmp_path)
    assert (kept.best, kept.best_round, kept.last) == (0.9, 2, 0.8)
    assert (kept.began, kept.seconds, kept.bytes_down, kept.bytes_up) == (1001.0, 5.0, 30, 60)
    assert kept.standing == "resumable"


def test_looking_at_runs_changes_nothing_in_them(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "journal.sqlite").touch()
    (tmp_path / "one" / "events.jsonl").write_text(lines([STARTED])[:-9])
    before = {path: path.stat() for path in tmp_path.rglob("*")}
    runs(tmp_path)
    story_of(tmp_path / "one")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == {
        path: stat.st_mtime_ns for path, stat in before.items()
    }


def test_a_run_is_found_by_folder_by_name_or_as_the_newest(tmp_path: Path) -> None:
    for at, name in enumerate(("one", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "events.jsonl").write_text(f"{to_line(Stamped(1, 1000.0 + at, STARTED))}\n")
    assert find("one", tmp_path) == tmp_path / "one"
    assert find(str(tmp_path / "one"), Path("elsewhere")) == tmp_path / "one"
    assert find("", tmp_path) == tmp_path / "two"
    with pytest.raises(ConfigError, match="three is not a run folder; fedhub runs lists them"):
        find("three", tmp_path)
    with pytest.raises(ConfigError, match="no run in"):
        find("", tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="is not a run folder"):
        board_of(tmp_path)
    with pytest.raises(ConfigError, match="cannot read"):
        list(read_facts(tmp_path / "events.jsonl"))


@pytest.mark.parametrize(
    ("answered", "asked", "within"),
    [(100, 100, (0.95, 95.0)), (96, 100, (0.95, 95.0)), (94, 100, (0.9, 90.0)), (50, 100, (0.5, 50.0)), (9, 100, None)],
)
def test_whoever_never_answered_counts_as_not_answering(
    tmp_path: Path, answered: int, asked: int, within: tuple[float, float] | None
) -> None:
    (tmp_path / "events.jsonl").write_text(lines([accepted(f"e{at}", float(at)) for at in range(1, answered + 1)]))
    story = story_of(tmp_path)
    story.state.head.fates = {"accepted": answered, "late": asked - answered}
    assert story.within() == within


async def test_the_commands_tell_what_is_kept(tmp_path: Path) -> None:
    async with running_hub(tmp_path / "kept", rounds=3) as hub, edges(agent(hub.url, "laptop", Adder())):
        await hub.ended()

    listed = command("runs", "--runs", "kept", folder=tmp_path)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["run", "run"]
    assert "3/3" in listed.stdout
    assert "finished" in listed.stdout
    (line,) = command("runs", "--json", folder=tmp_path, FEDHUB_RUNS="kept").stdout.splitlines()
    assert json.loads(line)["rounds"] == 3

    shown = command("show", "run", "--runs", "kept", folder=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "\x1b" not in shown.stdout
    assert "3 of 3 rounds" in shown.stdout
    assert "100%" in shown.stdout, "of the model is the laptop's"
    assert "95% answer within" in shown.stdout
    assert str(Path("kept/run/model.safetensors")) in shown.stdout
    told = json.loads(command("show", "--json", folder=tmp_path, FEDHUB_RUNS="kept").stdout)
    assert [one["number"] for one in told["history"]] == [1, 2, 3]
    assert told["edges"]["laptop"]["fates"] == {"accepted": 3}


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["show", "nothing"], 2, "nothing is not a run folder; fedhub runs lists them"),
        (["show"], 2, "there is no run in runs yet; fedhub demo makes one"),
        (["runs"], 0, "there is no run in runs yet; fedhub demo makes one"),
    ],
)
def test_where_there_is_nothing_a_sentence_says_so(
    tmp_path: Path, arguments: list[str], code: int, sentence: str
) -> None:
    done = command(*arguments, folder=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert sentence in done.stderr


def test_of_very_many_rounds_and_edges_a_table_shows_some_and_says_so(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "long"
    run.mkdir(parents=True)
    facts = [
        STARTED,
        *(
            EdgeJoined(edge=f"e{at}", role="trainer", agent="", examples=1, data_bytes=1, here=at, kind="[red]phone")
            for at in range(300)
        ),
        *itertools.chain(closed(at, 0.5, best=at == 77) for at in range(1, 501)),
    ]
    (run / "events.jsonl").write_text(lines(facts))
    shown = command("show", "long", folder=tmp_path).stdout
    assert len(shown.splitlines()) < 160
    assert "of 500 rounds" in shown
    assert "of 300 edges" in shown
    assert "[red]phone" in shown
    assert any(line.split()[:1] == ["77"] for line in shown.splitlines()), "the best one"
    assert any(line.split()[:1] == ["500"] for line in shown.splitlines()), "the last one"
