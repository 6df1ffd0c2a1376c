"""The picture of runs side by side shows each of them, whatever they are called and however many there are."""

import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from hub.views.compare import compare
from hub.views.plot import save_picture
from shared.errors import ConfigError
from tests.support.records import closed, curve, recorded, started

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def picture(folders: Sequence[Path], file: Path, *, band: bool = False, target: float | None = None) -> Image.Image:
    save_picture(compare(folders, target=target), file, band=band)
    return Image.open(io.BytesIO(file.read_bytes())).convert("RGB")


def colours(image: Image.Image) -> set[str]:
    """Give the colours of which there is more than a speck."""
    found = image.getcolors(image.width * image.height)
    assert found
    return {"#{:02X}{:02X}{:02X}".format(*colour) for count, colour in found if count > 40}


def rising(number: int) -> list[float]:
    return [1 - 0.5 / (1 + at + number / 3) for at in range(8)]


@pytest.mark.parametrize("count", [1, 2, 7, 10, 30])
def test_each_run_has_a_colour_and_nothing_is_drawn_over_it(tmp_path: Path, count: int) -> None:
    folders = [curve(tmp_path / f"run-{number}", rising(number)) for number in range(count)]
    image = picture(folders, tmp_path / "curves.png")
    assert set(COLOURS) & colours(image) >= set(COLOURS[:count])
    assert image.width == 1100
    assert 450 <= image.height <= 900


def test_runs_of_one_algorithm_are_drawn_as_their_mean_and_range(tmp_path: Path) -> None:
    folders = [
        curve(tmp_path / f"{algorithm}-{seed}", rising(seed), algorithm=algorithm)
        for algorithm in ("fedavg", "fedadam(server_lr=0.03)")
        for seed in range(4)
    ]
    image = picture(folders, tmp_path / "band.png", band=True)
    assert set(COLOURS[:2]) <= colours(image)
    assert not set(COLOURS[2:6]) & colours(image)


def test_runs_that_were_never_measured_in_the_same_round_have_no_mean(tmp_path: Path) -> None:
    folders = [recorded(tmp_path / str(number), [started(), closed(number, {"accuracy": 0.5})]) for number in (1, 2)]
    with pytest.raises(ConfigError, match="--band: the runs of fedavg were never measured in the same round"):
        picture(folders, tmp_path / "band.png", band=True)
    assert not (tmp_path / "band.png").exists()


def test_no_name_of_a_run_is_a_formula_or_warns_or_disappears(tmp_path: Path) -> None:
    names = ["_hidden", "$\\frac{1", "a$b$c", "连邦学习", "\x1b[31m", "new\nline"]
    folders = [curve(tmp_path / name, rising(at), metric="$^") for at, name in enumerate(names)]
    assert set(COLOURS[: len(names)]) <= colours(picture(folders, tmp_path / "names.png"))


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5], [0.0, 0.0, 0.0], [1e-9, 1e9]])
@pytest.mark.parametrize("target", [None, 0.0, 95.0])
def test_a_point_a_flat_curve_and_a_target_far_away_are_drawn(
    tmp_path: Path, values: list[float], target: float | None
) -> None:
    picture([curve(tmp_path / "one", values)], tmp_path / "one.png", target=target)


def test_the_users_own_style_of_pictures_changes_nothing(tmp_path: Path) -> None:
    curve(tmp_path / "runs" / "one", [0.5, 0.9])
    pictures = []
    for style in ("", "axes.facecolor: black\ntext.usetex: True\nsavefig.dpi: 7\nbackend: tkagg\n"):
        (tmp_path / "matplotlibrc").write_text(style)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "hub", "compare", "one", "--png", "one.png"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        pictures.append((tmp_path / "one.png").read_bytes())
    assert pictures[0] == pictures[1]


def test_without_matplotlib_a_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"a picture needs matplotlib .*; try: pip install 'fedhub\[plot\]'"):
        picture([curve(tmp_path / "one", [0.5])], tmp_path / "one.png")


def test_looking_at_the_table_does_not_load_matplotlib(tmp_path: Path) -> None:
    code = "import hub.views.plot, hub.__main__, sys; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], check=False).returncode == 0
