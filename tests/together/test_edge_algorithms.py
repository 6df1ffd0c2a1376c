"""What edges remember survives crashes and tries that did not count, to the bit; edges measure what is their own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edge.app import Edge
from hub.events import EdgeJoined, EdgeLeft, RoundAbandoned, RoundClosed, RoundReopened, UpdateAccepted
from hub.rules.selection import select
from shared.errors import ConfigError
from shared.messages import ABANDONED, Role
from shared.tensors import Array, Tensors
from tests.support.examples import same_tensors
from tests.support.federation import Running, running_hub
from tests.support.fleet import Fleet, contract_of, fleet, newest, points, points_app
from tests.support.viewers import Viewer, viewer

REMEMBERING = ("scaffold", "feddyn(alpha=0.1)", "ditto(lam=0.3)", "fedper(own=3.*)", "fedbn")
"""Those with which an edge remembers something from round to round."""
PERSONAL = ("ditto(lam=0.3)", "fedper(own=3.*)", "fedbn", "finetune(epochs=2)")
ALGORITHMS = (*REMEMBERING, "fedprox(mu=0.3)", "qfedavg", "finetune(epochs=2)")
ROUNDS, IN = 5, 3
"""How many rounds are played, and in which of them something happens."""


@dataclass(frozen=True)
class Result:
    """All that a run has come to."""

    model: Tensors
    memory: Tensors
    """The server step's."""
    edges: dict[str, Tensors]


def assert_same(one: Result, other: Result) -> None:
    assert same_tensors(one.model, other.model)
    assert same_tensors(one.memory, other.memory)
    for name in "ab":
        assert same_tensors(one.edges[name], other.edges[name]), f"{name} remembers something else"


@asynccontextmanager
async def hub_of(folder: Path, algorithm: str, **changes: object) -> AsyncIterator[Running]:
    settings = {
        "rounds": ROUNDS,
        "wait_for": 2,
        "batch": 4,
        "lr": 0.2,
        "algorithm": algorithm,
        "deadline": 60.0,
        "holdout": 0.25 if algorithm in PERSONAL else 0.0,
        "evaluate_every": 2,
        "quorum": 1.0,
    }
    async with running_hub(folder, contract=contract_of(points_app()), **{**settings, **changes}) as hub:
        yield hub


@asynccontextmanager
async def resumed(hub: Running) -> AsyncIterator[Running]:
    """Take a run up again, where its edges look for it."""
    async with running_hub(hub.folder.parent, resume=hub.folder, port=int(hub.url.split(":")[-1])) as again:
        yield again


async def result(hub: Running, crew: Fleet) -> Result:
    """Wait for the end of a run and of its edges, and give what it has come to."""
    await hub.ended()
    await asyncio.gather(*crew.lives.values())
    last = await newest(hub.folder)
    assert last.number == ROUNDS
    return Result(last.model, last.memory, crew.remembered)


async def killed(hub: Running) -> None:
    hub.die()
    await asyncio.gather(hub.life, return_exceptions=True)


@asynccontextmanager
async def closed_without_a(hub: Running, crew: Fleet) -> AsyncIterator[Viewer]:
    """Have a round end from which edge a was lost after its update was accepted; the hub pauses then."""
    gate = asyncio.Event()
    crew.start("a", hub.url)
    crew.start("b", hub.url, held=(IN, gate))
    await hub.until(UpdateAccepted, round=IN, edge="a")
    await crew.kill("a")
    async with viewer(hub.url, hub.hub.access.keys.operator) as operator:
        assert (await operator.order("pause")).done
        gate.set()
        await hub.until(RoundClosed, round=IN)
        yield operator


_undisturbed: dict[str, Result] = {}


async def undisturbed(folder: Path, algorithm: str) -> Result:
    """Give what a run comes to in which nothing happens; it is played once."""
    if algorithm not in _undisturbed:
        async with hub_of(folder, algorithm, name="undisturbed") as hub, fleet(points_app()) as crew:
            for name in "ab":
                crew.start(name, hub.url)
            _undisturbed[algorithm] = await result(hub, crew)
        assert all(crew.remembered.values()) == (algorithm in REMEMBERING)
    return _undisturbed[algorithm]


# --- crashes ---


@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_hub_that_is_killed_in_a_round_leads_to_the_same_model_and_the_same_memories(
    tmp_path: Path, algorithm: str, told: bool
) -> None:
    gate = asyncio.Event()
    async with fleet(points_app()) as crew:
        async with hub_of(tmp_path, algorithm) as hub:
            crew.start("a", hub.url)
            crew.start("b", hub.url, held=(IN, gate))
            await hub.until(UpdateAccepted, round=IN, edge="a")
            if told:  # otherwise the connection is lost with the receipt
                await crew.told("a", round=IN)
            await killed(hub)
        gate.set()
        async with resumed(hub) as again:
            found = await result(again, crew)
    assert again.all(RoundReopened)[0].answered == ("a",)
    assert_same(found, await undisturbed(tmp_path, algorithm))


@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_so_do_edges_that_are_killed_with_it_if_they_kept_what_they_remember(
    tmp_path: Path, algorithm: str, told: bool
) -> None:
    keep = tmp_path / "kept"
    async with hub_of(tmp_path, algorithm) as hub, fleet(points_app(), keep=keep) as crew:
        crew.start("a", hub.url)
        crew.start("b", hub.url, held=(IN, asyncio.Event()))
        await hub.until(UpdateAccepted, round=IN, edge="a")
        if told:
            await crew.told("a", round=IN)
        await killed(hub)
    async with resumed(hub) as again, fleet(points_app(), keep=keep) as crew:
        for name in "ab":
            crew.start(name, again.url)
        found = await result(again, crew)
    assert_same(found, await undisturbed(tmp_path, algorithm))


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "cut-off"])
@pytest.mark.parametrize("algorithm", REMEMBERING)
async def test_an_edge_that_is_lost_before_its_receipt_came_hears_of_it_when_it_is_back(
    tmp_path: Path, algorithm: str, killed: bool
) -> None:
    gate = asyncio.Event()
    async with hub_of(tmp_path, algorithm) as hub, fleet(points_app(), keep=tmp_path / "kept") as crew:
        crew.start("a", hub.url)
        crew.start("b", hub.url, held=(IN, gate))
        await hub.until(UpdateAccepted, round=IN, edge="a")
        if killed:
            await crew.kill("a")
        else:
            hub.hub.roster.cut("a")
        await hub.until(EdgeLeft, edge="a")
        if killed:
            crew.start("a", hub.url)
        await hub.until(EdgeJoined, edge="a")
        gate.set()
        found = await result(hub, crew)
    assert_same(found, await undisturbed(tmp_path, algorithm))


@pytest.mark.parametrize("algorithm", REMEMBERING)
async def test_an_edge_that_comes_back_when_the_round_is_over_hears_that_its_answer_counted(
    tmp_path: Path, algorithm: str
) -> None:
    async with hub_of(tmp_path, algorithm) as hub, fleet(points_app(), keep=tmp_path / "kept") as crew:
        async with closed_without_a(hub, crew) as operator:
            crew.start("a", hub.url)
            await hub.until(EdgeJoined, edge="a")
            assert (await operator.order("resume")).done
        found = await result(hub, crew)
    assert_same(found, await undisturbed(tmp_path, algorithm))


@pytest.mark.parametrize("algorithm", REMEMBERING)
async def test_so_does_one_that_comes_back_to_a_hub_that_was_killed_after_the_round(
    tmp_path: Path, algorithm: str
) -> None:
    async with fleet(points_app(), keep=tmp_path / "kept") as crew:
        async with hub_of(tmp_path, algorithm) as hub:
            async with closed_without_a(hub, crew):
                pass
            await crew.kill()
            await killed(hub)
        async with resumed(hub) as again:
            for name in "ab":
                crew.start(name, again.url)
            found = await result(again, crew)
    assert_same(found, await undisturbed(tmp_path, algorithm))


async def test_edges_that_are_killed_and_kept_nothing_go_on_with_nothing_remembered(tmp_path: Path) -> None:
    async with hub_of(tmp_path, "scaffold") as hub, fleet(points_app()) as crew:
        crew.start("a", hub.url)
        crew.start("b", hub.url, held=(IN, asyncio.Event()))
        await hub.until(UpdateAccepted, round=IN, edge="a")
        await killed(hub)
    async with resumed(hub) as again, fleet(points_app()) as crew:
        for name in "ab":
            crew.start(name, again.url)
        found = await result(again, crew)
    assert not same_tensors(found.edges["a"], (await undisturbed(tmp_path, "scaffold")).edges["a"])


async def test_a_memory_that_is_damaged_is_told_before_the_edge_trains_with_nothing(tmp_path: Path) -> None:
    keep = tmp_path / "kept"
    async with hub_of(tmp_path, "scaffold") as hub:
        async with fleet(points_app(), keep=keep) as crew:
            crew.start("a", hub.url)
            crew.start("b", hub.url, held=(IN, asyncio.Event()))
            await crew.told("a", round=IN)
            await crew.kill("a")
            (file,) = (path for path in keep.rglob("*.safetensors") if "a" in path.parts)
            file.write_bytes(file.read_bytes()[:-1])
            with pytest.raises(ConfigError, match="delete it to begin with nothing remembered"):
                await crew.start("a", hub.url)


# --- tries that did not count ---


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_round_that_is_abandoned_and_asked_again_leaves_no_trace(tmp_path: Path, algorithm: str) -> None:
    async with hub_of(tmp_path, algorithm, deadline=0.7, retries=20) as hub, fleet(points_app()) as crew:
        crew.start("a", hub.url)
        crew.start("b", hub.url, held=(IN, asyncio.Event()))
        await hub.until(
            UpdateAccepted,
            round=IN,
            edge="a",
        )
        abandoned = await hub.until(RoundAbandoned, round=IN)
        taken_back = await crew.told("a", round=IN, accepted=False)
        found = await result(hub, crew)
    assert (abandoned.attempt, abandoned.answered, abandoned.late) == (1, 1, ("b",))  # type: ignore[union-attr]
    assert taken_back.code == ABANDONED
    assert crew.said["a"].count(f"round {IN}: does not count: too few answered round {IN}; it is asked again") == 1
    assert_same(found, await undisturbed(tmp_path, algorithm))


async def test_what_an_edge_remembers_is_taken_back_even_if_it_is_not_asked_again(tmp_path: Path) -> None:
    async with hub_of(tmp_path, "scaffold", deadline=0.5, retries=0) as hub, fleet(points_app()) as crew:
        crew.start("a", hub.url)
        crew.start("b", hub.url, held=(IN, asyncio.Event()))
        await crew.told("a", round=IN - 1)
        before = crew.memories["a"].now
        await crew.told("a", round=IN)
        assert not same_tensors(crew.memories["a"].now, before)
        await crew.told("a", round=IN, accepted=False)
        assert same_tensors(crew.memories["a"].now, before)
        await hub.ended()


@pytest.mark.parametrize("edges_live", [True, False], ids=["edges-live-on", "edges-die"])
@pytest.mark.parametrize("stopped", [True, False], ids=["stopped", "killed"])
@pytest.mark.parametrize("algorithm", ["scaffold", "ditto(lam=0.3)"])
async def test_a_hub_that_keeps_whole_rounds_only_asks_again_and_comes_to_the_same(
    tmp_path: Path, algorithm: str, stopped: bool, edges_live: bool
) -> None:
    gate, keep = asyncio.Event(), tmp_path / "kept"
    async with fleet(points_app(), keep=keep) as crew:
        async with hub_of(tmp_path, algorithm, durability="round") as hub:
            crew.start("a", hub.url)
            crew.start("b", hub.url, held=(IN, gate))
            await crew.told("a", round=IN)
            if stopped:
                hub.hub.stop()
                await hub.ended()
            else:
                await killed(hub)
        if not edges_live:
            await crew.kill()
        gate.set()
        async with resumed(hub) as again:
            if not edges_live:
                for name in "ab":
                    crew.start(name, again.url)
            found = await result(again, crew)
    assert_same(found, await undisturbed(tmp_path, algorithm))


def alike(edge: Edge) -> tuple[Array, Array]:
    """Give each edge as many points."""
    x, y = points(edge)
    return x[:12], y[:12]


def seed_that_asks(names: str, *, without: str) -> int:
    """Find a seed with which `without` is asked in the first try at round `IN`, and not in the second."""
    choose = partial(select, list(names), fraction=0.5, over_selection=1.0, round=IN)
    return next(
        seed
        for seed in range(1000)
        if without in choose(seed=seed, attempt=1)[0] and without not in choose(seed=seed, attempt=2)[0]
    )


async def test_the_edges_control_variates_add_up_to_the_hubs_whoever_took_part_and_whatever_was_abandoned(
    tmp_path: Path,
) -> None:
    names, app = "abcd", points_app(data=alike)
    chosen = {"fraction": 0.5, "wait_for": 4, "deadline": 0.5, "retries": 20}
    async with hub_of(tmp_path, "scaffold", seed=seed_that_asks(names, without="a"), **chosen) as hub:
        async with fleet(app, names) as crew:
            crew.start("a", hub.url)
            for name in "bcd":
                crew.start(name, hub.url, held=(IN, asyncio.Event()))
            await crew.told("a", round=IN)
            await hub.until(RoundAbandoned, round=IN)
            await crew.told("a", round=IN, accepted=False)
            await hub.ended()
            await asyncio.gather(*crew.lives.values())
    last = await newest(hub.folder)
    for key, common in last.memory.items():
        name = key.removeprefix("scaffold c ")
        own = [one.get(f"scaffold c_k {name}", np.zeros_like(common)) for one in crew.remembered.values()]
        np.testing.assert_allclose(sum(own) / len(names), common, atol=1e-6)
    assert max(np.abs(common).max() for common in last.memory.values()) > 0.01


# --- what edges measure ---


@pytest.mark.parametrize("algorithm", PERSONAL)
async def test_edges_measure_models_of_their_own_even_if_an_evaluator_is_there(tmp_path: Path, algorithm: str) -> None:
    app = points_app(test=points)
    async with hub_of(tmp_path, algorithm, evaluate_every=1) as hub, fleet(app) as crew:
        crew.start("judge", hub.url, role=Role.EVALUATOR)
        await hub.until(EdgeJoined, edge="judge")
        for name in "ab":
            crew.start(name, hub.url)
        ended = await hub.ended()
    own = {"personal_accuracy", "personal_loss"} if algorithm.startswith(("ditto", "finetune")) else set()
    for closed in hub.all(RoundClosed):
        assert closed.evaluated == "federated"
        assert set(closed.metrics) == {"accuracy", "loss"} | own
    if own:
        assert ended.summary.metrics["personal_loss"] < ended.summary.metrics["loss"]
