"""Stopping and going on: what is committed stays, and a resumed run is the run that never stopped."""

import asyncio
from pathlib import Path

import pytest

from hub.events import (
    DiskTrouble,
    EdgeJoined,
    RoundAbandoned,
    RoundClosed,
    RoundReopened,
    RunEnded,
    StopRequested,
    UpdateAccepted,
    WaitingForEdges,
)
from shared.errors import ConfigError, ExitCode, LinkClosed
from shared.link import connect
from shared.messages import Goodbye, Hello, News, Role
from shared.snapshot import read_tensors
from shared.tensors import sha256
from tests.support.federation import Adder, agent, edges, raw_edge, running_hub


async def test_a_stop_closes_the_round_with_what_is_in(tmp_path: Path) -> None:
    waiting = Adder(gate=asyncio.Event())
    async with running_hub(tmp_path, rounds=9, wait_for=2, deadline=600) as hub:
        async with edges(agent(hub.url, "fast", Adder()), agent(hub.url, "waits", waiting)):
            await hub.until(UpdateAccepted, edge="fast")
            hub.hub.stop()
            ended = await asyncio.wait_for(hub.ended(), 10)
    assert ended.stopped
    assert ended.code is ExitCode.DONE
    assert hub.all(StopRequested)[0].answered == 1
    assert hub.all(RoundClosed)[0].outcome == "stopped"
    assert ended.summary.rounds == 1
    assert not hub.all(RunEnded)[0].finished


async def test_a_stop_leaves_a_round_with_too_few_answers_open_for_later(tmp_path: Path) -> None:
    fast, waiting = Adder(), [Adder(gate=asyncio.Event()) for _ in range(3)]
    async with running_hub(tmp_path, wait_for=4, deadline=600) as hub:
        port = int(hub.url.rsplit(":", 1)[1])
        slow = [agent(hub.url, f"waits-{index}", learner) for index, learner in enumerate(waiting)]
        async with edges(agent(hub.url, "fast", fast), *slow):
            await hub.until(UpdateAccepted, edge="fast")
            hub.hub.stop()
            ended = await asyncio.wait_for(hub.ended(), 10)
            assert (ended.summary.rounds, hub.all(RoundAbandoned)) == (0, [])
            for learner in waiting:
                learner.gate.set()
            async with running_hub(tmp_path, resume=hub.folder, port=port) as again:
                reopened = await again.until(RoundReopened)
                assert reopened.answered == ("fast",)
                await again.ended()
    assert fast.trained == [(1, 1)]


async def test_without_a_spool_a_stop_abandons_a_round_with_too_few_answers(tmp_path: Path) -> None:
    waiting = Adder(gate=asyncio.Event())
    async with running_hub(tmp_path, rounds=9, deadline=600, durability="round") as hub:
        async with edges(agent(hub.url, "waits", waiting)):
            await waiting.begun.wait()
            hub.hub.stop()
            ended = await asyncio.wait_for(hub.ended(), 10)
    assert len(hub.all(RoundAbandoned)) == 1
    assert ended.summary.rounds == 0


async def test_a_stop_while_waiting_for_edges_ends_the_hub_in_bounded_time(tmp_path: Path) -> None:
    async with running_hub(tmp_path, wait_for=3) as hub:
        await hub.until(WaitingForEdges)
        hub.hub.stop()
        ended = await asyncio.wait_for(hub.ended(), 10)
    assert ended.stopped


async def test_edges_of_a_stopped_hub_are_told_that_it_restarts_and_closed_with_1012(tmp_path: Path) -> None:
    async with running_hub(tmp_path, wait_for=2) as hub, raw_edge(hub.url, "raw") as raw:
        await hub.until(EdgeJoined)
        hub.hub.stop()
        goodbye = await raw.receive(Goodbye)
        assert goodbye.code == "restarting"
        with pytest.raises(LinkClosed) as closed:
            await raw.link.receive()
        assert closed.value.code == 1012
        await hub.ended()


async def test_an_edge_that_does_not_listen_does_not_keep_the_hub_from_stopping(tmp_path: Path) -> None:
    async with running_hub(tmp_path, wait_for=2) as hub, raw_edge(hub.url, "deaf") as deaf:
        deaf.link._connection.transport.pause_reading()
        hub.hub.stop()
        await asyncio.wait_for(hub.ended(), 20)


async def test_a_resumed_run_ends_with_the_same_bits_as_one_that_never_stopped(tmp_path: Path) -> None:
    def fleet(url: str) -> list[object]:
        return [agent(url, name, Adder(0.1 * index + 0.07, examples=index + 1)) for index, name in enumerate("abcde")]

    plan = {"rounds": 6, "wait_for": 5, "fraction": 0.6, "seed": 7}
    async with running_hub(tmp_path, name="undisturbed", **plan) as hub, edges(*fleet(hub.url)):
        undisturbed = await hub.ended()

    async with running_hub(tmp_path, name="stopped", **plan) as hub, edges(*fleet(hub.url)):
        await hub.until(RoundClosed, round=3)
        hub.hub.stop()
        stopped = await hub.ended()
    assert 3 <= stopped.summary.rounds < 6
    async with running_hub(tmp_path, resume=hub.folder, wait_for=5) as again, edges(*fleet(again.url)):
        # The first round after a resume must not begin before all are here, or the cohort would be another.
        resumed = await again.ended()
    assert resumed.summary.rounds == 6
    assert resumed.summary.model == undisturbed.summary.model
    assert sha256(read_tensors(again.folder / "model.safetensors")) == undisturbed.summary.model


async def test_a_finished_run_that_is_resumed_with_more_rounds_goes_on(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rounds=2) as hub, edges(agent(hub.url, "a", Adder())):
        await hub.ended()
    async with running_hub(tmp_path, resume=hub.folder, rounds=3) as again, edges(agent(again.url, "a", Adder())):
        ended = await again.ended()
    assert ended.summary.rounds == 3
    assert read_tensors(hub.folder / "model.safetensors")["bias"].tolist() == [3.0, 3.0, 3.0]


async def test_edges_wait_for_a_hub_that_restarts_and_go_on_with_it(tmp_path: Path) -> None:
    learner = Adder()
    async with running_hub(tmp_path, rounds=4) as hub:
        port = int(hub.url.rsplit(":", 1)[1])
        async with edges(agent(hub.url, "patient", learner)) as lives:
            await hub.until(RoundClosed, round=2)
            hub.hub.stop()
            await hub.ended()
            async with running_hub(tmp_path, resume=hub.folder, port=port) as again:
                await again.ended()
                await asyncio.wait_for(lives[0], 5)
    assert sorted({number for number, _ in learner.trained}) == [1, 2, 3, 4]


@pytest.mark.parametrize("what", ["nothing", "a file", "a folder without a run"])
async def test_what_is_not_a_run_folder_cannot_be_resumed(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "x"
    if what == "a file":
        folder.write_text("no run")
    elif what == "a folder without a run":
        folder.mkdir()
    with pytest.raises(ConfigError, match="is not a run folder"):
        async with running_hub(tmp_path, resume=folder) as hub:
            await hub.ended()


async def test_a_run_folder_of_that_name_is_not_overwritten(tmp_path: Path) -> None:
    async with running_hub(tmp_path) as hub, edges(agent(hub.url, "a", Adder())):
        await hub.ended()
    before = (hub.folder / "events.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="holds a run already; go on with --resume"):
        async with running_hub(tmp_path) as again:
            await again.ended()
    assert (hub.folder / "events.jsonl").read_bytes() == before


async def test_a_damaged_newest_snapshot_falls_back_one_round_and_says_so(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rounds=2) as hub, edges(agent(hub.url, "a", Adder())):
        undisturbed = await hub.ended()
    newest = max((hub.folder / "snapshots").iterdir())
    body = bytearray(newest.read_bytes())
    body[-1] ^= 1
    newest.write_bytes(body)
    learner = Adder()
    async with running_hub(tmp_path, resume=hub.folder) as again, edges(agent(again.url, "a", learner)):
        ended = await again.ended()
    (trouble,) = again.all(DiskTrouble)
    assert "is damaged" in trouble.reason
    assert "going on after round 1" in trouble.reason
    assert learner.trained == [(2, 1)]
    assert ended.summary.model == undisturbed.summary.model


async def test_accepted_updates_outlive_a_hub_that_dies_and_nobody_trains_twice(tmp_path: Path) -> None:
    fast, slow = Adder(1.0), Adder(4.0, examples=2, gate=asyncio.Event())
    async with running_hub(tmp_path, wait_for=2, deadline=600) as hub:
        port = int(hub.url.rsplit(":", 1)[1])
        async with edges(agent(hub.url, "fast", fast), agent(hub.url, "slow", slow)):
            await hub.until(UpdateAccepted, edge="fast")
            hub.die()
            await asyncio.wait([hub.life])
            async with running_hub(tmp_path, resume=hub.folder, port=port) as again:
                reopened = await again.until(RoundReopened)
                assert (reopened.round, reopened.attempt, reopened.answered) == (1, 1, ("fast",))
                slow.gate.set()
                ended = await again.ended()
    assert (fast.trained, slow.trained) == ([(1, 1)], [(1, 1)])
    assert ended.summary.rounds == 1
    assert read_tensors(hub.folder / "model.safetensors")["bias"].tolist() == [3.0, 3.0, 3.0]


async def test_a_run_that_is_open_goes_on_by_itself_under_its_name(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rounds=3) as hub, edges(agent(hub.url, "a", Adder())):
        await hub.until(RoundClosed, round=1)
        hub.hub.stop()
        stopped = await hub.ended()
    async with running_hub(tmp_path, rounds=3) as again, edges(agent(again.url, "a", Adder())):
        ended = await again.ended()
    assert 1 <= stopped.summary.rounds < 3
    assert ended.summary.rounds == 3


async def test_an_open_round_that_was_asked_with_other_settings_is_asked_again(tmp_path: Path) -> None:
    fast, slow = Adder(), Adder(gate=asyncio.Event())
    async with running_hub(tmp_path, wait_for=2, deadline=600) as hub:
        port = int(hub.url.rsplit(":", 1)[1])
        async with edges(agent(hub.url, "fast", fast), agent(hub.url, "slow", slow)):
            await hub.until(UpdateAccepted, edge="fast")
            hub.die()
            await asyncio.wait([hub.life])
            slow.gate.set()
            async with running_hub(tmp_path, resume=hub.folder, port=port, lr=0.5) as again:
                await again.ended()
    assert not again.all(RoundReopened)
    assert fast.trained == [(1, 1), (1, 1)]


async def test_a_watcher_is_told_what_happened_and_what_happens(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rounds=2) as hub, edges(agent(hub.url, "a", Adder())):
        link = await connect(hub.url)
        await link.send(Hello(versions=(1,), edge="watcher", role=Role.WATCHER, key=hub.hub.access.keys.guest))
        lines: list[str] = []
        while isinstance(message := (await link.receive()).message, News):
            lines.extend(message.facts)
        assert isinstance(message, Goodbye)
        await link.close()
        await hub.ended()
    recorded = (hub.folder / "events.jsonl").read_text().splitlines()
    assert lines == recorded[: len(lines)]
    assert sum('"event":"RoundClosed"' in line for line in lines) == 2
