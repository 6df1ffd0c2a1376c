"""The same updates give the same bits, bad ones change none of them, and a run can be recomputed from what it kept."""

import asyncio
import random
from pathlib import Path

import numpy as np
import pytest

from hub.events import RoundClosed, UpdateRefused
from hub.journal import Journal
from hub.verify import verify
from shared.console import run as run_command
from shared.errors import ConfigError, JournalError
from tests.support.federation import MODEL, Adder, agent, edges, raw_edge, running_hub
from tests.together.bad_updates import BAD


async def verdicts(folder: Path) -> list[tuple[int, int]]:
    """Verify a run; give each round with the number of updates it was recomputed from."""
    return [(verdict.round, verdict.updates) async for verdict in verify(folder)]


async def a_run(folder: Path, **settings: object) -> Path:
    """Play four rounds with three edges; give the run folder."""
    async with running_hub(folder, rounds=4, wait_for=3, **settings) as hub:
        fleet = [agent(hub.url, name, Adder(0.1 * index + 0.3, examples=index)) for index, name in enumerate("abc", 1)]
        async with edges(*fleet):
            await hub.ended()
    return hub.folder


async def test_a_run_that_keeps_its_updates_is_recomputed_to_the_bit(tmp_path: Path) -> None:
    folder = await a_run(tmp_path, keep_updates="all")
    assert await verdicts(folder) == [(0, 0), (1, 3), (2, 3), (3, 3), (4, 3)]


async def test_only_as_many_rounds_are_kept_as_was_asked_for(tmp_path: Path) -> None:
    folder = await a_run(tmp_path, keep_updates=2)
    assert await verdicts(folder) == [(0, 0), (1, 0), (2, 0), (3, 3), (4, 3)]
    assert [path.name for path in sorted((folder / "updates").iterdir())] == ["r00003.updates", "r00004.updates"]


async def test_a_gradient_step_is_recomputed_too(tmp_path: Path) -> None:
    folder = await a_run(tmp_path, keep_updates="all", algorithm="fedsgd", lr=0.7)
    assert await verdicts(folder) == [(0, 0), (1, 3), (2, 3), (3, 3), (4, 3)]


async def test_a_commit_that_its_updates_do_not_lead_to_is_found(tmp_path: Path) -> None:
    folder = await a_run(tmp_path, keep_updates="all")
    (folder / "updates" / "r00003.updates").write_bytes((folder / "updates" / "r00002.updates").read_bytes())
    (folder / "updates" / "r00002.updates").unlink()
    with pytest.raises(JournalError, match="round 3: its updates give"):
        await verdicts(folder)


async def test_the_command_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from hub.__main__ import cli

    folder = await a_run(tmp_path, keep_updates=1)
    capsys.readouterr()
    assert await asyncio.to_thread(run_command, cli, ["verify", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "recomputed from 3 updates: the same" in lines[0]
    assert lines[1] == "4 rounds committed, their proofs hold; 1 recomputed to the bit"


async def test_what_is_no_run_cannot_be_verified(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run folder"):
        await verdicts(tmp_path)


async def test_updates_are_gone_after_their_round_unless_they_shall_be_kept(tmp_path: Path) -> None:
    folder = await a_run(tmp_path)
    assert not list((folder / "spool").iterdir())
    assert not list((folder / "updates").iterdir())


async def test_without_a_spool_a_run_comes_to_the_same_model(tmp_path: Path) -> None:
    models = []
    for durability in ("update", "round"):
        folder = await a_run(tmp_path, name=durability, durability=durability)
        async with Journal(folder) as journal:
            models.append((await journal.resume()).newest.sha256)
    assert models[0] == models[1]


async def _with_bad_ones(folder: Path, bad: list[str], *, name: str) -> tuple[str, list[str]]:
    """Play a round of 20 honest edges and some that send the bad updates named; give the model and the refusals."""
    async with running_hub(folder, name=name, wait_for=20 + len(bad), deadline=60) as hub:
        gate = asyncio.Event()
        honest = [
            agent(hub.url, f"honest-{index:02d}", Adder(float(np.sin(index)), examples=index + 1, gate=gate))
            for index in range(20)
        ]
        async with edges(*honest):
            stack = [raw_edge(hub.url, f"bad-{index}") for index in range(len(bad))]
            raw = [await one.__aenter__() for one in stack]
            tasks = [await one.train() for one in raw]
            for one, task, why in zip(raw, tasks, bad, strict=True):
                await one.answer(task, **BAD[why])
            for _ in bad:
                await hub.until(UpdateRefused)
            gate.set()
            for one in stack:
                await one.__aexit__(None, None, None)
            ended = await hub.ended()
    refused = [fact.code for fact in hub.all(UpdateRefused)]
    assert hub.all(RoundClosed)[0].answered == 20
    return ended.summary.model, refused


@pytest.mark.parametrize("seed", range(6))
async def test_five_bad_edges_of_25_leave_the_model_that_of_the_other_20(tmp_path: Path, seed: int) -> None:
    mix = random.Random(seed).sample(sorted(BAD), 5)
    clean, _ = await _with_bad_ones(tmp_path, [], name="clean")
    mixed, refused = await _with_bad_ones(tmp_path, mix, name="mixed")
    assert mixed == clean
    assert sorted(refused) == sorted(why.split(" ")[0] for why in mix)


async def test_an_edge_that_lies_about_its_examples_weighs_ten_times_the_median_at_most(tmp_path: Path) -> None:
    async with running_hub(tmp_path, wait_for=3) as hub:
        liar = Adder(100.0, examples=1_000_000)
        async with edges(
            agent(hub.url, "liar", liar), agent(hub.url, "a", Adder(examples=3)), agent(hub.url, "b", Adder(examples=3))
        ):
            await hub.ended()
    assert max(fact.weight for fact in hub.facts if hasattr(fact, "weight")) == 30
    assert MODEL  # the honest ones still count
