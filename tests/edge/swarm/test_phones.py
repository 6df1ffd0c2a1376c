"""Twenty phones in one process, each with its own connection, complete rounds with a real hub."""

import asyncio
import threading
from pathlib import Path

import pytest
import torch

from edge.agent import Patience
from edge.app import App, Edge
from edge.swarm.device import Profile, assign
from edge.swarm.phones import Swarm
from hub.events import EdgeJoined, EdgeLeft, RoundClosed, StrangerRefused
from shared.errors import ConfigError, Unreachable
from shared.messages import Role
from shared.snapshot import read_tensors
from tests.support.federation import running_hub
from tests.support.tiny import X, Y, tensors_of, tiny_app

PROFILES = {"instant": Profile(), "leaving": Profile(leave=0.2, away=0.02)}


def swarm(
    url: str, app: App, *, mix: str = "instant", n: int = 20, evaluator: bool = False, prefix: str = "edge"
) -> Swarm:
    return Swarm(
        url=url,
        app=app,
        devices=assign(mix, PROFILES, n),
        prefix=prefix,
        seed=0,
        evaluator=evaluator,
        device="cpu",
        options={},
        patience=Patience(first=0.0, again=5.0, base=0.01, cap=0.05),
        tell=lambda line: None,
    )


async def test_twenty_phones_and_an_evaluator_complete_rounds_and_end_with_the_hub(tmp_path: Path) -> None:
    app = tiny_app(test=lambda: (X, Y))
    async with running_hub(tmp_path, model=tensors_of(app), rounds=5, wait_for=20, lr=0.3) as hub:
        await swarm(hub.url, app, evaluator=True).live()
        await hub.ended()
    closed = hub.all(RoundClosed)
    assert [(fact.answered, fact.asked) for fact in closed] == [(20, 20)] * 5
    joined = {fact.edge: fact.role for fact in hub.all(EdgeJoined)}
    assert joined == {f"edge-{index:02d}": Role.TRAINER for index in range(1, 21)} | {"edge-evaluator": Role.EVALUATOR}
    assert closed[-1].evaluated == "central"


async def test_each_phone_has_a_part_of_the_data_and_a_share_in_one_thread(tmp_path: Path) -> None:
    parts: list[tuple[int, int]] = []
    threads: set[str] = set()

    def data(edge: Edge) -> tuple[torch.Tensor, torch.Tensor]:
        parts.append((edge.index, edge.count))
        threads.add(threading.current_thread().name)
        return X[: edge.index + 1], Y[: edge.index + 1]

    app = tiny_app(data=data)
    async with running_hub(tmp_path, model=tensors_of(app), wait_for=5) as hub:
        await swarm(hub.url, app, n=5, prefix="phone").live()
        await hub.ended()
    assert sorted(parts) == [(index, 5) for index in range(5)]
    assert {fact.edge: fact.examples for fact in hub.all(EdgeJoined)} == {
        f"phone-0{index}": index for index in range(1, 6)
    }
    assert threads == {"training_0"}


async def test_phones_that_leave_in_the_middle_of_a_round_come_back(tmp_path: Path) -> None:
    app = tiny_app()
    async with running_hub(tmp_path, model=tensors_of(app), rounds=6, wait_for=20, quorum=0.1) as hub:
        await swarm(hub.url, app, mix="leaving").live()
        await hub.ended()
    left = [fact.edge for fact in hub.all(EdgeLeft) if fact.reason != "the run is over"]
    joined = [fact.edge for fact in hub.all(EdgeJoined)]
    assert left
    assert len(hub.all(RoundClosed)) == 6
    assert any(joined.count(edge) > 1 for edge in left)


async def test_a_swarm_with_the_same_seed_ends_with_the_same_model(tmp_path: Path) -> None:
    app, models = tiny_app(), []
    for name in ("one", "two"):
        async with running_hub(tmp_path, name=name, model=tensors_of(app), rounds=3, batch=2, wait_for=10) as hub:
            await swarm(hub.url, app, n=10).live()
            await hub.ended()
        models.append(read_tensors(hub.folder / "model.safetensors"))
    one, two = models
    assert all((one[name] == two[name]).all() for name in one)


async def test_what_ends_one_phone_for_good_ends_the_swarm_and_the_hub_hears_why(tmp_path: Path) -> None:
    def data(edge: Edge) -> object:
        return (X, Y) if edge.index != 3 else None

    async with running_hub(tmp_path, model=tensors_of(tiny_app()), wait_for=20) as hub:
        with pytest.raises(ConfigError, match=r"^data\(\) of tiny.py must return a Dataset, .*; it returned nothing$"):
            await asyncio.wait_for(swarm(hub.url, tiny_app(data=data)).live(), 20)
        refused = await hub.until(StrangerRefused)
    assert refused.reason.startswith("edge-04 left: data() of tiny.py must return")


async def test_a_swarm_without_a_hub_ends_with_a_sentence() -> None:
    with pytest.raises(Unreachable, match="nothing listens there"):
        await swarm("ws://127.0.0.1:9", tiny_app()).live()


async def test_phones_of_an_impossible_name_are_refused_before_any_hub_is_asked() -> None:
    with pytest.raises(ConfigError, match=r"an edge cannot be called 'my phone-\d\d'"):
        await swarm("ws://127.0.0.1:9", tiny_app(), prefix="my phone").live()
