"""What of a model crosses the wire: only what is learnt together; the hub gives back the whole of it all the same."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edge.app import App, Edge, load_app
from hub.events import EdgeJoined, EdgeLeft, RunStarted, StrangerRefused, UpdateAccepted, WaitingForEdges
from hub.verify import verify
from shared.console import run as run_command
from shared.errors import ConfigError, JournalError
from shared.messages import Role
from shared.snapshot import read_tensors
from shared.tensors import Tensors
from tests.support.examples import same_tensors
from tests.support.federation import Running, running_hub
from tests.support.fleet import contract_of, fleet, newest, points, points_app
from tests.support.viewers import viewer

WIDE = 64
HEAD_BYTES = (2 * WIDE + 2) * 4
AROUND = 1024
"""The most that a message may take beside its tensors, in bytes."""


class Borrowed(nn.Module):
    """A trunk that somebody else has trained and nobody changes, and a head; the trunk's two halves are one."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(2, WIDE).requires_grad_(requires_grad=False)
        self.first = nn.Linear(WIDE, WIDE).requires_grad_(requires_grad=False)
        self.second = self.first
        self.head = nn.Linear(WIDE, 2)
        self.again = nn.Linear(WIDE, 2)
        self.again.weight = self.head.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inside = self.second(torch.relu(self.first(torch.relu(self.enter(x)))))
        result: torch.Tensor = self.head(inside) + self.again(inside)
        return result


def as_torch(tensors: Tensors) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(array) for name, array in tensors.items()}


async def played(folder: Path, app: App, **settings: object) -> Running:
    """Play three rounds of two edges."""
    async with running_hub(
        folder, contract=contract_of(app), **{"rounds": 3, "wait_for": 2, "batch": 4, **settings}
    ) as hub:
        async with fleet(app) as crew:
            for name in "ab":
                crew.start(name, hub.url)
            await hub.ended()
    return hub


# --- what is sent, and what is given back ---


async def test_what_nobody_trains_never_crosses_the_wire_and_is_in_the_final_model_all_the_same(
    tmp_path: Path,
) -> None:
    app = points_app(model=Borrowed)
    hub = await played(tmp_path, app)
    learnt = HEAD_BYTES + 2 * 4  # the other head's bias; its weight is the same tensor
    assert {fact.model_bytes for fact in hub.all(RunStarted)} == {learnt}  # type: ignore[union-attr]
    assert all(learnt < fact.nbytes < learnt + AROUND for fact in hub.all(UpdateAccepted))  # type: ignore[union-attr]
    down, up = (sum(getattr(fact, which, 0) for fact in hub.facts) for which in ("bytes_down", "bytes_up"))
    assert 6 * learnt < down < 6 * (learnt + AROUND)
    assert 6 * learnt < up < 6 * (learnt + AROUND)

    first = app.make_model(Edge()).state_dict()
    final = read_tensors(hub.folder / "model.safetensors")
    module = Borrowed()
    module.load_state_dict(as_torch(final), strict=True)
    assert set(final) == set(first)
    for name, array in final.items():
        frozen = name.startswith(("enter", "first", "second"))
        assert np.array_equal(array, first[name].numpy()) == frozen, name
    assert np.array_equal(final["head.weight"], final["again.weight"])


async def test_the_whole_model_comes_to_the_same_when_a_run_is_resumed_without_its_app(tmp_path: Path) -> None:
    app = points_app(model=Borrowed)
    hub = await played(tmp_path, app)
    once = read_tensors(hub.folder / "model.safetensors")
    (hub.folder / "model.safetensors").unlink()
    async with running_hub(tmp_path, resume=hub.folder) as again:
        await again.ended()
    assert same_tensors(read_tensors(hub.folder / "model.safetensors"), once)


async def test_whoever_looks_at_a_run_gets_the_whole_model(tmp_path: Path) -> None:
    app = points_app(model=Borrowed)
    async with running_hub(tmp_path, contract=contract_of(app), wait_for=2) as hub:
        await hub.until(WaitingForEdges)
        async with viewer(hub.url, hub.hub.access.keys.operator) as someone:
            body = await someone.model()
    assert isinstance(body, bytes)
    file = tmp_path / "fetched.safetensors"
    file.write_bytes(body)
    fetched = as_torch(read_tensors(file))
    Borrowed().load_state_dict(fetched, strict=True)
    first = app.make_model(Edge()).state_dict()
    assert all(torch.equal(fetched[name], first[name]) for name in first)


async def test_layers_of_an_edges_own_are_in_no_message_and_not_in_the_final_model(tmp_path: Path) -> None:
    app = points_app(model=lambda: nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, WIDE), nn.Linear(WIDE, 2)))
    hub = await played(tmp_path, app, algorithm="fedper(own=2.*|3.*)", holdout=0.25)
    together = (2 * 4 + 4) * 4
    assert all(together < fact.nbytes < together + AROUND for fact in hub.all(UpdateAccepted))  # type: ignore[union-attr]
    final = read_tensors(hub.folder / "model.safetensors")
    missing, unexpected = app.make_model(Edge()).load_state_dict(as_torch(final), strict=False)
    assert (missing, unexpected) == (["2.weight", "2.bias", "3.weight", "3.bias"], [])


async def test_an_edge_with_other_frozen_weights_is_turned_away_with_a_sentence(tmp_path: Path) -> None:
    def other() -> nn.Module:
        module = Borrowed()
        module.enter.bias.data[3] += 1e-6
        return module

    async with running_hub(tmp_path, contract=contract_of(points_app(model=Borrowed))) as hub:
        async with fleet(points_app(model=other)) as crew:
            with pytest.raises(ConfigError) as caught:
                await crew.start("a", hub.url)
        refused = await hub.until(StrangerRefused)
    sentence = (
        "the model of points.py is not the hub's: here it has other values in what is not trained. "
        "Start hub and edges with the same app file and options"
    )
    assert str(caught.value) == sentence
    assert refused.reason == f"a left: {sentence}"  # type: ignore[union-attr]


async def test_an_edge_whose_app_freezes_something_else_is_turned_away_too(tmp_path: Path) -> None:
    async with running_hub(tmp_path, contract=contract_of(points_app())) as hub:
        async with fleet(points_app(rules={"0.*": "frozen"})) as crew:
            with pytest.raises(ConfigError, match=r"is not the hub's: here it has 1\.weight .* instead of 0\.weight"):
                await crew.start("a", hub.url)


async def test_frozen_weights_that_rot_on_the_hubs_disk_are_noticed_before_another_round_is_played(
    tmp_path: Path,
) -> None:
    hub = await played(tmp_path, points_app(model=Borrowed))
    file = hub.folder / "frozen.safetensors"
    body = bytearray(file.read_bytes())
    body[-1] ^= 1
    file.write_bytes(body)
    with pytest.raises(JournalError, match=r"frozen\.safetensors is damaged: it is not what the run began with"):
        async with running_hub(tmp_path, resume=hub.folder, rounds=9) as again:
            await again.life
    file.unlink()
    with pytest.raises(JournalError, match=r"frozen\.safetensors"):
        async with running_hub(tmp_path, resume=hub.folder, rounds=9) as again:
            await again.life


# --- what an app says of its tensors ---

RULES = """
import torch
from edge import App

app = App(rules={"head.*": "own", "scale": "average", "trunk.*": "frozen"}, rounds=2, holdout=0.25, batch=4)

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = torch.nn.Linear(2, 32)
        self.middle = torch.nn.Linear(32, 4)
        self.scale = torch.nn.Parameter(torch.ones(4))
        self.head = torch.nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.scale * torch.tanh(self.middle(torch.tanh(self.trunk(x)))))

@app.model
def model():
    return Net()

@app.data
def data(edge):
    x = torch.randn(16, 2, generator=torch.Generator().manual_seed(edge.index))
    return x, (x[:, 0] > x[:, 1]).long()
"""


async def test_an_apps_rules_reach_the_hub_and_every_edge(tmp_path: Path) -> None:
    file = tmp_path / "rules.py"
    file.write_text(RULES)
    app = load_app(str(file))
    async with running_hub(tmp_path, app=str(file), rounds=2, wait_for=2, algorithm="fedadam(server_lr=0.5)") as hub:
        async with fleet(app, keep=tmp_path / "kept") as crew:
            for name in "ab":
                crew.start(name, hub.url)
            await hub.ended()
            await asyncio.gather(*crew.lives.values())
    first = {name: tensor.numpy() for name, tensor in app.make_model(Edge()).state_dict().items()}
    final = read_tensors(hub.folder / "model.safetensors")
    assert list(final) == ["scale", "trunk.weight", "trunk.bias", "middle.weight", "middle.bias"]
    assert np.array_equal(final["trunk.weight"], first["trunk.weight"])
    assert (final["middle.weight"] != first["middle.weight"]).all()
    last = await newest(hub.folder)
    assert set(last.model) == {"scale", "middle.weight", "middle.bias"}
    assert {name.split(" ")[-1] for name in last.memory} == {"middle.weight", "middle.bias"}, "no step with an average"
    assert np.abs(final["scale"] - 1).max() < 0.1 < np.abs(final["middle.weight"] - first["middle.weight"]).max()
    for memory in crew.remembered.values():
        assert {name.split(" ")[-1] for name in memory} == {"head.weight", "head.bias"}
        assert (memory["own head.weight"] != first["head.weight"]).any()


# --- proofs ---


@pytest.mark.parametrize(
    "algorithm", ["scaffold(server_lr=0.7)", "fedadam", "feddyn", "qfedavg", "fedbn(server=fedadam)"]
)
async def test_a_run_with_running_statistics_is_recomputed_to_the_bit(
    tmp_path: Path, algorithm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from hub.__main__ import cli

    holdout = 0.25 if algorithm.startswith("fedbn") else 0.0
    hub = await played(tmp_path, points_app(), algorithm=algorithm, keep_updates="all", holdout=holdout)
    assert [verdict.updates async for verdict in verify(hub.folder)] == [0, 2, 2, 2]
    capsys.readouterr()
    assert await asyncio.to_thread(run_command, cli, ["verify", str(hub.folder)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "3 rounds committed, their proofs hold; 3 recomputed to the bit"


async def test_no_server_step_is_taken_with_running_statistics(tmp_path: Path) -> None:
    models = []
    for name in ("fedavg", "fedadam(server_lr=10)"):
        hub = await played(tmp_path, points_app(), algorithm=name, name=name, rounds=1)
        models.append((await newest(hub.folder)).model)
    mean, stepped = models
    alike = {name for name in mean if np.array_equal(mean[name], stepped[name])}
    assert alike == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}


async def test_an_evaluator_measures_a_model_with_frozen_and_tied_layers(tmp_path: Path) -> None:
    app = points_app(model=Borrowed, test=points)
    async with running_hub(tmp_path, contract=contract_of(app), rounds=2) as hub:
        async with fleet(app) as crew:
            crew.start("judge", hub.url, role=Role.EVALUATOR)
            await hub.until(EdgeJoined, edge="judge")
            crew.start("a", hub.url)
            ended = await hub.ended()
    assert {fact.reason for fact in hub.all(EdgeLeft)} == {"the run is over"}  # type: ignore[union-attr]
    assert set(ended.summary.metrics) == {"accuracy", "loss"}
