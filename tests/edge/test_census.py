"""How data lie on the edges can be counted, read in a terminal and drawn, before anything is learnt."""

import json
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch.utils.data import DataLoader, TensorDataset

from edge.__main__ import cli
from edge.app import Edge, load_app
from edge.census.count import Census, take, to_json
from edge.census.table import table_of
from edge.datasets import digits
from edge.datasets.partition import partition
from shared.console import run
from shared.errors import ConfigError
from tests.support.tiny import X, Y, tiny_app

APP = """
import torch
from edge import App

app = App()

@app.model
def model():
    return torch.nn.Linear(2, 2)

@app.data
def data(edge):
    n = 1 + edge.index
    return torch.ones(n, 2), {targets}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the person is: with an app of classes, and one without."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("classes.py").write_text(APP.format(targets="torch.arange(n) * 3"))
    Path("values.py").write_text(APP.format(targets="torch.ones(n, 1)"))
    return tmp_path


def typed(line: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Type a command that works; give the lines of its result."""
    assert run(cli, line.split()) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out.splitlines()


def census_of(targets: object, *, edges: int = 1) -> Census:
    return take(tiny_app(data=lambda: (X, targets)), edges=edges, seed=0, options={})


# --- counted ---


def test_a_census_counts_what_the_partitioner_dealt() -> None:
    options = {"partition": "dirichlet:0.1"}
    census = take(load_app("digits"), edges=20, seed=3, options=options)
    (_, y), _ = digits.split()
    parts = partition("dirichlet:0.1", y, 20, seed=3)
    assert census.sizes.tolist() == [len(part) for part in parts]
    assert census.labels == tuple(range(10))
    assert census.counts.tolist() == [np.bincount(y[part], minlength=10).tolist() for part in parts]
    assert census.labels_each == np.mean([len(np.unique(y[part])) for part in parts])
    assert (census.app, census.partition) == ("digits", "dirichlet:0.1")


@pytest.mark.parametrize("kind", [torch.int64, torch.int32, torch.uint8, torch.bool])
def test_targets_of_any_whole_number_are_labels(kind: torch.dtype) -> None:
    census = census_of(Y.to(kind))
    assert (census.labels, census.counts.tolist()) == ((0, 1), [[3, 3]])


@pytest.mark.parametrize("targets", [Y.float(), Y.cfloat(), Y[:, None], torch.stack([Y, Y], 1)])
def test_of_other_targets_only_examples_are_counted(targets: torch.Tensor) -> None:
    census = census_of(targets, edges=2)
    assert (census.labels, census.counts.shape, census.sizes.tolist()) == ((), (2, 0), [6, 6])
    told = json.loads(to_json(census))
    assert (told["labels"], told["counts"], told["labels_per_edge"], told["sizes"]) == (None, None, None, [6, 6])


def test_labels_that_some_edges_do_not_know_count_as_none_there() -> None:
    def own(edge: Edge) -> tuple[torch.Tensor, torch.Tensor]:
        return X, torch.full((6,), 5 - edge.index * 100)

    census = take(tiny_app(data=own), edges=3, seed=0, options={})
    assert census.labels == (-195, -95, 5)
    assert census.counts.tolist() == [[0, 0, 6], [0, 6, 0], [6, 0, 0]]


def test_a_loader_of_batches_is_counted_too() -> None:
    app = tiny_app(data=lambda: DataLoader(TensorDataset(X, Y), batch_size=4, shuffle=True))
    assert take(app, edges=1, seed=0, options={}).counts.tolist() == [[3, 3]]


# --- in a terminal ---


@pytest.mark.usefixtures("folder")
def test_the_table_shows_each_edge_and_the_sum_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    lines = typed("data show classes.py -n 3", capsys)
    assert lines[0].rstrip() == "classes on 3 edges"
    assert lines[1].rstrip() == "6 examples · edges: smallest 1 · median 2 · largest 3 · 2.0 of 3 labels on average"
    assert [line.split() for line in lines[3:]] == [
        ["edge", "examples", "labels", "0", "3", "6"],
        ["1", "1", "████", "1", "1", "·", "·"],
        ["2", "2", "████████", "2", "1", "1", "·"],
        ["3", "3", "████████████", "3", "1", "1", "1"],
        ["all", "6", "3", "3", "2", "1"],
    ]


def test_labels_that_do_not_fit_as_numbers_are_bars_and_no_line_is_too_wide() -> None:
    def own(edge: Edge) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.cat([torch.arange(30), torch.zeros(30 * edge.index, dtype=torch.int64)])
        return torch.ones(len(labels), 2), labels

    census = take(tiny_app(data=own), edges=2, seed=0, options={})
    console = Console(width=80, file=StringIO())
    console.print(table_of(census, width=80, every=False))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= 80
    assert lines[-4].split() == ["edge", "examples", "labels", "each", "label's", "share"]
    assert [line.split()[-1] for line in lines[-3:]] == ["█" * 30, "█" + "▁" * 29, "█" + "▁" * 29]


@pytest.mark.usefixtures("folder")
def test_of_many_edges_the_first_are_shown_unless_all_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    few = typed("data show classes.py -n 31", capsys)
    assert [line.split()[0] for line in few[4:]] == [*map(str, range(1, 21)), "all", "and"]
    assert few[-1].rstrip() == "and 11 more edges: --all shows them"
    every = typed("data show classes.py -n 31 --all", capsys)
    assert [line.split()[0] for line in every[4:]] == [*map(str, range(1, 32)), "all"]


@pytest.mark.usefixtures("folder")
def test_without_labels_the_table_counts_examples_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    lines = typed("data show values.py -n 2", capsys)
    assert lines[1].rstrip() == "3 examples · edges: smallest 1 · median 1.5 · largest 2"
    assert lines[-2].split() == []
    assert lines[-1].rstrip() == "its targets are not one whole number each, so there are no labels to count"


def test_all_of_it_is_one_line_of_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = typed("data show digits --data partition=shards:1 -n 10 --seed 1 --json", capsys)
    told = json.loads(line)
    assert (told["app"], told["partition"], told["edges"], told["examples"]) == ("digits", "shards:1", 10, 1437)
    assert (told["smallest"], told["median"], told["largest"]) == (143, 144, 144)
    assert told["labels"] == list(range(10))
    assert np.array(told["counts"]).sum(axis=1).tolist() == told["sizes"]
    assert told["labels_per_edge"] == np.count_nonzero(told["counts"]) / 10


# --- as a picture ---


@pytest.mark.parametrize(("edges", "targets"), [(1, "torch.arange(n)"), (60, "torch.arange(n) % 50 - 3")])
def test_a_picture_is_drawn_of_few_and_of_many(
    edges: int, targets: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("drawn.py").write_text(APP.format(targets=targets))
    (line,) = typed(f"data plot drawn.py -n {edges} -o picture.png", capsys)
    assert line.startswith("picture.png: ")
    with Image.open(folder / "picture.png") as picture:
        assert picture.width > 1000
        colours = picture.convert("RGB").getcolors(1 << 24)
    assert colours is not None
    assert len(colours) > 50


@pytest.mark.usefixtures("folder")
def test_a_picture_can_be_one_of_lines(capsys: pytest.CaptureFixture[str]) -> None:
    typed("data plot classes.py -n 4 -o picture.svg --data partition=iid", capsys)
    assert "<svg" in Path("picture.svg").read_text()


# --- mistakes ---

MISTAKES = {
    "no edges": ("show classes.py -n 0", "-n 0: a federation has at least one edge"),
    "no such app": ("show digit", "there is no app file digit; did you mean 'digits'?"),
    "bad option": ("show digits --data x", "--data 'x' is not like --data name=value"),
    "no such partition": (
        "show digits --data partition=dirichlet",
        "a partition like dirichlet:0.3 needs a number after the colon, not ''",
    ),
    "more edges than examples": ("show digits -n 1438", "1437 examples are too few for 1438 edges, 1 each; take fewer"),
    "no folder": ("show wisdm --data root=/nonexistent", "/nonexistent/wisdm/WISDM_ar_v1.1_transformed.arff is not "),
    "no labels": (
        "plot values.py",
        "the targets of values are not one whole number each, so there are no labels to draw; fededge data show",
    ),
    "no picture": (
        "plot classes.py -o picture.txt",
        "-o picture.txt: the name of a picture ends in .png, .svg or",
    ),
    "no place": ("plot classes.py -o nowhere/picture.png", "nowhere/picture.png cannot be written: No such file or"),
}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(mistake: str, capsys: pytest.CaptureFixture[str]) -> None:
    line, sentence = MISTAKES[mistake]
    assert run(cli, ["data", *line.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"fededge: {sentence}")
    assert len(err.splitlines()) == 1


@pytest.mark.usefixtures("folder")
def test_without_matplotlib_a_sentence_says_what_to_install_before_anything_is_counted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert run(cli, ["data", "plot", "wisdm", "--data", "root=/nonexistent"]) == 2
    said = capsys.readouterr().err
    assert said == "fededge: pictures need matplotlib; install it with pip install 'fedhub[plot]'\n"


def test_what_is_no_data_is_refused_as_it_would_be_in_a_run() -> None:
    with pytest.raises(ConfigError, match=r"^data\(\) of tiny\.py must return a Dataset"):
        take(tiny_app(data=lambda: 5), edges=1, seed=0, options={})
