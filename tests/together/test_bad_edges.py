"""Edges whose training goes wrong are named, on the hub and on the edge, and nothing of them is averaged in silence."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edge.app import Edge
from hub.events import EdgeLeft, RoundAbandoned, RoundClosed, RunEnded, StrangerRefused, UpdateAccepted, UpdateRefused
from shared.errors import ConfigError, ExitCode
from tests.support.federation import Running, running_hub
from tests.support.fleet import Fleet, contract_of, fleet, newest, points, points_app

PERSONAL = ("ditto", "finetune", "fedper(own=3.*)", "fedbn")
LOCALS = ("fedavg", "fedsgd", "scaffold", "feddyn", "fedprox", "qfedavg", *PERSONAL)
Data = tuple[Any, Any]


def mixed(bad: Callable[[Edge], Data]) -> Callable[[Edge], Data]:
    """Give the edge called b bad data, and the other one good."""
    return lambda edge: bad(edge) if edge.index == 1 else points(edge)


def nan(edge: Edge) -> Data:
    x, y = points(edge)
    x[0, 0] = np.nan
    return x, y


def huge(edge: Edge) -> Data:
    x, y = points(edge)
    return x * np.float32(1e30), y


def one_class(edge: Edge) -> Data:
    x, y = points(edge)
    return x, np.zeros_like(y)


def plain() -> nn.Module:
    """Make a net without normalisation, which would tame what explodes; its last layer is called 3, too."""
    return nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))


async def played(
    folder: Path, data: Callable[[Edge], Data], *, model: Callable[[], nn.Module] | None = None, **settings: object
) -> tuple[Running, Fleet]:
    app = points_app(data=data, **({"model": model} if model else {}))
    fixed = {"rounds": 2, "wait_for": 2, "batch": 4}
    async with running_hub(folder, contract=contract_of(app), **{**fixed, **settings}) as hub, fleet(app) as crew:
        for name in "ab":
            crew.start(name, hub.url)
        await hub.ended()
        await asyncio.gather(*crew.lives.values())
    return hub, crew


def holdout_for(algorithm: str) -> float:
    return 0.25 if algorithm in PERSONAL else 0.0


@pytest.mark.parametrize("algorithm", LOCALS)
async def test_an_edge_whose_loss_is_nan_is_refused_by_name_and_the_run_goes_on_without_it(
    tmp_path: Path, algorithm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hub, crew = await played(tmp_path, mixed(nan), algorithm=algorithm, holdout=holdout_for(algorithm))
    assert [fact.answered for fact in hub.all(RoundClosed)] == [1, 1]  # type: ignore[union-attr]
    assert [fact.refused for fact in hub.all(RoundClosed)] == [{"b": "not-finite"}] * 2  # type: ignore[union-attr]
    reason = "the loss is nan: training diverged on that edge"
    assert crew.said["b"].count(f"round 1: refused (not-finite): {reason}") == 1
    logged = [json.loads(line)["fact"] for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    assert [(fact["edge"], fact["reason"]) for fact in logged if fact["event"] == "UpdateRefused"] == [
        ("b", reason)
    ] * 2
    last = await newest(hub.folder)
    assert all(np.isfinite(array).all() for array in (*last.model.values(), *last.memory.values()))
    assert not crew.memories["b"].now, "what did not count is not remembered"


@pytest.mark.parametrize("algorithm", LOCALS[:-1])
async def test_an_edge_whose_numbers_explode_is_refused_by_name_and_the_run_goes_on_without_it(
    tmp_path: Path, algorithm: str
) -> None:
    hub, crew = await played(tmp_path, mixed(huge), model=plain, algorithm=algorithm, holdout=holdout_for(algorithm))
    assert [fact.answered for fact in hub.all(RoundClosed)] == [1, 1]  # type: ignore[union-attr]
    refused = hub.all(UpdateRefused)
    assert {(fact.edge, fact.round) for fact in refused} == {("b", 1), ("b", 2)}  # type: ignore[union-attr]
    for fact in refused:
        assert fact.code in ("too-large", "not-finite")  # type: ignore[union-attr]
        said = f"round {fact.round}: refused ({fact.code}): {fact.reason}"  # type: ignore[union-attr]
        assert crew.said["b"].count(said) == 1
    last = await newest(hub.folder)
    assert max(float(np.abs(array).max()) for array in (*last.model.values(), *last.memory.values())) < 100
    assert not crew.memories["b"].now


async def test_where_all_edges_are_refused_the_run_stops_and_says_so(tmp_path: Path) -> None:
    app = points_app(data=nan)
    async with running_hub(tmp_path, contract=contract_of(app), wait_for=2, retries=2) as hub, fleet(app) as crew:
        for name in "ab":
            crew.start(name, hub.url)
        ended = await hub.ended()
        why = "round 1 had too few answers 3 times in a row"
        await crew.says("a", f"the hub says goodbye: the hub has stopped: {why}")
    assert ended.code is ExitCode.TOO_FEW_EDGES
    assert [fact.refused for fact in hub.all(RoundAbandoned)] == [  # type: ignore[union-attr]
        {"a": "not-finite", "b": "not-finite"}
    ] * 3


async def test_an_edge_without_examples_is_told_so_and_so_is_the_hub(tmp_path: Path) -> None:
    app = points_app(data=lambda: (torch.zeros(0, 2), torch.zeros(0, dtype=torch.long)))
    async with running_hub(tmp_path, contract=contract_of(app), algorithm="scaffold") as hub, fleet(app) as crew:
        with pytest.raises(ConfigError, match=r"data\(\) of points\.py returned no examples"):
            await crew.start("a", hub.url)
        refused = await hub.until(StrangerRefused)
    assert refused.reason == "a left: data() of points.py returned no examples"  # type: ignore[union-attr]


@pytest.mark.parametrize("algorithm", LOCALS)
@pytest.mark.parametrize("data", [mixed(one_class), points], ids=["one-class-only", "fewer-than-a-batch"])
async def test_one_class_only_and_batches_larger_than_the_data_are_no_reason_to_refuse_anybody(
    tmp_path: Path, algorithm: str, data: Callable[[Edge], Data]
) -> None:
    hub, _ = await played(tmp_path, data, algorithm=algorithm, batch=1000, holdout=holdout_for(algorithm))
    assert len(hub.all(UpdateAccepted)) == 4
    assert not hub.all(UpdateRefused)
    last = await newest(hub.folder)
    assert all(np.isfinite(array).all() for array in last.model.values())


@pytest.mark.parametrize("algorithm", LOCALS)
async def test_an_edge_with_one_example_takes_part(tmp_path: Path, algorithm: str) -> None:
    one: Callable[[Edge], Data] = lambda edge: tuple(part[:1] for part in points(edge))  # type: ignore[return-value] # noqa: E731
    hub, _ = await played(tmp_path, mixed(one), algorithm=algorithm, holdout=holdout_for(algorithm))
    assert len(hub.all(UpdateAccepted)) == 4
    assert {fact.examples for fact in hub.all(UpdateAccepted) if fact.edge == "b"} == {1}  # type: ignore[union-attr]
    assert {fact.reason for fact in hub.all(EdgeLeft)} == {"the run is over"}  # type: ignore[union-attr]


def halves(edge: Edge) -> Data:
    x, y = points(edge)
    return x.astype(np.float16), y


@pytest.mark.parametrize("name", ["scaffold", "fedavgm", "fedadam"])
async def test_when_the_hubs_step_diverges_everybody_is_told_why_and_the_last_model_is_kept(
    tmp_path: Path, name: str
) -> None:
    app = points_app(model=lambda: nn.Linear(2, 2).half(), data=halves)
    algorithm = f"{name}(server_lr=1000000.0)"
    async with running_hub(
        tmp_path, contract=contract_of(app), wait_for=2, batch=1, lr=1.0, algorithm=algorithm
    ) as hub:
        async with fleet(app) as crew:
            for edge in "ab":
                crew.start(edge, hub.url)
            ended = await hub.ended()
            assert ended.code is ExitCode.FAILURE
            (fact,) = hub.all(RunEnded)
            told = f"the hub says goodbye: the hub has stopped: {fact.reason}"  # type: ignore[union-attr]
            for edge in "ab":
                await crew.says(edge, told)
    assert fact.reason.startswith(f"round 1 of {algorithm} would make ")  # type: ignore[union-attr]
    assert fact.reason.endswith(  # type: ignore[union-attr]
        " infinite or NaN: training diverges, a smaller lr (or server_lr) may help. The model of round 0 is saved"
    )
    assert (await newest(hub.folder)).number == 0
