"""What becomes of real models' tensors: the usual, and what an app's rules make of it, down to what is trained."""

import threading
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import nn

from edge.app import App, Edge
from edge.datasets.operators import make_torchvision_importable
from edge.examples import Examples
from edge.exchange import exchange_of
from edge.learner import Trained
from edge.trainer import Trainer
from hub.aggregation.fedbn import keep_norms
from shared.errors import ConfigError
from shared.exchange import Exchange
from tests.support.quadratics import columns, fleet_of
from tests.support.tiny import X, Y, plan, tiny_app


def resnet18() -> nn.Module:
    make_torchvision_importable()
    from torchvision.models import resnet18

    return resnet18()


def rules_of(module: nn.Module, said: Mapping[str, str] | None = None) -> Exchange:
    return exchange_of(module, said or {}, app="app.py")


def trained(
    model: Callable[[], nn.Module], *, rules: dict[str, str] | None = None, local: str = "sgd", rounds: int = 1
) -> tuple[Trainer, Trained]:
    """Train a model of two inputs and two classes, from its first weights, some times; give the last answer."""
    app = tiny_app(model=model)
    app.rules = rules or {}
    trainer = Trainer(app, app.make_model(Edge()), torch.device("cpu"))
    examples = Examples.of((X, Y), where="")
    for _ in range(rounds):
        answer = trainer.train(plan(local=local, lr=0.5), trainer.tensors, examples, seed=(0,), stop=threading.Event())
    return trainer, answer


class LanguageModel(nn.Module):
    """Tied embeddings; positions, a mask and indices that are constants."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Embedding(5, 2)
        self.decoder = nn.Linear(2, 5)
        self.decoder.weight = self.encoder.weight
        self.register_buffer("positions", torch.linspace(0, 1, 6).reshape(3, 2))
        self.register_buffer("mask", torch.triu(torch.full((3, 3), -torch.inf), 1))
        self.register_buffer("indices", torch.arange(3))
        self.register_buffer("causal", torch.ones(3, 3).tril() > 0)
        self.register_buffer("scratch", torch.zeros(3), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = self.encoder(x.long()) + self.positions[: x.shape[1]]
        result: torch.Tensor = self.decoder(seen.mean(1))
        return result


class Adapted(nn.Module):
    """A linear layer with a low-rank adapter beside it, as LoRA has it, a norm, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(2, 3)
        self.lora_a = nn.Parameter(torch.full((1, 2), 0.5))
        self.lora_b = nn.Parameter(torch.full((3, 1), 0.25))
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.norm(self.base(x) + x @ self.lora_a.T @ self.lora_b.T))
        return result


# --- the usual ---


def test_of_a_resnet_weights_are_learnt_and_statistics_averaged() -> None:
    module = resnet18()
    exchange = rules_of(module)
    assert list(exchange.rules) == list(module.state_dict())
    assert exchange.of("learn") == {name for name, _ in module.named_parameters()}
    assert exchange.of("average") == {name for name, _ in module.named_buffers()}
    assert len(exchange.of("average")) == 3 * 20
    assert exchange.tied == {}
    assert len(exchange.norms) == 5 * 20
    assert "layer4.1.bn2.num_batches_tracked" in exchange.norms
    assert keep_norms(exchange).of("learn") == {
        name
        for name in exchange.rules
        if "conv" in name or name.startswith("fc.") or name.endswith("downsample.0.weight")
    }


def test_of_tied_embeddings_one_name_is_exchanged_and_constants_stay_what_they_are() -> None:
    exchange = rules_of(LanguageModel())
    assert exchange.tied == {"decoder.weight": "encoder.weight"}
    assert exchange.of("learn") == {"encoder.weight", "decoder.bias"}
    assert exchange.of("average") == {"positions", "indices", "causal"}
    assert exchange.of("frozen") == {"mask"}, "infinity has no mean"
    assert "scratch" not in exchange.rules


def test_constants_come_back_from_a_round_to_the_bit() -> None:
    examples = Examples.of((torch.tensor([[0, 1, 2], [3, 4, 0]]), torch.tensor([0, 4])), where="")
    fleet = fleet_of("fedadam", model=LanguageModel, examples={"a": examples, "b": examples})
    for trainer in fleet.trainers.values():
        trainer.app = tiny_app(model=LanguageModel)  # with the usual loss
    fleet.rounds(2)
    for name in ("positions", "indices", "causal"):
        np.testing.assert_array_equal(fleet.newest.model[name], fleet.trainers["a"].first[name])
    whole = fleet.exchange.whole({**fleet.newest.model, **fleet.exchange.frozen(fleet.trainers["a"].first)})
    module = LanguageModel()
    module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in whole.items()})
    assert module.decoder.weight is module.encoder.weight


def test_layers_that_need_no_gradient_are_frozen() -> None:
    module = resnet18()
    module.requires_grad_(False)
    module.fc.requires_grad_(True)
    exchange = rules_of(module)
    assert exchange.of("learn") == {"fc.weight", "fc.bias"}
    assert exchange.of("average") == {name for name, _ in module.named_buffers()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_models_of_half_precision_are_exchanged_as_such(dtype: torch.dtype) -> None:
    examples = {
        edge: Examples.of((torch.ones(2, 1, dtype=dtype), torch.zeros(2, 1, dtype=dtype)), where="") for edge in "ab"
    }
    fleet = fleet_of("scaffold", model=lambda: nn.Linear(1, 1).to(dtype), examples=examples, lr=0.25)
    before = fleet.measured("a").metrics["loss"]
    fleet.rounds(2)
    assert {array.dtype.name for array in fleet.newest.model.values()} == {str(dtype).removeprefix("torch.")}
    assert fleet.measured("a").metrics["loss"] < before


def test_complex_parameters_are_refused_with_a_sentence() -> None:
    with pytest.raises(
        ConfigError, match=r"^tensors of torch\.complex64 cannot be federated; convert the model to floa"
    ):
        trained(lambda: nn.Linear(2, 2, dtype=torch.complex64))


def test_norms_are_found_wherever_they_are() -> None:
    assert rules_of(nn.BatchNorm2d(3)).norms == (
        "weight", "bias", "running_mean", "running_var", "num_batches_tracked"
    )  # fmt: skip
    assert rules_of(nn.Sequential(nn.LayerNorm(3), nn.GroupNorm(1, 3))).norms == ()
    assert rules_of(nn.BatchNorm1d(3, affine=False, track_running_stats=False)).norms == ()
    assert rules_of(nn.Sequential(nn.SyncBatchNorm(3, affine=False))).norms == (
        "0.running_mean", "0.running_var", "0.num_batches_tracked"
    )  # fmt: skip


# --- what an app says ---


def test_the_first_pattern_that_matches_counts_and_what_none_matches_is_as_usual() -> None:
    said = {"head.bias": "average", "head.*": "own", "*.weight": "frozen"}
    exchange = rules_of(Adapted(), said)
    assert {name: exchange.rules[name] for name in ("head.bias", "head.weight", "base.weight", "base.bias")} == {
        "head.bias": "average",
        "head.weight": "own",
        "base.weight": "frozen",
        "base.bias": "learn",
    }


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"head.*": "melt"}, "app.py: the rule 'melt' for head.* is not one of learn, average, own, frozen"),
        ({"haed.*": "own"}, "app.py: no tensor of the model is called haed.*; there is, for example, "),
        ({"head.*": "own", "xyz": "own"}, "app.py: no tensor of the model is called xyz; there is, for example, "),
        ({"*": "learn", "head.*": "own"}, "app.py: the rule for head.* comes too late: patterns before it match "),
    ],
)
def test_a_rule_that_is_none_or_is_for_nothing_is_answered_with_a_sentence(said: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rules_of(Adapted(), said)
    assert str(caught.value).startswith(sentence)


def test_a_rule_for_a_second_name_is_answered_with_the_first_unless_they_say_the_same() -> None:
    said = {"encoder.weight": "own", "decoder.*": "own"}
    assert rules_of(LanguageModel(), said).of("own") == {"encoder.weight", "decoder.bias"}
    assert rules_of(LanguageModel(), {"encoder.weight": "own", "decoder.weight": "own"}).of("own") == {"encoder.weight"}
    with pytest.raises(ConfigError) as caught:
        rules_of(LanguageModel(), {"decoder.weight": "own"})
    assert str(caught.value) == (
        "app.py: decoder.weight is another name of encoder.weight in this model; write the rule for encoder.weight"
    )


LORA = {"lora_*": "learn", "*": "frozen"}


@pytest.mark.parametrize("local", ["sgd", "gradient"])
def test_with_a_frozen_base_only_adapters_are_trained_and_sent(local: str) -> None:
    trainer, answer = trained(Adapted, rules=LORA, local=local, rounds=3)
    assert list(answer.tensors) == ["lora_a", "lora_b"]
    assert all(array.any() for array in answer.tensors.values())
    state = trainer.module.state_dict()
    for name in trainer.exchange.of("frozen"):  # batch normalisation's statistics among them
        np.testing.assert_array_equal(state[name].numpy(), trainer.first[name], err_msg=name)


def test_a_frozen_parameter_is_not_trained_though_its_layer_wants_a_gradient() -> None:
    trainer, answer = trained(Adapted, rules={"base.*": "frozen"})
    assert not {"base.weight", "base.bias"} & set(answer.tensors)
    assert not trainer.module.base.weight.requires_grad
    assert trainer.module.head.weight.requires_grad
    np.testing.assert_array_equal(trainer.module.base.weight.detach().numpy(), trainer.first["base.weight"])


def test_a_parameter_that_is_averaged_is_trained_and_no_server_step_is_taken_with_it() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor(4.0, dtype=torch.float64))
            self.s = nn.Parameter(torch.tensor(0.0, dtype=torch.float64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.w + self.s - x

    # e = w + s - c_k: 4 and 0; lr = 1/4: both numbers move by -1 and 0, on average -1/4; of w, the hub takes twice it.
    fleet = fleet_of("fedavgm(server_lr=2, beta=0)", model=Two, rules={"s": "average"}, lr=0.25)
    assert fleet.round() == 4 - 2 / 4
    assert fleet.of_hub("s") == -1 / 4


@pytest.mark.parametrize("algorithm", ["fedavg", "fedsgd", "scaffold", "feddyn", "ditto"])
def test_what_is_learnt_by_rule_is_trained_and_statistics_are_averaged_all_the_same(algorithm: str) -> None:
    def model() -> nn.Module:
        module = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2, momentum=0.5), nn.Linear(2, 1)).double()
        module[0].requires_grad_(False)
        return module

    examples = {"a": columns([1.0, 2.0, 4.0]), "b": columns([0.0, 1.0])}
    fleet = fleet_of(algorithm, model=model, rules={"*": "learn"}, examples=examples, lr=0.25)
    plain = fleet_of("fedavg", model=model, rules={"0.*": "learn"}, examples=examples, lr=0.25)
    fleet.round()
    plain.round()
    assert (fleet.newest.model["0.weight"] != fleet.trainers["a"].first["0.weight"]).all()
    for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
        np.testing.assert_array_equal(fleet.newest.model[name], plain.newest.model[name])


def test_what_the_runs_algorithm_wants_kept_must_be_of_this_model() -> None:
    app = App()
    app.name = "app.py"
    trainer = Trainer(app, Adapted(), torch.device("cpu"))
    trainer.with_own(("head.weight",))
    assert trainer.exchange.of("own") == {"head.weight"}
    trainer.with_own(("head.weight",))
    with pytest.raises(ConfigError, match=r"^the run is of another model: the model of app\.py has no tail\.weight$"):
        trainer.with_own(("tail.weight",))


class Watching(nn.Module):
    """A layer that moves a buffer of its own while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
        self.register_buffer("scale", torch.tensor(1.0, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.scale += 1
        return self.w * self.scale - x


def test_a_frozen_buffer_is_the_same_in_each_round_whatever_a_layer_does_with_it() -> None:
    fleet = fleet_of("fedavg", model=Watching, rules={"scale": "frozen"}, shared=True)
    before = [fleet.measured(edge) for edge in "ab"]
    for edge in "abab":
        fleet.answer(edge)
    assert [fleet.measured(edge) for edge in "ab"] == before


def test_a_rule_for_what_is_no_text_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"^quadratic\.py: the rule for 1 is for no pattern of names; write a text like"
    ):
        fleet_of("fedavg", rules={1: "own"})  # type: ignore[dict-item]


class Moving(nn.Module):
    """A module of one buffer under two names, which become two when it is moved: so it is with torch and a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(1.0))
        self.one = nn.Buffer(torch.tensor(2.0))
        self.other = self.one

    def to(self, *where: object) -> "Moving":  # type: ignore[override]
        self.other = nn.Buffer(self.other.clone())
        return self


def test_what_is_exchanged_does_not_depend_on_the_device() -> None:
    app = App()
    app.name = "app.py"
    assert Trainer(app, Moving(), torch.device("cpu")).exchange.tied == {"other": "one"}
