"""Trying an app here says what it weighs, and finds what would fail in a federation."""

import pytest
import torch

from edge.app import App, Edge
from edge.check import check
from shared.errors import ConfigError
from tests.support.tiny import X, Y, tiny_app


def findings(app: App) -> list[str]:
    return list(check(app, Edge(count=10), device="cpu"))


def test_a_good_app_is_described_in_four_lines() -> None:
    model, data, training, test = findings(tiny_app(test=lambda: (X[:4], Y[:4])))
    assert model.startswith("model     6 parameters in 2 tensors, ")
    assert data == "data      6 examples, 96 B (edge 1 of 10)"
    assert training.startswith("training  one epoch took 0.")
    assert " on cpu; loss 0." in training
    assert test.startswith("test      4 examples; the untrained model has loss ")
    assert ", accuracy " in test


def test_an_app_without_held_out_data_is_told_that_nobody_would_measure() -> None:
    assert findings(tiny_app())[-1] == "test      none: without @app.test or --holdout nobody measures the model"


@pytest.mark.parametrize(
    ("part", "function", "sentence"),
    [
        ("data", lambda: (X, Y[:3]), "data() of tiny.py returned 6 inputs and 3 targets; they must pair up"),
        ("data", lambda: (X[:, :1], Y), "training of tiny.py failed: RuntimeError: mat1 and mat2 shapes cannot be"),
        ("data", lambda: (X, Y + 7), "training of tiny.py failed: IndexError: Target "),
        ("test", lambda: (X, None), "test() of tiny.py must return a Dataset, a DataLoader or tensors (x, y); it "),
        ("test", lambda: (X[:, :1], Y), "evaluation of tiny.py failed: RuntimeError: mat1 and mat2 shapes cannot be"),
        ("loss", lambda output, target: output, "training of tiny.py failed: "),
        ("loss", lambda output, target: output.sum() * float("inf"), "the loss of tiny.py is "),
        ("metrics", lambda output, target: 1 / 0, "training of tiny.py failed at test_check.py line "),
    ],
)
def test_what_would_fail_in_a_federation_fails_here_with_a_sentence(part: str, function: object, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        findings(tiny_app(**{part: function}))
    assert str(caught.value).startswith(sentence)


def test_an_app_that_diverges_is_told_to_try_a_smaller_learning_rate() -> None:
    app = tiny_app(data=lambda: (X * 1e20, Y), loss=lambda output, target: (output**2).mean())
    app.settings["lr"] = 1e10
    with pytest.raises(
        ConfigError, match=r"^the loss of tiny.py is (inf|nan) after one epoch; a smaller lr than 1000000"
    ):
        findings(app)


def test_a_whole_federations_worth_of_settings_is_taken_from_the_app() -> None:
    taken: list[int] = []
    app = tiny_app(loss=lambda output, target: (taken.append(len(target)), output.sum())[1])
    app.settings |= {"batch": 2, "lr": 0.01}
    findings(app)
    assert taken == [6, 2, 2, 2]  # an evaluation before, then three steps
    assert torch.is_grad_enabled()
