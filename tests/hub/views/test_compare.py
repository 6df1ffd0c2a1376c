"""Runs stand side by side: how good they got, and what each of them took to get as far as a target."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from hub.events import EdgeJoined, RoundAbandoned
from hub.views.compare import Comparison, Curve, Point, compare, side_by_side
from shared.errors import ConfigError
from shared.messages import Role
from tests.support.federation import Adder, agent, edges, raw_edge, running_hub
from tests.support.records import MEGABYTE, closed, curve, ended, recorded, started


def command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hub", "compare", *arguments],
        cwd=folder,
        env={**os.environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def told(comparison: Comparison, *, width: int = 200, chart: bool = False) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(side_by_side(comparison, width, chart=chart))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def only(comparison: Comparison) -> Curve:
    (run,) = comparison.runs
    return run


def test_a_run_has_its_best_its_last_and_what_it_took_to_the_target(tmp_path: Path) -> None:
    run = only(compare([curve(tmp_path / "one", [0.5, 0.7, 0.9, 0.8])], target=0.7))
    assert (run.best.value, run.best.round, run.points[-1].value) == (0.9, 3, 0.8)
    assert run.to_target == Point(round=2, value=0.7, nbytes=4 * MEGABYTE, seconds=2.0)
    assert [point.round for point in run.points] == [1, 2, 3, 4]
    assert (run.kept.bytes_down + run.kept.bytes_up, run.kept.seconds) == (8 * MEGABYTE, 5.0)


def test_unless_one_is_chosen_the_target_is_what_all_runs_reached(tmp_path: Path) -> None:
    folders = [curve(tmp_path / "good", [0.5, 0.9]), curve(tmp_path / "bad", [0.6, 0.5])]
    found = compare(folders)
    assert (found.target, found.chosen) == (0.6, False)
    assert [run.to_target.round for run in found.runs if run.to_target] == [2, 1]
    assert "target: accuracy 60.0%, the worst of the runs' bests; --target chooses another" in told(found)
    assert "target: accuracy 90.0%, the best of this run; --target chooses another" in told(compare(folders[:1]))
    assert "target: accuracy 50.0%" in told(compare(folders, target=0.5))


def test_of_a_loss_the_smaller_is_better(tmp_path: Path) -> None:
    folders = [
        curve(tmp_path / name, values, metric="test_loss") for name, values in {"a": [3, 1, 2], "b": [4, 2]}.items()
    ]
    found = compare(folders)
    assert [(run.best.value, run.best.round) for run in found.runs] == [(1, 2), (2, 2)]
    assert found.target == 2
    assert [run.to_target.round for run in found.runs if run.to_target] == [2, 2]


def test_a_target_that_a_run_did_not_reach_is_a_dash_and_a_note(tmp_path: Path) -> None:
    folders = [curve(tmp_path / "good", [0.5, 0.9]), curve(tmp_path / "bad", [0.6, 0.5])]
    some, none = told(compare(folders, target=0.8)), told(compare(folders, target=0.99))
    assert [line.split().count("-") for line in some[1:3]] == [0, 3]
    assert "not reached by bad" in some
    assert [line.split().count("-") for line in none[1:3]] == [3, 3]
    assert "no run has reached it" in none


def test_rounds_that_were_not_measured_are_counted_and_paid_for(tmp_path: Path) -> None:
    run = only(compare([curve(tmp_path / "one", [0.5, 0.9], every=3)], target=0.9))
    assert [point.round for point in run.points] == [3, 6]
    assert run.to_target == Point(round=6, value=0.9, nbytes=12 * MEGABYTE, seconds=6.0)


def test_a_try_that_came_to_nothing_is_paid_for_too(tmp_path: Path) -> None:
    abandoned = RoundAbandoned(
        round=1, attempt=1, asked=2, answered=0, needed=1, again=True, bytes_down=MEGABYTE, bytes_up=0, late=(),
        left=(), refused={},
    )  # fmt: skip
    run = only(compare([recorded(tmp_path / "one", [started(), abandoned, closed(1, {"accuracy": 0.5})])]))
    assert run.points == [Point(round=1, value=0.5, nbytes=3 * MEGABYTE, seconds=2.0)]


def test_of_rounds_that_were_played_twice_the_last_word_counts(tmp_path: Path) -> None:
    first = [started(), *(closed(number, {"accuracy": 0.9}) for number in (1, 2, 3))]
    again = [started(round=1), *(closed(number, {"accuracy": 0.5}) for number in (2, 3)), ended(3)]
    run = only(compare([recorded(tmp_path / "whole", [*first, *again])]))
    assert [(point.round, point.value) for point in run.points] == [(1, 0.9), (2, 0.5), (3, 0.5)]
    assert run.best.round == 1
    assert run.points[-1].nbytes == 10 * MEGABYTE, "what crossed for nothing has crossed"
    fallen = only(compare([recorded(tmp_path / "fallen", [*first, started(round=1)])]))
    assert [point.round for point in fallen.points] == [1]
    unsaid = only(compare([recorded(tmp_path / "unsaid", [*first, *again[1:]])]))
    assert [point.round for point in unsaid.points] == [1, 2, 3]


async def test_a_run_that_is_under_way_or_was_stopped_says_so(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rounds=5, name="one") as hub:
        evaluator = agent(hub.url, "e", Adder(metrics=lambda model: {"accuracy": 0.5}), role=Role.EVALUATOR)
        async with edges(evaluator):
            await hub.until(EdgeJoined, edge="e")
            async with raw_edge(hub.url, "a") as edge:
                await edge.answer(await edge.train())
                await edge.train()
                running = told(compare([hub.folder]))[1]
    stopped = told(compare([hub.folder]))[1]
    assert running.split()[2:4] == stopped.split()[2:4] == ["1/5", "50.0%"]
    assert running.endswith("running")
    assert stopped.endswith("resumable")


def test_runs_of_one_name_are_told_apart_and_one_run_is_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = [curve(Path(parent) / name, [0.5]) for parent, name in (("x", "a"), ("y", "a"), ("y", "b"))]
    found = compare([*folders, Path("x/../y/b")])
    assert [run.label for run in found.runs] == [str(Path("x/a")), str(Path("y/a")), "b"]
    monkeypatch.chdir(folders[2])
    assert only(compare([Path()])).label == "b"


@pytest.mark.parametrize("metric", ["loss", ""])
def test_runs_that_go_by_different_metrics_need_one_that_all_of_them_measured(tmp_path: Path, metric: str) -> None:
    one = recorded(tmp_path / "one", [started(), closed(1, {"accuracy": 0.5, "loss": 1.0})])
    two = recorded(tmp_path / "two", [started(metric="mae"), closed(1, {"mae": 3.0, "loss": 2.0})])
    three = recorded(tmp_path / "three", [started(metric="f1"), closed(1, {"f1": 3.0})])
    if metric:
        assert [run.best.value for run in compare([one, two], metric=metric).runs] == [1.0, 2.0]
        with pytest.raises(ConfigError, match=r"^three did not measure 'loss' but f1; choose one with --metric$"):
            compare([one, two, three], metric=metric)
        return
    said = r"^the runs go by different metrics \(one by accuracy, two by mae\); choose .*: --metric loss$"
    with pytest.raises(ConfigError, match=said):
        compare([one, two])
    with pytest.raises(ConfigError, match=r"three by f1.*; they share no measurement$"):
        compare([one, two, three])


@pytest.mark.parametrize("target", [float("nan"), float("inf")])
def test_a_target_that_is_no_number_is_refused(tmp_path: Path, target: float) -> None:
    with pytest.raises(ConfigError, match="cannot be reached"):
        compare([curve(tmp_path / "one", [0.5])], target=target)


def test_a_run_without_a_measurement_or_without_a_record_is_refused(tmp_path: Path) -> None:
    good = curve(tmp_path / "good", [0.5])
    with pytest.raises(ConfigError, match=r"^silent cannot be compared: nobody has measured its model$"):
        compare([good, recorded(tmp_path / "silent", [started(), closed(1, {})])])
    rotten = recorded(tmp_path / "rotten", [])
    (rotten / "events.jsonl").write_bytes(b"\xff\x00 rotten\n" * 9)
    with pytest.raises(ConfigError, match=r"^rotten cannot be compared: events\.jsonl says nothing of a run$"):
        compare([good, rotten])
    (rotten / "events.jsonl").unlink()
    (rotten / "events.jsonl").mkdir()
    with pytest.raises(ConfigError, match=r"^rotten cannot be compared: cannot read .*events\.jsonl"):
        compare([good, rotten])


def test_a_record_with_gaps_is_compared_as_far_as_it_goes_and_says_so(tmp_path: Path) -> None:
    folder = curve(tmp_path / "one", [0.5, 0.6, 0.7])
    lines = (folder / "events.jsonl").read_text().splitlines()
    lines[2] = lines[2][:-3]
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "journal.sqlite").write_bytes(b"no database at all" * 100)
    found = compare([folder])
    assert [point.round for point in only(found).points] == [1, 3]
    assert told(found)[1].endswith("damaged: journal.sqlite is damaged · 1 fact is missing")


def test_the_chart_has_all_curves_over_the_same_rounds_and_between_the_same_bounds(tmp_path: Path) -> None:
    folders = [
        curve(tmp_path / "long", [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0]),
        curve(tmp_path / "short", [0.0, 1.0]),
        curve(tmp_path / "seldom", [0.5, 1.0], every=4),
    ]
    title, *lines = told(compare(folders), chart=True)[-4:]
    assert title == "accuracy from 0.0% to 100.0%, round 1 to 8"
    assert lines == [
        "long    ▁▁▁▁▂▂▂▂▄▄▄▄▅▅▅▅▇▇▇▇████████████  100.0%",
        "short   ▁▁▁▁████                          100.0%",
        "seldom              ▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅████  100.0%",
    ]


def test_the_chart_of_very_many_rounds_and_of_a_flat_curve_fits(tmp_path: Path) -> None:
    folders = [curve(tmp_path / "a", [0.5] * 3000), curve(tmp_path / "b", [0.5])]
    lines = told(compare(folders), width=60, chart=True)
    assert max(map(len, lines)) <= 60
    assert lines[-2].count("▁") == 47
    assert lines[-1].count("▁") == 1


@pytest.mark.parametrize("width", [80, 125])
def test_on_a_narrow_screen_no_number_and_no_letter_of_an_algorithm_is_cut(tmp_path: Path, width: int) -> None:
    algorithm = "bucketing(rule=trimmed_mean(f=2),size=2)"
    lines = told(compare([curve(tmp_path / "1120-2110-a-long-name", [0.5, 0.9], algorithm=algorithm)]), width=width)
    assert max(map(len, lines)) <= width
    assert {"90.0%", "2", "rounds", "4.0", "MB", "s"} <= set(lines[1].split())
    assert algorithm in lines[1].split()[1] + lines[2].split()[-1]


def test_what_a_run_calls_itself_reaches_no_terminal_and_is_no_markup(tmp_path: Path) -> None:
    found = compare([curve(tmp_path / "[red]\x1b[31m", [0.5], algorithm="\x1b]0;x\x07", metric="\x1b[2J")])
    assert "\x1b" not in "".join(told(found, chart=True))
    assert "[red]" in told(found)[1]


def test_the_command_tells_it_as_a_table_or_as_a_line_of_json(tmp_path: Path) -> None:
    curve(tmp_path / "runs" / "one", [0.5, 0.9])
    curve(tmp_path / "runs" / "two", [0.6, 0.7], algorithm="fedadam(server_lr=0.03)")
    done = command("one", "runs/two", "--target", "0.9", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    table = [line.split() for line in done.stdout.splitlines()]
    assert table[1] == [
        "one",
        "fedavg",
        "2/2",
        "90.0%",
        "2",
        "90.0%",
        "2",
        "rounds",
        "4.0",
        "MB",
        "2.0",
        "s",
        "4.0",
        "MB",
        "3.0",
        "s",
    ]
    assert table[2] == [
        "two",
        "fedadam(server_lr=0.03)",
        "2/2",
        "70.0%",
        "2",
        "70.0%",
        "-",
        "-",
        "-",
        "4.0",
        "MB",
        "3.0",
        "s",
    ]
    done = command("one", "two", "--json", "--target", "0.9", folder=tmp_path)
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert (found["metric"], found["target"], found["chosen"]) == ("accuracy", 0.9, True)
    assert [point["value"] for point in found["runs"][0]["points"]] == [0.5, 0.9]
    assert found["runs"][0]["to_target"] == {"round": 2, "value": 0.9, "nbytes": 4_000_000, "seconds": 2.0}
    assert found["runs"][1]["to_target"] is None
    assert found["runs"][1]["kept"]["algorithm"] == "fedadam(server_lr=0.03)"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "which runs? Write fedhub compare RUN RUN; fedhub runs lists them"),
        (["one", "nothing"], "nothing is not a run folder; fedhub runs lists them"),
        (["one", "--metric", "f1"], "one did not measure 'f1' but accuracy; choose one with --metric"),
        (["one", "--target", "high"], "high"),
        (["one", "--band"], "--band is about the picture; write --png FILE too"),
        (["one", "--png", "nowhere/curves.png"], "cannot write nowhere/curves.png (No such file or directory)"),
        (["one", "-o", "curves.svg"], "the picture is a PNG, and curves.svg is not called like one"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    curve(tmp_path / "runs" / "one", [0.5, 0.9])
    done = command(*arguments, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
