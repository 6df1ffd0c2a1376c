"""Data sets in folders: read as they are, each owner's kept together, and asked for where they are missing."""

import os
from pathlib import Path

import numpy as np
import pytest

from edge.app import Edge, load_app
from edge.datasets import folder, shakespeare, vision, wisdm
from edge.datasets.folder import Owned
from shared.errors import ConfigError

DATA = Path(os.environ.get("FEDHUB_TEST_DATA") or Path(__file__).parents[4] / "shared" / "data")
WISDM, PLAYS, QMNIST = "wisdm/WISDM_ar_v1.1_transformed.arff", "shakespeare/input.txt", "QMNIST/raw"


def needs(name: str) -> pytest.MarkDecorator:
    reason = f"{DATA / name} is not there: FEDHUB_TEST_DATA may name a folder that has it"
    return pytest.mark.skipif(not (DATA / name).exists(), reason=reason)


def put(root: Path, file: str, content: str | bytes) -> Path:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def window(owner: int, value: float | str, activity: str = "Walking") -> str:
    """One line of WISDM's file, whose features are 0 but for the first."""
    return ",".join(["1", str(owner), str(value), *["0"] * 42, activity])


def speech(role: str, text: str) -> str:
    return f"{role}:\n{text}\n\n"


def mistake(load: object, root: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(root)  # type: ignore[operator]
    return str(caught.value).replace(f"{root}/", "")


# --- where they are ---


def test_data_are_kept_where_the_environment_says_or_in_the_users_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FEDHUB_DATA", str(tmp_path))
    assert folder.default_root() == tmp_path
    monkeypatch.delenv("FEDHUB_DATA")
    assert folder.default_root() == Path.home() / ".cache" / "fedhub" / "data"


@pytest.mark.parametrize(("load", "file"), [(shakespeare.load, PLAYS), (wisdm.load, WISDM)])
def test_a_missing_file_is_answered_with_where_to_get_it_and_where_to_put_it(
    load: object, file: str, tmp_path: Path
) -> None:
    said = mistake(load, tmp_path)
    assert said.startswith(f"{file} is not there; get {Path(file).name} from https://")
    assert said.endswith(
        f" and put it there, or say with --data root=FOLDER (fedhub: --set root=FOLDER) which folder holds {file}"
    )


@pytest.mark.parametrize("name", ["shakespeare", "wisdm"])
def test_an_app_whose_root_is_no_folder_says_so_in_one_sentence(name: str) -> None:
    for what in ("data", "test"):
        with pytest.raises(ConfigError, match=r"^/nonexistent/.* is not there; get .*") as caught:
            load_app(name).find_data(what, Edge(options={"root": "/nonexistent"}))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("load", "file"), [(shakespeare.load, PLAYS), (wisdm.load, WISDM)])
def test_a_file_that_is_no_text_is_named(load: object, file: str, tmp_path: Path) -> None:
    said = mistake(load, put(tmp_path, file, b"\x1f\x8b\xff\x00"))
    assert said == f"{file} cannot be read (it is no plain text); get it again"


# --- Shakespeare ---


@needs(PLAYS)
def test_the_real_plays_have_ninety_nine_roles_with_enough_to_say() -> None:
    train, held_out = shakespeare.load(DATA)
    assert (train.x.shape, held_out.x.shape, train.y.shape) == ((9120, 80), (2245, 80), (9120, 80))
    assert len(set(train.owner)) == len(set(held_out.owner)) == 99
    assert {int(train.x.max()), int(train.x.min())} == {0, 64}
    assert len(set(shakespeare.load(DATA, least=1000)[0].owner)) == 141
    assert shakespeare.load(str(DATA))[0] is train


def test_a_role_keeps_the_beginning_of_its_lines_and_is_tested_on_their_end(tmp_path: Path) -> None:
    text = speech("ANN", "abcdefgh") + speech("BOB", "Bbbbb") + speech("ANN", "ijklmnopqrs")  # Bob says too little
    train, held_out = shakespeare.load(put(tmp_path, PLAYS, text), least=20, length=3)

    def read(examples: Owned) -> list[tuple[str, str]]:
        shown = [["".join(shakespeare.SYMBOLS[n] for n in row) for row in part] for part in (examples.x, examples.y)]
        return list(zip(*shown, strict=True))

    # Twenty characters: abcdefgh, a line break, ijklmnopqrs. Sixteen are learnt from.
    assert read(train) == [("abc", "bcd"), ("def", "efg"), ("gh\n", "h\ni"), ("ijk", "jkl"), ("lmn", "mno")]
    assert read(held_out) == [("pqr", "qrs")]
    assert set(train.owner) == set(held_out.owner) == {"ANN"}


def test_other_texts_are_refused(tmp_path: Path) -> None:
    root = put(tmp_path / "sonnets", PLAYS, "Shall I compare thee to a summer's day?\n")
    assert mistake(shakespeare.load, root) == (
        f"{PLAYS} has no role with 2,000 characters or more, so it is damaged; get it again"
    )
    root = put(tmp_path, PLAYS, speech("ANN", "a~b" * 1000))
    assert mistake(shakespeare.load, root) == f"{PLAYS} is not Tiny Shakespeare: ANN says '~'; get it again"


# --- WISDM ---


@needs(WISDM)
def test_the_real_phones_have_thirty_six_owners_in_both_parts_and_features_of_one_scale() -> None:
    train, held_out = wisdm.load(DATA)
    assert (train.x.shape, held_out.x.shape, train.x.dtype) == ((4350, 43), (1068, 43), np.float32)
    assert set(train.owner) == set(held_out.owner) == set(range(1, 37))
    assert set(train.y) == set(held_out.y) == set(range(6))
    assert abs(train.x.mean(axis=0)).max() < 0.1  # missing values count as the mean
    assert train.x.std(axis=0).max() < 1.001
    assert np.isfinite(held_out.x).all()
    assert wisdm.load(str(DATA))[0] is train


def test_every_fifth_window_of_an_owner_is_held_out_and_the_rest_alone_sets_the_scale(tmp_path: Path) -> None:
    lines = [window(owner, value) for value in (1, 2, 3, "?", 1000, 2) for owner in (8, 7)]
    train, held_out = wisdm.load(put(tmp_path, WISDM, "@data\n% a remark\n\n" + "\n".join(lines)))
    sd = np.sqrt(0.5)  # of 1, 2, 3 and 2, whose mean is 2
    assert train.owner.tolist() == [8, 7] * 5
    assert train.x[::2, 0] == pytest.approx([-1 / sd, 0, 1 / sd, 0, 0])
    assert held_out.owner.tolist() == [8, 7]
    assert held_out.x[:, 0] == pytest.approx([998 / sd] * 2)
    assert not train.x[:, 1:].any()


@pytest.mark.parametrize(
    "line",
    [
        window(1, 2).rpartition(",")[0],
        window(1, 2)[:30],
        window(1, "much"),
        window(1, 2, "Flying"),
        window(1, 2).replace("1,1", "1,me", 1),
    ],
)
def test_a_damaged_line_is_named(line: str, tmp_path: Path) -> None:
    said = mistake(wisdm.load, put(tmp_path, WISDM, f"@data\n{window(1, 2)}\n{line}\n"))
    assert said == f"{WISDM} is damaged in line 3; get it again"


def test_a_file_without_windows_is_damaged(tmp_path: Path) -> None:
    said = mistake(wisdm.load, put(tmp_path, WISDM, "@data\n"))
    assert said == f"{WISDM} holds no windows, so it is damaged; get it again"


# --- the writers of MNIST ---


@needs(QMNIST)
def test_the_real_digits_have_539_writers() -> None:
    writers = vision.writers(DATA, download=False)
    assert (writers.shape, writers.dtype, len(np.unique(writers))) == ((60_000,), np.int64, 539)
    sizes = np.unique(writers, return_counts=True)[1]
    assert (sizes.min(), sizes.max()) == (19, 131)
    assert vision.writers(str(DATA), download=False) is writers


def test_without_the_writers_one_sentence_says_what_is_missing_and_what_to_do(tmp_path: Path) -> None:
    assert mistake(lambda root: vision.writers(root, download=False), tmp_path) == (
        "QMNIST is not in QMNIST/raw (qmnist-train-labels-idx2-int.gz is missing or damaged) and may not be "
        "downloaded; connect to the internet once, or set FEDHUB_DATA to a folder that holds QMNIST/raw"
    )


def test_damaged_unpacked_writers_are_named_as_such(tmp_path: Path) -> None:
    root = put(tmp_path, "QMNIST/raw/qmnist-train-labels-idx2-int", b"cut off")
    said = mistake(lambda root: vision.writers(root, download=False), root)
    assert said == "QMNIST/raw/qmnist-train-labels-idx2-int is damaged; delete it"


# --- the apps ---


@needs(WISDM)
def test_each_phone_is_one_owners_and_fewer_phones_have_several() -> None:
    app, options = load_app("wisdm"), {"root": str(DATA)}
    train, _ = wisdm.load(DATA)
    parts = [app.find_data("data", Edge(index, 36, 0, options))[0] for index in range(36)]
    assert [len(part) for part in parts] == np.bincount(train.owner)[1:].tolist()
    assert len(app.find_data("data", Edge(0, 18, 0, options))[0]) == len(parts[0]) + len(parts[18])
    assert len(app.find_data("data", Edge(0, 10, 0, options | {"partition": "iid"}))[0]) == 435
    with pytest.raises(ConfigError, match=r"^36 owners are too few for 37 edges, 1 each; take fewer edges$"):
        app.find_data("data", Edge(0, 37, 0, options))
    with pytest.raises(ConfigError, match=r"did you mean owner[?] write for example iid, .* quantity:0.5 or owner$"):
        app.find_data("data", Edge(0, 36, 0, options | {"partition": "owners"}))


@needs(PLAYS)
def test_each_edge_speaks_for_one_role_and_the_model_guesses_after_every_character() -> None:
    app, options = load_app("shakespeare"), {"root": str(DATA)}
    x, y = app.find_data("data", Edge(3, 99, 0, options))
    train, _ = shakespeare.load(DATA)
    mine = train.owner == sorted(set(train.owner))[3]
    assert np.array_equal(x, train.x[mine])
    assert np.array_equal(y, train.y[mine])
    with pytest.raises(ConfigError, match=r"^99 roles are too few for 100 edges"):
        app.find_data("data", Edge(0, 100, 0, options))


@needs(QMNIST)
def test_mnist_can_be_dealt_by_writer() -> None:
    app, options = load_app("mnist"), {"root": str(DATA), "partition": "writer"}
    writers = vision.writers(DATA)
    x, y = app.find_data("data", Edge(0, 539, 0, options))
    assert len(x) == len(y) == np.count_nonzero(writers == writers.min())
    with pytest.raises(ConfigError, match=r"^539 writers are too few for 540 edges"):
        app.find_data("data", Edge(0, 540, 0, options))
    with pytest.raises(ConfigError, match="there is no partition 'writer'; write for example"):
        load_app("fashion_mnist").find_data("data", Edge(0, 10, 0, options))
