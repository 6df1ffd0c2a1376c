"""What an edge's part of an algorithm has to work with: steps that can be corrected, what came, what is remembered."""

import threading
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import nn

from edge.work import Work, named
from shared.tensors import Tensors
from tests.support.quadratics import Number, columns, fleet_of, said
from tests.support.tiny import plan


class Parts(nn.Module):
    """y = w x + s + h with a buffer beside it, and a parameter that nobody uses."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
        self.s = nn.Parameter(torch.tensor([0.0], dtype=torch.float64))
        self.h = nn.Parameter(torch.tensor([0.0], dtype=torch.float64))
        self.unused = nn.Parameter(torch.tensor([5.0], dtype=torch.float64))
        self.register_buffer("seen", torch.tensor(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen += 1
        return self.w * x + self.s + self.h


def work(
    *,
    model: type[nn.Module] = Number,
    rules: dict[str, str] | None = None,
    sent: Mapping[str, object] | None = None,
    memory: Tensors | None = None,
    values: list[float] | None = None,
    **plans: object,
) -> Work:
    trainer = fleet_of("fedavg", model=model, rules=rules).trainers["a"]
    examples = said(values or [0.0]) if model is Number else columns(values or [1.0, 3.0])
    came = {name: np.array(array) for name, array in {**trainer.tensors, **(sent or {})}.items()}
    return Work(
        trainer.app,
        trainer.module,
        trainer.exchange,
        plan(lr=0.5, **plans),
        examples,
        came,
        trainer.first,
        memory or {},
        np.random.default_rng(0),
        threading.Event(),
    )


def test_steps_are_counted_over_all_passes() -> None:
    assert work(values=[0.0] * 5, batch=2, epochs=3).descend() == 9
    assert work(values=[0.0] * 5, batch=0, epochs=3).descend(epochs=1) == 1
    assert work(values=[0.0] * 5, batch=2).descend(epochs=4) == 12


def test_the_module_begins_with_what_came_and_with_the_edges_own_at_first() -> None:
    task = work(model=Parts, rules={"h": "own"}, sent={"w": [2.0]})
    assert task.module.w.item() == 2.0
    assert task.module.h.item() == 0.0
    assert set(task.parameters) == {"w", "s", "h", "unused"}
    assert set(task.received) == {"w", "s", "unused"}


def test_the_edges_own_is_what_it_remembers_once_it_does() -> None:
    task = work(model=Parts, rules={"h": "own"}, memory={"own h": np.array([0.25])})
    assert task.module.h.item() == 0.25
    task.descend()
    answer = task.answer()
    assert set(answer.memory) == {"own h"}
    assert answer.memory["own h"] == task.module.h.detach().numpy() != 0.25
    assert set(answer.tensors) == {"w", "s", "unused", "seen"}


def test_only_what_came_from_the_hub_is_corrected() -> None:
    corrected: list[str] = []

    def correct(name: str, parameter: torch.Tensor, gradient: torch.Tensor) -> None:
        corrected.append(name)
        gradient.zero_()

    task = work(model=Parts, rules={"h": "own"})
    task.descend(correct)
    assert corrected == ["w", "s", "unused"]
    moved = task.moved()
    assert (moved["w"], moved["s"], moved["unused"]) == (0, 0, 0)
    assert task.module.h.item() != 0
    assert moved["seen"] == 1


def test_what_was_received_stays_as_it_came_while_the_module_moves() -> None:
    task = work()
    received = task.received["w"]
    task.descend()
    assert (float(received), task.module.w.item(), float(task.moved()["w"])) == (7.0, 3.5, -3.5)
    task.begin()
    assert task.module.w.item() == 7.0


def test_what_came_beside_the_model_is_found_by_its_name() -> None:
    task = work(sent={"scaffold c w": 0.5})
    assert {name: float(one) for name, one in task.beside("scaffold c").items()} == {"w": 0.5}
    assert task.beside("something else") == {}
    assert set(task.moved()) == {"w"}


def test_what_is_not_remembered_yet_is_zero() -> None:
    assert float(work().remembered("g")["w"]) == 0.0
    assert float(work(memory={"g w": np.array(2.0), "g x": np.array(1.0)}).remembered("g")["w"]) == 2.0


def test_the_loss_is_the_mean_over_the_examples_of_the_last_pass() -> None:
    # w = 7, lr = 1/2. Batches of two and one, all of one kind: 7 -> 7/2 -> 7/4; of the second pass, 49/8 / 4 and / 16.
    task = work(values=[0.0] * 3, batch=2, epochs=2)
    task.descend()
    assert task.loss == (2 * (7 / 4) ** 2 / 2 + (7 / 8) ** 2 / 2) / 3


def test_measuring_changes_nothing_and_training_goes_on_after_it() -> None:
    task = work(model=Parts)
    assert task.measure().metrics == {"loss": (1 + 9) / 2 / 2}
    assert task.module.training
    assert int(task.module.seen) == 0
    measured = task.measure(columns([2.0] * 2500))
    assert (measured.examples, measured.metrics) == (2500, {"loss": 2.0})


def test_a_gradient_is_that_of_what_is_learnt_and_the_rest_takes_its_step() -> None:
    # x = 1, 3: e = 1, 3; the slopes are 2 of s and h, 5 of w; h, which is this edge's own, moves by -1/2 of it.
    task = work(model=Parts, rules={"h": "own", "s": "average"})
    found = task.gradient()
    assert {name: array.tolist() for name, array in found.items()} == {
        "w": [5.0],
        "s": [-1.0],
        "unused": [0.0],
        "seen": 1,
    }
    assert task.answer().memory["own h"].tolist() == [-1.0]
    assert task.loss == 2.5


def test_all_that_is_trained_can_be_put_away_and_back() -> None:
    task = work(model=Parts, rules={"h": "own", "unused": "frozen"})
    task.descend()
    state = task.state("v")
    assert set(state) == {"v w", "v s", "v h", "v seen"}
    now = {name: tensor.clone() for name, tensor in task.module.state_dict().items()}
    again = work(model=Parts, rules={"h": "own", "unused": "frozen"}, memory={**state, "vw": np.zeros(1)})
    again.load_state("v")
    assert all(torch.equal(tensor, now[name]) for name, tensor in again.module.state_dict().items())
    before = work(model=Parts)
    before.load_state("v")
    assert before.module.w.item() == 1.0, "there was none"


def test_weights_are_named_for_sending_and_are_copies() -> None:
    there = {"w": torch.tensor([1.0])}
    sent = named("c", there)
    there["w"].zero_()
    assert {name: array.tolist() for name, array in sent.items()} == {"c w": [1.0]}


@pytest.mark.parametrize("again", [False, True])
def test_the_modules_dice_follow_the_seed(again: bool) -> None:
    first = work()
    thrown = torch.rand(1)
    if again:
        first.begin()
    work()
    assert torch.equal(torch.rand(1), thrown)
