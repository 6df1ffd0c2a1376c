"""A training script that exists already keeps its shape: `for task in join(url): ... task.reply(...)`."""

import asyncio
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from edge import join
from edge.learner import Trained
from edge.script import Task
from hub.events import EdgeJoined, EdgeLeft, RoundClosed, UpdateAccepted
from shared.errors import ConfigError, TurnedAway, Unreachable
from shared.snapshot import read_tensors
from tests.support.federation import MODEL, Adder, agent, edges, running_hub
from tests.support.tiny import plan


def adding(amount: float, *, to: Task) -> dict[str, torch.Tensor]:
    """Train, in a way: add `amount` to every float and 1 to every integer."""
    return {name: tensor + (amount if tensor.is_floating_point() else 1) for name, tensor in to.state_dict().items()}


async def script(url: str, each: Callable[[Task], object], *, name: str = "script", patience: float = 5.0) -> list[int]:
    """Run a script in a thread, as join blocks; give the rounds it saw."""

    def whole() -> list[int]:
        rounds = []
        for task in join(url, name=name, patience=patience):
            rounds.append(task.round)
            each(task)
        return rounds

    return await asyncio.to_thread(whole)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def test_what_scripts_reply_is_averaged_exactly_by_their_examples(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rounds=2, wait_for=2) as hub:
        rounds = await asyncio.gather(
            script(hub.url, lambda task: task.reply(adding(1.0, to=task), examples=1, loss=3.0), name="a"),
            script(hub.url, lambda task: task.reply(adding(4.0, to=task), examples=2, loss=1.0), name="b"),
        )
        await hub.ended()
    assert rounds == [[1, 2], [1, 2]]
    model = read_tensors(hub.folder / "model.safetensors")
    np.testing.assert_array_equal(model["weight"], MODEL["weight"] + 6.0)
    np.testing.assert_array_equal(model["bias"], MODEL["bias"] + 6.0)
    assert model["steps"] == 2
    assert {(fact.edge, fact.loss, fact.examples) for fact in hub.all(UpdateAccepted)} == {
        ("a", 3.0, 1),
        ("b", 1.0, 2),
    }


async def test_a_task_tells_the_plan_and_its_tensors_are_the_scripts_own(tmp_path: Path) -> None:
    seen: list[Task] = []

    def each(task: Task) -> None:
        seen.append(task)
        for tensor in task.state_dict().values():
            tensor.zero_()
        task.reply(adding(1.0, to=task), examples=1, loss=1.0)

    async with running_hub(tmp_path, epochs=7, batch=3, lr=0.25, deadline=20.0) as hub:
        await script(hub.url, each)
    (task,) = seen
    assert (task.plan.epochs, task.plan.batch, task.plan.lr, task.plan.local) == (7, 3, 0.25, "sgd")
    assert 0 < task.seconds <= 20
    assert read_tensors(hub.folder / "model.safetensors")["weight"].tolist() == (MODEL["weight"] + 1).tolist()


async def test_with_fedsgd_the_hub_takes_the_step_that_the_script_took(tmp_path: Path) -> None:
    async with running_hub(tmp_path, algorithm="fedsgd", lr=0.125, wait_for=2) as hub:
        await asyncio.gather(
            script(hub.url, lambda task: task.reply(adding(-0.5, to=task), examples=1, loss=1.0), name="a"),
            script(hub.url, lambda task: task.reply(adding(-2.0, to=task), examples=2, loss=1.0), name="b"),
        )
    model = read_tensors(hub.folder / "model.safetensors")
    np.testing.assert_array_equal(model["weight"], MODEL["weight"] - 1.5)
    assert model["steps"] == 1


async def test_with_fedsgd_what_is_averaged_is_told_by_how_far_it_moved_and_no_step_is_made_of_it() -> None:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Trained] = loop.create_future()
    model = {"w": np.ones(2, np.float32), "mean": np.zeros(2, np.float32), "count": np.array(3)}
    task = Task(1, plan(local="gradient", lr=0.25), 1.0, model, frozenset({"mean", "count"}), answer, loop)
    after = {"w": torch.tensor([0.5, 2.0]), "mean": torch.tensor([0.25, -1.0]), "count": torch.tensor(4)}
    task.reply(after, examples=2, loss=1.0)
    trained = await answer
    assert {name: array.tolist() for name, array in trained.tensors.items()} == {
        "w": [2.0, -4.0],
        "mean": [0.25, -1.0],
        "count": 4,
    }
    assert (trained.examples, trained.metrics) == (2, {"loss": 1.0})


async def test_a_reply_may_hold_what_is_frozen_or_has_a_second_name_and_it_is_left_out(tmp_path: Path) -> None:
    def each(task: Task) -> None:
        state = adding(1.0, to=task)
        more = {"base": torch.zeros(2), "mask": torch.zeros(2, dtype=torch.complex64), **state, "tied": state["bias"]}
        task.reply(more, examples=1, loss=1.0)

    async with running_hub(tmp_path) as hub:
        assert await script(hub.url, each) == [1]
        await hub.ended()
    assert read_tensors(hub.folder / "model.safetensors")["weight"].tolist() == (MODEL["weight"] + 1).tolist()


@pytest.mark.parametrize("algorithm", ["scaffold", "feddyn", "fedprox", "qfedavg", "ditto", "fedper(own=bias)"])
async def test_a_script_is_told_which_algorithms_need_an_app(tmp_path: Path, algorithm: str) -> None:
    async with running_hub(tmp_path, algorithm=algorithm, holdout=0.5) as hub:
        with pytest.raises(ConfigError, match=r" has edges do more than train, which a script cannot do for it: join"):
            await script(hub.url, lambda task: None)


async def test_with_fine_tuning_a_script_trains_and_leaves_measuring_to_others(tmp_path: Path) -> None:
    async with running_hub(tmp_path, algorithm="finetune", holdout=0.5) as hub:
        assert await script(hub.url, lambda task: task.reply(adding(1.0, to=task), examples=1, loss=1.0)) == [1]
        await hub.ended()
    assert hub.all(RoundClosed)[0].metrics == {}


@pytest.mark.parametrize(
    ("spoil", "difference"),
    [
        (lambda state: {**state, "bias": torch.zeros(4)}, "bias float32[4] instead of bias float32[3]"),
        (lambda state: {**state, "bias": state["bias"].double()}, "bias float64[3] instead of bias float32[3]"),
        (lambda state: {"weight": state["weight"]}, "1 tensors instead of 3"),
        (
            lambda state: {f"net.{name}": tensor for name, tensor in state.items()},
            "net.weight float32[2, 3] instead of",
        ),
    ],
)
async def test_a_reply_of_another_model_is_answered_with_the_difference(
    tmp_path: Path, spoil: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], difference: str
) -> None:
    def each(task: Task) -> None:
        with pytest.raises(ConfigError) as caught:
            task.reply(spoil(task.state_dict()), examples=1, loss=1.0)
        assert str(caught.value).startswith(f"the replied state dict is not of the hub's model: it has {difference}")
        task.reply(adding(1.0, to=task), examples=1, loss=1.0)  # and the script can do better

    async with running_hub(tmp_path) as hub:
        assert await script(hub.url, each) == [1]
        await hub.ended()
    assert hub.all(RoundClosed)[0].answered == 1


async def test_a_script_that_is_slower_than_the_rounds_gets_the_newest_task_next(tmp_path: Path) -> None:
    go = threading.Event()

    def each(task: Task) -> None:
        assert go.wait(20)
        task.reply(adding(0.0, to=task), examples=1, loss=1.0)

    async with running_hub(tmp_path, rounds=6, wait_for=2, deadline=0.15) as hub:
        async with edges(agent(hub.url, "fast", Adder())):
            slow = asyncio.create_task(script(hub.url, each))
            await hub.until(RoundClosed, round=4)
            go.set()
            await hub.ended()
            rounds = await slow
    assert rounds[0] == 1
    assert set(rounds) & {2, 3} == set()


async def test_a_reply_after_the_run_is_over_is_nobodys_mistake(tmp_path: Path) -> None:
    go = threading.Event()

    def each(task: Task) -> None:
        assert go.wait(20)
        task.reply(adding(0.0, to=task), examples=1, loss=1.0)
        task.reply(adding(0.0, to=task), examples=1, loss=1.0)

    async with running_hub(tmp_path, wait_for=2, deadline=0.15) as hub:
        async with edges(agent(hub.url, "fast", Adder())):
            slow = asyncio.create_task(script(hub.url, each))
            await hub.ended()
    for thread in threading.enumerate():
        if thread.name == "fedhub edge":  # it ends by itself, and its event loop with it
            await asyncio.to_thread(thread.join)
    go.set()
    assert await slow == [1]


async def test_a_script_that_breaks_off_its_loop_leaves_the_hub(tmp_path: Path) -> None:
    def once(url: str) -> None:
        for task in join(url, name="quitter"):
            task.reply(adding(1.0, to=task), examples=1, loss=1.0)
            break

    async with running_hub(tmp_path, rounds=2) as hub:
        gone = asyncio.create_task(asyncio.to_thread(once, hub.url))
        await hub.until(EdgeLeft, edge="quitter")
        await gone
        await script(hub.url, lambda task: task.reply(adding(1.0, to=task), examples=1, loss=1.0))
        await hub.ended()


def test_a_hub_that_was_never_there_is_answered_at_once_with_what_to_do() -> None:
    with pytest.raises(Unreachable, match=r"nothing listens there\)\. Is the hub running, and on that port\?"):
        next(join(f"ws://127.0.0.1:{free_port()}"))


async def test_a_hub_that_went_away_is_waited_for_and_then_given_up(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rounds=1000) as hub:
        life = asyncio.create_task(
            script(hub.url, lambda task: task.reply(adding(1.0, to=task), examples=1, loss=1.0), patience=0.0)
        )
        await hub.until(RoundClosed, round=2)
        hub.hub.stop()
        await hub.ended()
    with pytest.raises(Unreachable, match="gave up on"):
        await life


async def test_a_script_whose_name_another_takes_is_turned_away(tmp_path: Path) -> None:
    async with running_hub(tmp_path, wait_for=2) as hub:
        first = asyncio.create_task(script(hub.url, lambda task: None, name="same"))
        await hub.until(EdgeJoined, edge="same")
        async with edges(agent(hub.url, "same", Adder())):
            with pytest.raises(TurnedAway, match="another connection took the name same"):
                await first


@pytest.mark.parametrize("url", ["", "ftp://hub", "ws://", "ws://hub:port"])
def test_what_is_no_address_is_a_mistake_of_the_caller(url: str) -> None:
    with pytest.raises(ConfigError, match="is not the address of a hub; write it like ws://"):
        next(join(url))


def test_a_name_that_hubs_would_not_take_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ConfigError, match="an edge cannot be called 'my laptop'; write up to 64 letters, digits"):
        next(join("ws://127.0.0.1:9", name="my laptop"))
