"""What a user can write, and what a user can write wrongly: each mistake is answered with one clear sentence."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from edge.app import BUILT_IN, App, Edge, load_app, users_code
from edge.arrays import to_numpy
from edge.learner import GivenUp
from shared.errors import ConfigError, LinkClosed

_NULL_BYTES = "SyntaxError" if sys.version_info >= (3, 11, 4) else "ValueError"
GOOD = """
import torch
from edge import App

app = App(rounds=3, lr=0.5)

@app.model
def model():
    return torch.nn.Linear(2, 1)

@app.data
def data(edge):
    return torch.zeros(edge.count, 2), torch.full((edge.count, 1), float(edge.option("y", "7")))
"""


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    """An app's folder is added to Python's path, as for any script; each test begins without."""
    monkeypatch.setattr(sys, "path", list(sys.path))


def written(folder: Path, text: str, name: str = "my_app.py") -> str:
    file = folder / name
    file.write_text(text)
    return str(file)


def mistake(folder: Path, text: str) -> str:
    """Load an app with a mistake; give the sentence, less the folder."""
    with pytest.raises(ConfigError) as caught:
        load_app(written(folder, text))
    sentence = str(caught.value)
    assert "Traceback" not in sentence
    return sentence.replace(f"{folder}/", "")


# --- what is right ---


@pytest.mark.parametrize("name", ["digits", "mnist", "fashion_mnist", "shakespeare", "wisdm"])
def test_every_built_in_app_can_be_loaded_by_its_name_and_makes_a_model(name: str) -> None:
    app = load_app(name)
    assert app.name == f"{name}.py"
    assert all(app.has(what) for what in ("model", "data", "test"))
    assert isinstance(app.make_model(Edge()), nn.Module)


def test_an_app_of_ones_own_is_loaded_by_the_path_of_its_file(tmp_path: Path) -> None:
    app = load_app(written(tmp_path, GOOD))
    x, y = app.find_data("data", Edge(count=4, options={"y": "9"}))
    assert (x.shape, y.tolist()) == ((4, 2), [[9.0]] * 4)
    assert app.settings == {"rounds": 3, "lr": 0.5}
    assert (app.name, app.has("model"), app.has("test")) == ("my_app.py", True, False)


def test_an_app_can_import_the_files_beside_it(tmp_path: Path) -> None:
    written(tmp_path, "import torch\n\ndef net():\n    return torch.nn.Linear(5, 1)\n", "my_net_beside.py")
    text = GOOD.replace("import torch\n", "import torch\nfrom my_net_beside import net\n", 1)
    app = load_app(written(tmp_path, text.replace("torch.nn.Linear(2, 1)", "net()")))
    assert app.make_model(Edge()).in_features == 5


def test_the_same_seed_gives_the_same_first_weights_and_another_seed_others() -> None:
    app = load_app("digits")
    first, again, other = (
        [to_numpy(tensor).tolist() for tensor in app.make_model(Edge(seed=seed)).state_dict().values()]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_decorated_functions_stay_as_they_were_and_need_not_take_the_edge() -> None:
    app = App()

    @app.model
    def model() -> nn.Module:
        return nn.Linear(1, 1)

    @app.data
    def data(edge: Edge) -> int:
        return edge.index

    assert isinstance(model(), nn.Linear)
    assert isinstance(app.make_model(Edge()), nn.Linear)
    assert data(Edge(index=3)) == app.find_data("data", Edge(index=3)) == 3


def test_a_parameter_with_a_default_is_the_users_own_unless_it_is_called_edge() -> None:
    app = App()
    app.model(lambda width=3: nn.Linear(width, 1))
    app.data(lambda edge=None: edge)
    assert app.make_model(Edge()).in_features == 3
    assert app.find_data("data", Edge(index=5)) == Edge(index=5)


def test_without_a_loss_of_its_own_an_app_has_cross_entropy_and_accuracy() -> None:
    app, output, target = App(), torch.tensor([[0.0, 0.0], [0.0, 5.0]]), torch.tensor([0, 1])
    torch.testing.assert_close(app.loss_of(output, target), nn.functional.cross_entropy(output, target))
    assert app.metrics_of(output, target) == {"accuracy": 1.0}
    assert app.metrics_of(output, torch.tensor([1, 1])) == {"accuracy": 0.5}


def test_without_metrics_of_its_own_an_app_whose_targets_are_no_classes_has_none() -> None:
    assert App().metrics_of(torch.zeros(3, 1), torch.zeros(3, 1)) == {}


def test_an_apps_own_loss_and_metrics_are_used() -> None:
    app = App()
    app.loss(lambda output, target: (output - target).abs().mean())
    app.metrics(lambda output, target: {"worst": (output - target).abs().max()})
    output, target = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 0.0])
    assert float(app.loss_of(output, target)) == 2.0
    assert app.metrics_of(output, target) == {"worst": 3.0}


def test_settings_left_out_are_left_to_the_hub() -> None:
    assert App().settings == {}
    assert App(target=0.0, patience=0).settings == {"target": 0.0, "patience": 0}


# --- what is wrong ---


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("digit", "did you mean 'digits'?"),
        ("fasion_mnist", "did you mean 'fashion_mnist'?"),
        ("nothing_like_it", "built in are digits, fashion_mnist, mnist, shakespeare, wisdm"),
        ("", "built in are digits, fashion_mnist, mnist, shakespeare, wisdm"),
        (".", "built in are digits, fashion_mnist, mnist, shakespeare, wisdm"),
    ],
)
def test_an_app_that_is_not_there_is_answered_with_one_that_is(name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_app(name)
    assert str(caught.value) == f"there is no app file {name}; {hint}"


def test_a_file_name_with_a_typo_is_answered_with_the_file_that_is_there(tmp_path: Path) -> None:
    file = written(tmp_path, GOOD)
    with pytest.raises(ConfigError) as caught:
        load_app(file.replace("my_app", "my_ap"))
    assert str(caught.value).endswith(f"did you mean '{file}'?")


def test_a_file_that_is_no_python_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"notes\.txt is not a Python file"):
        load_app(written(tmp_path, GOOD, "notes.txt"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a = 1\nb = c\n", "my_app.py failed at my_app.py line 2: NameError: name 'c' is not defined"),
        ("a = 1\ndef f(:\n", "my_app.py failed at my_app.py line 2: SyntaxError: invalid syntax"),
        ("if 1:\na = 2\n", "my_app.py failed at my_app.py line 2: IndentationError: expected an indented block"),
        (
            "import nothing_like_it",
            "my_app.py failed at my_app.py line 1: ModuleNotFoundError: No module named 'nothing",
        ),
        ("raise RuntimeError", "my_app.py failed at my_app.py line 1: RuntimeError"),
        ("raise ValueError('one\\n  two')", "my_app.py failed at my_app.py line 1: ValueError: one two"),
        ("import sys\nsys.exit('no data')", "my_app.py failed at my_app.py line 2: SystemExit: no data"),
        (
            "from edge import App\nApp(rouds=3)",
            "my_app.py failed at my_app.py line 2: TypeError: App.__init__() got an",
        ),
        ("a = 1\n\0", f"my_app.py failed: {_NULL_BYTES}: source code string cannot contain null bytes"),
    ],
)
def test_a_file_that_fails_is_answered_with_the_line_and_the_error(tmp_path: Path, text: str, sentence: str) -> None:
    said = mistake(tmp_path, text)
    assert said.startswith(sentence)
    assert "\n" not in said


def test_the_line_is_the_users_own_even_where_the_error_comes_from_deep_inside_torch(tmp_path: Path) -> None:
    said = mistake(
        tmp_path,
        "from torch.nn.functional import cross_entropy\nimport torch\n\n"
        "loss = cross_entropy(torch.zeros(1, 2), torch.tensor([5]))\n",
    )
    assert said.startswith("my_app.py failed at my_app.py line 4: IndexError: Target 5 is out of bounds")


def test_a_mistake_in_a_file_beside_the_app_is_named_by_that_file(tmp_path: Path) -> None:
    written(tmp_path, "\n\nx = = 1\n", "broken_beside.py")
    said = mistake(tmp_path, "import broken_beside\n")
    assert said == "my_app.py failed at broken_beside.py line 3: SyntaxError: invalid syntax"


def test_a_file_without_an_app_is_told_how_to_write_one(tmp_path: Path) -> None:
    assert mistake(tmp_path, "a = 1\n") == (
        "my_app.py has no app; write:\n    from edge import App\n    app = App(rounds=20)"
    )


@pytest.mark.parametrize("what", ["model", "data"])
def test_an_app_without_model_or_data_is_told_how_to_write_it(tmp_path: Path, what: str) -> None:
    said = mistake(tmp_path, GOOD.replace(f"@app.{what}\n", ""))
    assert said.startswith(f"my_app.py has no @app.{what} function; write one:\n    @app.{what}\n    def {what}(")


def test_two_functions_for_one_thing_are_one_too_many(tmp_path: Path) -> None:
    said = mistake(tmp_path, GOOD + "\n@app.data\ndef more(edge):\n    return 1\n")
    assert said == "this app has two functions for @app.data; which one is meant?"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("pass", "must return a torch.nn.Module, it returned nothing"),
        ("return 7", "must return a torch.nn.Module, it returned a int"),
        ("return torch.nn.ReLU", "must return a torch.nn.Module, it returned a type"),
        ("return torch.nn.ReLU()", "returned a model with nothing to learn: no parameter needs a gradient"),
        ("return torch.nn.LazyLinear(2)", "returned lazy layers, whose shapes are not known yet; write them"),
    ],
)
def test_a_model_function_that_gives_no_model_is_told_so(tmp_path: Path, body: str, sentence: str) -> None:
    app = load_app(written(tmp_path, GOOD.replace("return torch.nn.Linear(2, 1)", body)))
    with pytest.raises(ConfigError) as caught:
        app.make_model(Edge())
    assert str(caught.value) == f"my_app.py: model() {sentence}"


def test_a_function_that_fails_is_answered_with_the_line_and_the_error(tmp_path: Path) -> None:
    app = load_app(written(tmp_path, GOOD))
    with pytest.raises(ConfigError) as caught:
        app.find_data("data", Edge(options={"y": "seven"}))
    assert str(caught.value) == (
        "data() of my_app.py failed at my_app.py line 13: ValueError: could not convert string to float: 'seven'"
    )


def test_an_option_that_is_missing_is_named_with_what_to_write(tmp_path: Path) -> None:
    app = load_app(written(tmp_path, GOOD.replace('("y", "7")', '("y")')))
    with pytest.raises(ConfigError) as caught:
        app.find_data("data", Edge())
    assert str(caught.value) == "this app needs the option 'y'; set it with --data y=... (fedhub: --set y=...)"


def test_what_is_asked_of_an_app_that_has_no_such_function_is_told_how_to_write_it() -> None:
    app = App()
    app.name = "digits.py"
    with pytest.raises(ConfigError, match=r"^digits\.py has no @app\.test function; write one:\n    @app\.test\n"):
        app.find_data("test", Edge())


def test_errors_of_our_own_pass_through_a_users_code_unchanged() -> None:
    for error in (LinkClosed(1000, "bye"), GivenUp(), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, users_code("data()"):
            raise error
        assert caught.value is error


def test_the_built_in_apps_are_the_ones_the_sentences_name() -> None:
    assert {path.stem for path in BUILT_IN.glob("*.py")} - {"__init__"} == {
        *("digits", "fashion_mnist", "mnist", "shakespeare", "wisdm")
    }
