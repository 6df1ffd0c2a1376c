"""Training takes exactly the steps of the paper: held against numbers worked out by hand, and against autograd."""

import threading
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from edge.app import App
from edge.arrays import moved, to_numpy, to_torch
from edge.examples import Examples
from edge.learner import GivenUp, Trained
from edge.trainer import Trainer, pick_device, seed_of
from shared.errors import ConfigError
from shared.messages import Plan
from shared.tensors import Tensors
from tests.support.tiny import X, Y, plan, tensors_of, tiny_app, trainer_of


def squares(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return ((output - target) ** 2).mean()


def line() -> nn.Linear:
    """Make y = w1 x1 + w2 x2 + b, with w = (1, 2) and b = 0."""
    module = nn.Linear(2, 1)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1.0, 2.0]]))
        module.bias.zero_()
    return module


def linear_app() -> App:
    return tiny_app(model=line, loss=squares)


def pairs(x: list[list[float]], y: list[float]) -> Examples:
    return Examples.of((torch.tensor(x), torch.tensor(y).reshape(-1, 1)), where="the test")


def train(trainer: Trainer, model: Tensors, examples: Examples, how: Plan, *, seed: int = 0) -> Trained:
    return trainer.train(how, model, examples, seed=(seed,), stop=threading.Event())


def listed(tensors: Tensors) -> dict[str, Any]:
    return {name: np.asarray(array).tolist() for name, array in tensors.items()}


# --- the steps, by hand ---


def test_two_steps_over_everything_are_exactly_those_worked_out_by_hand() -> None:
    # w = (1, 2), b = 0, lr = 1/4, x = (1, 0) and (0, 1), y = 0 and 1; loss = mean of e^2 with e = wx + b - y.
    # Step 1: e = (1, 1), loss 1;        dw = 2/2 (1, 1) = (1, 1), db = 2/2 (1 + 1) = 2; w = (3/4, 7/4), b = -1/2.
    # Step 2: e = (1/4, 1/4), loss 1/16; dw = (1/4, 1/4),          db = 1/2;             w = (11/16, 27/16), b = -5/8.
    trainer = trainer_of(linear_app())
    examples = pairs([[1.0, 0.0], [0.0, 1.0]], [0.0, 1.0])
    trained = train(trainer, trainer.tensors, examples, plan(epochs=2, batch=0, lr=0.25))
    assert listed(trained.tensors) == {"weight": [[-5 / 16, -5 / 16]], "bias": [-5 / 8]}
    assert trained.metrics == {"loss": 1 / 16}  # of the last epoch
    assert trained.examples == 2


def test_one_epoch_takes_a_step_for_each_batch() -> None:
    # w = (1, 2), b = 0, lr = 1/8, x = (1, 0) twice, y = -1 twice, one example at a time; so their order is all one.
    # Step 1: e = 2, loss 4; dw = 2e x = (4, 0), db = 4; w = (1/2, 2), b = -1/2.
    # Step 2: e = 1, loss 1; dw = (2, 0),        db = 2; w = (1/4, 2), b = -3/4.
    trainer = trainer_of(linear_app())
    trained = train(trainer, trainer.tensors, pairs([[1.0, 0.0]] * 2, [-1.0] * 2), plan(epochs=1, batch=1, lr=0.125))
    assert listed(trained.tensors) == {"weight": [[-0.75, 0.0]], "bias": [-0.75]}
    assert trained.metrics == {"loss": 2.5}


def test_the_gradient_is_the_mean_over_all_examples_and_no_step_is_taken() -> None:
    # As in step 1 of the first test.
    trainer = trainer_of(linear_app())
    model = trainer.tensors
    trained = train(trainer, model, pairs([[1.0, 0.0], [0.0, 1.0]], [0.0, 1.0]), plan(local="gradient", lr=0.25))
    assert listed(trained.tensors) == {"weight": [[1.0, 1.0]], "bias": [2.0]}
    assert trained.metrics == {"loss": 1.0}
    assert listed(trainer.tensors) == listed(model)


def test_the_loss_and_accuracy_of_an_evaluation_are_those_worked_out_by_hand() -> None:
    # w = (1, 2), b = 0: e = (1, 1) and 3, -1: loss (1 + 1 + 9 + 1) / 4 = 3.
    trainer = trainer_of(linear_app())
    examples = pairs([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]], [0.0, 1.0, 0.0, 1.0])
    measured = trainer.evaluate(trainer.tensors, examples)
    assert (measured.examples, measured.metrics) == (4, {"loss": 3.0})

    # Logits (x1, x2) for x = (1, 0), (0, 1), (1, 1), (2, 0), (0, 2), (2, 2) and targets 0, 1, 1, 0, 1, 0: of two equal
    # logits the first wins, so five of six are right. Cross entropy is ln(1 + exp(other - own)).
    trainer = trainer_of(tiny_app())
    model = {"weight": np.eye(2, dtype=np.float32), "bias": np.zeros(2, np.float32)}
    measured = trainer.evaluate(model, Examples.of((X, Y), where="the test"))
    by_hand = (2 * np.log1p(np.exp(-1)) + 2 * np.log1p(np.exp(-2)) + 2 * np.log(2)) / 6
    assert measured.metrics["loss"] == pytest.approx(by_hand, rel=1e-6)
    assert measured.metrics["accuracy"] == pytest.approx(5 / 6)


# --- the steps, against torch ---


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 2))


@pytest.mark.parametrize("batch", [0, 1, 4, 100])
def test_steps_are_those_of_torchs_own_sgd_to_the_last_bit(batch: int) -> None:
    trainer = trainer_of(tiny_app(model=net))
    model, examples = trainer.tensors, Examples.of((X, Y), where="the test")
    trained = train(trainer, model, examples, plan(epochs=3, batch=batch, lr=0.3), seed=7)

    reference = net()
    reference.load_state_dict({name: to_torch(array) for name, array in model.items()})
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.3)
    dice = np.random.default_rng((7,))
    dice.integers(2**63)  # what the trainer draws to seed torch
    for _ in range(3):
        for x, y in examples.batches(batch, dice):
            optimizer.zero_grad()
            nn.functional.cross_entropy(reference(x), y).backward()
            optimizer.step()
    for name, tensor in reference.state_dict().items():
        np.testing.assert_array_equal(trained.tensors[name], to_numpy(tensor) - model[name])


def test_the_gradient_is_that_of_autograd_over_all_examples() -> None:
    trainer = trainer_of(tiny_app(model=net))
    trained = train(trainer, trainer.tensors, Examples.of((X[:4], Y[:4]), where=""), plan(local="gradient"))
    reference = net()
    reference.load_state_dict({name: to_torch(array) for name, array in trainer.tensors.items()})
    gradients = torch.autograd.grad(nn.functional.cross_entropy(reference(X[:4]), Y[:4]), list(reference.parameters()))
    for (name, _), gradient in zip(reference.named_parameters(), gradients, strict=True):
        np.testing.assert_allclose(trained.tensors[name], to_numpy(gradient), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("as_loader", [False, True])
def test_the_gradient_over_many_examples_is_computed_in_parts_and_is_still_the_mean(as_loader: bool) -> None:
    torch.manual_seed(1)
    x, y = torch.randn(1500, 2), torch.randint(0, 2, (1500,))
    data = DataLoader(TensorDataset(x, y), batch_size=400) if as_loader else (x, y)
    trainer = trainer_of(tiny_app())
    trained = train(trainer, trainer.tensors, Examples.of(data, where="the test"), plan(local="gradient"))
    weight, bias = (to_torch(array).requires_grad_() for array in trainer.tensors.values())
    loss = nn.functional.cross_entropy(x @ weight.T + bias, y)
    gradients = torch.autograd.grad(loss, [weight, bias])
    for array, gradient in zip(trained.tensors.values(), gradients, strict=True):
        np.testing.assert_allclose(array, to_numpy(gradient), atol=1e-6)
    assert trained.metrics["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)


# --- models with more than plain parameters ---


class Normalised(nn.Module):
    """y = w * batchnorm(x) over one feature, with a batch norm that takes half of each batch's statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1, momentum=0.5)
        self.out = nn.Linear(1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.out(self.norm(x))
        return result


def normalised() -> tuple[Trainer, Tensors, Examples]:
    trainer = trainer_of(tiny_app(model=Normalised, loss=squares))
    model = {**trainer.tensors, "norm.num_batches_tracked": np.array(7)}
    return trainer, model, pairs([[1.0], [3.0]], [0.0, 0.0])


def test_sgd_tells_how_far_a_batch_norms_averages_moved_and_what_its_counter_shows() -> None:
    # The batch has mean 2 and (unbiased) variance 2; half of each: the mean goes 0 -> 1, the variance 1 -> 1.5.
    trainer, model, examples = normalised()
    tensors = train(trainer, model, examples, plan(lr=0.25)).tensors
    assert tensors["norm.running_mean"].tolist() == [1.0]
    assert tensors["norm.running_var"].tolist() == [0.5]
    assert tensors["norm.num_batches_tracked"] == 8
    assert tensors["norm.num_batches_tracked"].dtype == np.int64


def test_a_gradient_is_told_with_how_far_a_batch_norms_averages_moved_here() -> None:
    trainer, model, examples = normalised()
    tensors = train(trainer, model, examples, plan(local="gradient", lr=0.25)).tensors
    assert tensors["norm.running_mean"].tolist() == [1.0]
    assert tensors["norm.running_var"].tolist() == [0.5]
    assert tensors["norm.num_batches_tracked"] == 8


def test_an_evaluation_leaves_a_batch_norms_averages_alone() -> None:
    trainer, model, examples = normalised()
    trainer.evaluate(model, examples)
    state = trainer.module.state_dict()
    assert listed({name: to_numpy(state[name]) for name in model}) == listed(model)


def test_a_last_batch_of_one_joins_the_one_before_because_batch_norm_learns_from_none() -> None:
    # Three examples in batches of two are one batch of three: of mean 2 and variance 1.
    trainer, model, _ = normalised()
    tensors = train(trainer, model, pairs([[1.0], [2.0], [3.0]], [0.0] * 3), plan(batch=2)).tensors
    assert tensors["norm.num_batches_tracked"] == 8
    assert tensors["norm.running_mean"].tolist() == [1.0]
    assert tensors["norm.running_var"].tolist() == [0.0]


@pytest.mark.parametrize(("size", "batches"), [(1025, 1), (2049, 2), (2050, 3)])
def test_nor_is_there_a_rest_of_one_where_a_gradient_is_computed_in_parts(size: int, batches: int) -> None:
    trainer, model, _ = normalised()
    tensors = train(trainer, model, pairs([[1.0], [3.0]] * (size // 2) + [[2.0]] * (size % 2), [0.0] * size),
                    plan(local="gradient")).tensors  # fmt: skip
    assert tensors["norm.num_batches_tracked"] == 7 + batches


@pytest.mark.parametrize("local", ["sgd", "gradient"])
def test_an_edge_with_one_example_trains_with_the_running_statistics_and_leaves_them_alone(local: str) -> None:
    # Running mean 1 and variance 4 - eps make (5 - 1) / 2 = 2 of the example 5; w = 1, b = 0: e = 2, slope 2e = 4:
    # of the weight 4 * 2, of the bias 4; of the norm's weight 4 * 2, of its bias 4.
    trainer, _, _ = normalised()
    model: Tensors = {
        "norm.weight": np.ones(1, np.float32),
        "norm.bias": np.zeros(1, np.float32),
        "norm.running_mean": np.ones(1, np.float32),
        "norm.running_var": np.full(1, 4 - 1e-5, np.float32),
        "norm.num_batches_tracked": np.array(7),
        "out.weight": np.ones((1, 1), np.float32),
        "out.bias": np.zeros(1, np.float32),
    }
    examples = pairs([[5.0]], [0.0])
    tensors = train(trainer, model, examples, plan(local=local, epochs=1, lr=0.5)).tensors
    assert listed({name: array for name, array in tensors.items() if "running" in name}) == {
        "norm.running_mean": [0.0],
        "norm.running_var": [0.0],
    }
    assert tensors["norm.num_batches_tracked"] == 7
    slopes = {"norm.weight": 8.0, "norm.bias": 4.0, "out.weight": 8.0, "out.bias": 4.0}
    factor = -0.5 if local == "sgd" else 1.0
    for name, slope in slopes.items():
        assert tensors[name].item() == pytest.approx(factor * slope, rel=1e-5)
    # The next edge with more examples has its batches' own statistics again.
    more = train(trainer, model, pairs([[1.0], [3.0]], [0.0] * 2), plan(local=local)).tensors
    assert more["norm.num_batches_tracked"] == 8


def test_batches_of_one_that_were_asked_for_are_answered_with_torchs_own_words() -> None:
    trainer, model, examples = normalised()
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        train(trainer, model, examples, plan(batch=1))


@pytest.mark.parametrize("local", ["sgd", "gradient"])
def test_a_frozen_parameter_is_neither_moved_nor_sent(local: str) -> None:
    def half_frozen() -> nn.Module:
        module = net()
        module[0].requires_grad_(False)
        return module

    trainer = trainer_of(tiny_app(model=half_frozen))
    tensors = train(trainer, trainer.tensors, Examples.of((X, Y), where=""), plan(local=local)).tensors
    assert list(tensors) == ["2.weight", "2.bias"]
    assert all(tensors[name].any() for name in tensors)
    state = trainer.module.state_dict()
    assert all(np.array_equal(to_numpy(state[name]), trainer.first[name]) for name in ("0.weight", "0.bias"))


@pytest.mark.parametrize("local", ["sgd", "gradient"])
def test_a_parameter_that_the_loss_does_not_depend_on_does_not_move(local: str) -> None:
    class Spare(nn.Linear):
        def __init__(self) -> None:
            super().__init__(2, 2)
            self.spare = nn.Parameter(torch.ones(3))

    trainer = trainer_of(tiny_app(model=Spare))
    assert listed(train(trainer, trainer.tensors, Examples.of((X, Y), where=""), plan(local=local)).tensors)[
        "spare"
    ] == [0, 0, 0]


class Tied(nn.Module):
    """One layer under two names, used twice: h = Wx, y = Wh, and a batch norm under two names as well."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.second = self.first
        self.norm = nn.BatchNorm1d(2)
        self.same_norm = self.norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.norm(self.second(self.first(x)))
        return result


@pytest.mark.parametrize("local", ["sgd", "gradient"])
def test_what_has_two_names_moves_once_and_is_sent_once(local: str) -> None:
    trainer = trainer_of(tiny_app(model=Tied))
    model = trainer.tensors
    tensors = train(trainer, model, Examples.of((X, Y), where=""), plan(local=local, lr=0.5)).tensors
    assert {name.split(".")[0] for name in tensors} == {"first", "norm"}
    assert trainer.exchange.tied["second.weight"] == "first.weight"

    reference = Tied()
    reference.load_state_dict({name: to_torch(array) for name, array in trainer.exchange.whole(model).items()})
    nn.functional.cross_entropy(reference(X), Y).backward()
    step = np.float32(-0.5 if local == "sgd" else 1.0) * to_numpy(reference.first.weight.grad)
    np.testing.assert_allclose(tensors["first.weight"], step, rtol=1e-4, atol=1e-6)


def test_a_model_of_a_single_number_can_be_trained() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.by = nn.Parameter(torch.tensor(2.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.by * x

    # x = 1, y = 0: e = 2, d = 2e = 4.
    trainer = trainer_of(tiny_app(model=Scale, loss=squares))
    tensors = train(trainer, trainer.tensors, pairs([[1.0]], [0.0]), plan(local="gradient")).tensors
    assert (tensors["by"].shape, float(tensors["by"])) == ((), 4.0)
    tensors = train(trainer, trainer.tensors, pairs([[1.0]], [0.0]), plan(lr=0.25)).tensors
    assert (np.shape(tensors["by"]), float(tensors["by"])) == ((), -1.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_models_of_other_floats_are_trained_in_their_own(dtype: torch.dtype) -> None:
    trainer = trainer_of(
        tiny_app(model=lambda: line().to(dtype), loss=lambda output, target: squares(output, target.to(dtype)))
    )
    examples = Examples.of((torch.eye(2, dtype=dtype), torch.tensor([[0.0], [1.0]])), where="")
    tensors = train(trainer, trainer.tensors, examples, plan(epochs=2, lr=0.25)).tensors
    assert {array.dtype.name for array in tensors.values()} == {str(dtype).removeprefix("torch.")}
    assert listed({name: array.astype(np.float64) for name, array in tensors.items()}) == {
        "weight": [[-5 / 16, -5 / 16]],
        "bias": [-5 / 8],
    }


# --- numbers on their way ---


def all_of(dtype: Any) -> np.ndarray[Any, Any]:
    """Every number that 16 bits can be, infinities and NaN among them."""
    return np.arange(2**16, dtype=np.uint16).view(dtype)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_every_16_bit_float_crosses_to_torch_and_back_without_losing_a_bit(dtype: Any) -> None:
    there = to_torch(all_of(dtype))
    assert there.dtype is {"float16": torch.float16, "bfloat16": torch.bfloat16}[np.dtype(dtype).name]
    np.testing.assert_array_equal(to_numpy(there).view(np.uint16), np.arange(2**16, dtype=np.uint16))
    assert to_torch(np.array([1.5, -2.0], dtype)).tolist() == [1.5, -2.0]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"])
def test_every_other_number_crosses_likewise_whatever_the_shape(dtype: str) -> None:
    for shape in ((), (0,), (3,), (2, 3)):
        array = np.ones(shape, dtype)
        back = to_numpy(to_torch(array))
        np.testing.assert_array_equal(back, array)
        assert (back.dtype, back.shape) == (array.dtype, array.shape)


def test_what_comes_from_the_wire_is_copied_because_training_would_change_it() -> None:
    array = np.zeros(3, np.float32)
    array.flags.writeable = False
    tensor = to_torch(array)
    tensor += 1
    assert array.tolist() == [0, 0, 0]


def test_tensors_that_are_not_contiguous_keep_their_order() -> None:
    assert to_numpy(torch.arange(6).reshape(2, 3).T).tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e4m3fn])
def test_numbers_that_cannot_be_federated_are_refused_with_a_sentence(dtype: torch.dtype) -> None:
    class Odd(nn.Linear):
        def __init__(self) -> None:
            super().__init__(2, 2)
            self.register_buffer("odd", torch.zeros(2).to(dtype))

    with pytest.raises(ConfigError, match=f"^tensors of {dtype} cannot be federated; convert the model to float32$"):
        tensors_of(tiny_app(model=Odd))


def test_a_model_whose_state_is_not_only_tensors_is_refused_by_name() -> None:
    class Odd(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"a": 1}

    with pytest.raises(ConfigError, match=r"^tiny\.py: '_extra_state' of the model's state is a dict, no tensor$"):
        tensors_of(tiny_app(model=lambda: Odd(2, 2)))


@pytest.mark.parametrize("local", ["sgd", "gradient"])
def test_what_is_not_a_number_stays_so_and_is_not_hidden_from_the_hub(local: str) -> None:
    trainer = trainer_of(linear_app())
    trained = train(trainer, trainer.tensors, pairs([[1.0, float("nan")]], [0.0]), plan(local=local))
    assert np.isnan(trained.tensors["weight"]).any()
    assert np.isnan(trained.metrics["loss"])


@pytest.mark.parametrize("local", ["sgd", "gradient", "qfedavg"])
def test_a_loss_that_is_no_number_is_told_as_such(local: str) -> None:
    trainer = trainer_of(tiny_app(model=line, loss=lambda output, target: squares(output, target) * float("nan")))
    trained = train(trainer, trainer.tensors, pairs([[1.0, 0.0]] * 3, [0.0] * 3), plan(local=local, batch=2))
    assert np.isnan(trained.metrics["loss"])
    assert trained.examples == 3


@pytest.mark.parametrize("local", ["sgd", "gradient"])
def test_a_batch_larger_than_the_data_is_all_of_it(local: str) -> None:
    trainer = trainer_of(tiny_app())
    model, examples = trainer.tensors, Examples.of((X, Y), where="")
    found = [listed(train(trainer, model, examples, plan(local=local, batch=size)).tensors) for size in (0, 6, 2**53)]
    assert found[0] == found[1] == found[2]


def test_an_edge_that_knows_one_class_only_learns_it_and_measures_it() -> None:
    trainer = trainer_of(tiny_app())
    examples = Examples.of((X[:1], Y[:1]), where="")
    trained = train(trainer, trainer.tensors, examples, plan(epochs=20, lr=1.0))
    assert 0 < trained.metrics["loss"] < 0.2
    model = {name: array + trained.tensors[name] for name, array in trainer.tensors.items()}
    assert trainer.evaluate(model, examples).metrics["accuracy"] == 1.0


def test_integers_are_told_as_they_are_and_floats_by_how_far_they_moved() -> None:
    assert moved(np.array([3, 4]), np.array([1, 1])).tolist() == [3, 4]
    assert moved(np.array([True]), np.array([True])).tolist() == [True]
    assert moved(np.array([3.0, 4.0]), np.array([1.0, 1.0])).tolist() == [2.0, 3.0]
    assert moved(np.array([3.0], np.float16), np.array([1.0], np.float16), -0.5).tolist() == [-1.0]


# --- seeds, stops and devices ---


def noisy() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Linear(8, 2))


@pytest.mark.parametrize("local", ["sgd", "gradient"])
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(local: str) -> None:
    trainer = trainer_of(tiny_app(model=noisy))
    model, examples, how = trainer.tensors, Examples.of((X, Y), where=""), plan(local=local, batch=2, epochs=3)
    first, again, other = (listed(train(trainer, model, examples, how, seed=seed).tensors) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_shuffling_loader_follows_the_seed_too() -> None:
    trainer = trainer_of(tiny_app())
    examples = Examples.of(DataLoader(TensorDataset(X, Y), batch_size=2, shuffle=True), where="")
    first, again, other = (
        listed(train(trainer, trainer_of(tiny_app()).tensors, examples, plan(lr=1.0), seed=seed).tensors)
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_what_one_edge_trained_leaves_no_trace_in_the_next() -> None:
    trainer = trainer_of(tiny_app(model=noisy))
    model, examples = trainer.tensors, Examples.of((X, Y), where="")
    alone = listed(train(trainer, model, examples, plan(), seed=1).tensors)
    train(trainer, {name: array + 5 for name, array in model.items()}, examples, plan(local="gradient"), seed=9)
    trainer.evaluate(model, examples)
    assert listed(train(trainer, model, examples, plan(), seed=1).tensors) == alone


def test_seeds_differ_by_run_round_and_edge_and_are_the_same_in_every_try() -> None:
    how, other = plan(seed=1), plan(seed=2)
    seeds = [
        seed_of(how, round=1, edge="a"),
        seed_of(how, round=1, edge="b"),
        seed_of(how, round=2, edge="a"),
        seed_of(other, round=1, edge="a"),
    ]
    assert len(set(seeds)) == 4
    assert seeds[0] == seed_of(how, round=1, edge="a")


@pytest.mark.parametrize("local", ["sgd", "gradient"])
def test_training_gives_up_between_two_batches_when_it_is_told_to(local: str) -> None:
    stop, losses = threading.Event(), []

    def stopping(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        losses.append(1)
        if len(losses) == 2:
            stop.set()
        return nn.functional.cross_entropy(output, target)

    trainer = trainer_of(tiny_app(loss=stopping))
    loader = DataLoader(TensorDataset(X, Y), batch_size=1)
    with pytest.raises(GivenUp):
        trainer.train(plan(local=local), trainer.tensors, Examples.of(loader, where=""), seed=(0,), stop=stop)
    assert len(losses) == 2


def test_auto_finds_a_device_and_one_that_is_not_there_is_answered_with_those_that_are() -> None:
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(ConfigError, match="this machine has no device 'tpu'; choose one of auto, cpu"):
        pick_device("tpu")
