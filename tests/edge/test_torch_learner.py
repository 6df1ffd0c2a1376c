"""An edge with a torch app at a real hub: it gets ready, trains off the event loop, and says what does not fit."""

import asyncio
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edge.app import Edge
from edge.learner import Holdings, Measured
from edge.torch_learner import Workshop
from hub.events import EdgeJoined, EdgeLeft, RoundClosed, StrangerRefused, UpdateAccepted, UpdateRefused
from shared.errors import ConfigError
from shared.link import connect
from shared.messages import Evaluate, Hello, Receipt, Role, Train, Welcome
from shared.snapshot import read_tensors
from shared.tensors import ModelSpec, Tensors
from tests.support.federation import Adder, agent, edges, running_hub
from tests.support.tiny import X, Y, learner_of, plan, prepared, tensors_of, tiny_app, trainer_of, workshop_of

cross_entropy = nn.functional.cross_entropy


def welcome(model: Tensors, **changes: object) -> Welcome:
    said = {"options": {}, "plan": plan(), "round": 0, **changes}
    return Welcome(
        version=1,
        run="r",
        algorithm="fedavg",
        spec=ModelSpec.of(model).tensors,
        rounds=1,
        model="0" * 64,
        **said,
    )


def train(**changes: object) -> Train:
    return Train(run="r", round=1, attempt=1, model="0" * 64, seconds=1.0, plan=plan(**changes))


async def test_an_edge_trains_at_a_real_hub_and_the_model_gets_better(tmp_path: Path) -> None:
    app = tiny_app(test=lambda: (X, Y))
    async with running_hub(tmp_path, model=tensors_of(app), rounds=15, batch=1, lr=0.5, wait_for=2) as hub:
        with workshop_of(app) as workshop:
            judge = learner_of(workshop, "judge", role=Role.EVALUATOR)
            async with edges(agent(hub.url, "judge", judge, role=Role.EVALUATOR)):
                await hub.until(EdgeJoined, edge="judge")
                async with edges(*(agent(hub.url, name, learner_of(workshop, name)) for name in "ab")):
                    await hub.ended()
    closed = hub.all(RoundClosed)
    assert [fact.answered for fact in closed] == [2] * 15
    assert {fact.evaluated for fact in closed} == {"central"}
    assert closed[-1].metrics["loss"] < closed[0].metrics["loss"]
    assert closed[-1].loss < closed[0].loss


async def test_the_same_seed_gives_the_same_model_to_the_last_bit(tmp_path: Path) -> None:
    app, models = tiny_app(model=lambda: nn.Sequential(nn.Linear(2, 4), nn.Dropout(), nn.Linear(4, 2))), []
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        async with running_hub(
            tmp_path, name=name, seed=seed, model=tensors_of(app), rounds=3, batch=1, wait_for=3
        ) as hub:
            with workshop_of(app) as workshop:
                async with edges(*(agent(hub.url, edge, learner_of(workshop, edge)) for edge in "abc")):
                    await hub.ended()
        models.append(read_tensors(hub.folder / "model.safetensors"))
    one, again, other = models
    for tensor in one:
        np.testing.assert_array_equal(one[tensor], again[tensor])
    assert any((one[tensor] != other[tensor]).any() for tensor in one)


async def test_the_event_loop_answers_while_training_takes_its_time(tmp_path: Path) -> None:
    loop, begun, go = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def slow(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        loop.call_soon_threadsafe(begun.set)
        assert go.wait(20)
        return cross_entropy(output, target)

    app = tiny_app(loss=slow)
    async with running_hub(tmp_path, model=tensors_of(app)) as hub:
        with workshop_of(app) as workshop:
            async with edges(agent(hub.url, "slow", learner_of(workshop, "slow"))):
                await begun.wait()
                link = await connect(hub.url)  # the loop that the edge lives in serves another edge meanwhile
                await link.send(Hello(versions=(1,), edge="other", role=Role.TRAINER))
                assert isinstance((await link.receive()).message, Welcome)
                link.abort()
                assert not hub.all(UpdateAccepted)
                go.set()
                await hub.ended()
    assert hub.all(RoundClosed)[0].answered == 1


async def test_training_that_is_cancelled_ends_with_the_next_batch() -> None:
    loop, begun, go = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    losses: list[int] = []

    def stuck(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        losses.append(len(target))
        loop.call_soon_threadsafe(begun.set)
        assert go.wait(20)
        return cross_entropy(output, target)

    app = tiny_app(loss=stuck)
    with workshop_of(app) as workshop:
        learner, model = learner_of(workshop, "a"), tensors_of(app)
        await prepared(learner, welcome(model))
        tasks = [asyncio.create_task(learner.train(train(batch=1), model)) for _ in range(2)]
        await begun.wait()
        for task in tasks:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        go.set()
        await workshop.work(lambda: None)
    assert losses == [1]  # one batch of the first; of the second, which waited for the thread, none


@pytest.mark.parametrize(
    ("mine", "difference"),
    [
        (lambda: nn.Linear(2, 3), "weight float32[3, 2] instead of weight float32[2, 2]"),
        (lambda: nn.Linear(2, 2, bias=False), "1 tensors instead of 2"),
        (lambda: nn.Linear(2, 2).double(), "weight float64[2, 2] instead of weight float32[2, 2]"),
    ],
)
async def test_an_edge_with_another_model_is_told_the_difference_and_so_is_the_hub(
    tmp_path: Path, mine: object, difference: str
) -> None:
    async with running_hub(tmp_path, model=tensors_of(tiny_app())) as hub:
        with workshop_of(tiny_app(model=mine)) as workshop:
            async with edges(agent(hub.url, "odd", learner_of(workshop, "odd"))) as lives:
                with pytest.raises(ConfigError) as caught:
                    await lives[0]
                refused = await hub.until(StrangerRefused)
    sentence = (
        f"the model of tiny.py is not the hub's: here it has {difference}. "
        "Start hub and edges with the same app file and options"
    )
    assert str(caught.value) == sentence
    assert refused.reason == f"odd left: {sentence}"


async def test_an_edge_whose_data_fails_is_told_so_and_so_is_the_hub(tmp_path: Path) -> None:
    def no_data() -> object:
        raise FileNotFoundError("mine.csv")

    async with running_hub(tmp_path, model=tensors_of(tiny_app())) as hub:
        with workshop_of(tiny_app(data=no_data)) as workshop:
            async with edges(agent(hub.url, "poor", learner_of(workshop, "poor"))) as lives:
                with pytest.raises(ConfigError) as caught:
                    await lives[0]
                refused = await hub.until(StrangerRefused)
    assert str(caught.value).startswith("data() of tiny.py failed at test_torch_learner.py line ")
    assert str(caught.value).endswith(": FileNotFoundError: mine.csv")
    assert refused.reason == f"poor left: {caught.value}"


async def test_an_edge_whose_loss_fails_ends_and_the_hub_names_why_and_goes_on(tmp_path: Path) -> None:
    def broken(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        raise ValueError("no such class: 7")

    app = tiny_app(loss=broken)
    async with running_hub(tmp_path, model=tensors_of(app), wait_for=2) as hub:
        honest = Adder(gate=asyncio.Event())
        with workshop_of(app) as workshop:
            async with edges(
                agent(hub.url, "broken", learner_of(workshop, "broken")), agent(hub.url, "honest", honest)
            ) as lives:
                with pytest.raises(ConfigError) as caught:
                    await lives[0]
                left = await hub.until(EdgeLeft, edge="broken")
                honest.gate.set()
                await hub.ended()
    assert str(caught.value).startswith("training of tiny.py failed at test_torch_learner.py line ")
    assert str(caught.value).endswith(": ValueError: no such class: 7")
    assert left.reason == str(caught.value)
    assert hub.all(RoundClosed)[0].answered == 1


async def test_an_update_that_holds_nan_is_refused_by_the_hub_and_the_edge_stays(tmp_path: Path) -> None:
    app = tiny_app(data=lambda: (X.clone().fill_(float("nan")), Y))
    async with running_hub(tmp_path, model=tensors_of(app), wait_for=2) as hub:
        with workshop_of(app) as workshop:
            honest = Adder(gate=asyncio.Event())
            async with edges(agent(hub.url, "nan", learner_of(workshop, "nan")), agent(hub.url, "honest", honest)):
                refused = await hub.until(UpdateRefused, edge="nan")
                honest.gate.set()
                await hub.ended()
    assert refused.code == "not-finite"
    assert {fact.reason for fact in hub.all(EdgeLeft)} == {"the run is over"}
    assert np.isfinite(read_tensors(hub.folder / "model.safetensors")["weight"]).all()


async def test_without_an_evaluator_edges_measure_on_what_they_hold_out_and_never_train_on_it(tmp_path: Path) -> None:
    trained: list[float] = []

    def noting(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if output.requires_grad:
            trained.extend(target.flatten().tolist())
        return ((output - target) ** 2).mean()

    targets = torch.arange(10.0).reshape(-1, 1)
    app = tiny_app(model=lambda: nn.Linear(1, 1), data=lambda: (torch.ones(10, 1), targets), loss=noting)
    model = {"weight": np.zeros((1, 1), np.float32), "bias": np.zeros(1, np.float32)}
    async with running_hub(tmp_path, model=model, holdout=0.3, rounds=2, lr=1e-9, metric="loss") as hub:
        with workshop_of(app) as workshop:
            async with edges(agent(hub.url, "a", learner_of(workshop, "a"))):
                joined = await hub.until(EdgeJoined)
                await hub.ended()
    closed = hub.all(RoundClosed)
    assert joined.examples == 7
    assert len(trained) == 2 * 7
    assert {fact.evaluated for fact in closed} == {"federated"}
    held_out = set(range(10)) - {int(target) for target in trained}
    assert len(held_out) == 3
    assert closed[0].metrics["loss"] == pytest.approx(sum(target**2 for target in held_out) / 3, rel=1e-4)


async def test_an_evaluator_has_the_test_data_and_needs_no_other() -> None:
    def nothing() -> None:
        raise AssertionError("an evaluator has no business here")

    app = tiny_app(data=nothing, test=lambda: (X[:4], Y[:4]))
    with workshop_of(app) as workshop:
        judge = learner_of(workshop, "judge", role=Role.EVALUATOR)
        assert await prepared(judge, welcome(tensors_of(app))) == Holdings(4, 4 * 16)


async def test_an_edge_that_holds_nothing_out_says_so_when_it_is_asked_to_measure() -> None:
    app = tiny_app()
    with workshop_of(app) as workshop:
        learner, model = learner_of(workshop, "a"), tensors_of(app)
        await prepared(learner, welcome(model))
        task = Evaluate(run="r", round=1, model="0" * 64, seconds=1.0, plan=plan())
        assert await learner.evaluate(task, model) == Measured(0, {})


async def test_the_operators_options_reach_the_app_and_those_of_the_edge_win() -> None:
    seen: list[Edge] = []

    def data(edge: Edge) -> object:
        seen.append(edge)
        return X, Y

    app = tiny_app(data=data)
    with workshop_of(app) as workshop:
        learner = learner_of(workshop, "a", options={"file": "mine"})
        await prepared(learner, welcome(tensors_of(app), options={"file": "theirs", "net": "cnn"}, plan=plan(seed=5)))
    assert seen == [Edge(index=0, count=1, seed=5, options={"file": "mine", "net": "cnn"})]


async def test_coming_back_to_the_same_run_does_not_look_for_the_data_again() -> None:
    found: list[int] = []

    def data() -> object:
        found.append(1)
        return X, Y

    app = tiny_app(data=data)
    with workshop_of(app) as workshop:
        learner = learner_of(workshop, "a")
        for _ in range(3):
            assert await prepared(learner, welcome(tensors_of(app))) == Holdings(6, 96)
        assert len(found) == 1
        assert await prepared(learner, welcome(tensors_of(app), plan=plan(holdout=0.5))) == Holdings(3, 48)
        assert len(found) == 2


async def test_a_hub_that_comes_back_with_another_run_of_other_options_finds_the_edge_willing() -> None:
    app = tiny_app(model=lambda edge: nn.Linear(2, int(edge.option("classes", "2"))))
    with workshop_of(app) as workshop:
        learner = learner_of(workshop, "a")
        for classes in ("2", "5", "2"):
            options = {"classes": classes}
            model = tensors_of(app, Edge(options=options))
            await prepared(learner, welcome(model, options=options))
            trained = await learner.train(train(), model)
            assert trained.tensors["weight"].shape == (int(classes), 2)


def test_a_device_that_is_not_there_is_refused_before_any_hub_is_asked() -> None:
    with pytest.raises(ConfigError, match="this machine has no device 'tpu'"):
        Workshop(tiny_app(), device="tpu", executor=None)


async def test_what_a_hub_does_not_know_to_have_counted_is_not_built_upon_until_it_says_so_again() -> None:
    app = tiny_app()
    app.rules["bias"] = "own"
    with workshop_of(app) as workshop:
        learner = learner_of(workshop, "a")
        model = trainer_of(app).tensors
        told = partial(welcome, model, own=("bias",))
        await prepared(learner, told())
        accepted = Receipt(run="r", round=1, attempt=1, accepted=True)
        trained = await learner.train(train(), model)
        learner.memory.heard(accepted)
        assert learner.memory.now is trained.memory
        await prepared(learner, told())  # by a hub that was killed before the round was committed, or has it open yet
        assert learner.memory.now == {}
        learner.memory.heard(accepted)
        assert learner.memory.now is trained.memory
        await prepared(learner, told(round=1))
        assert learner.memory.now is trained.memory
