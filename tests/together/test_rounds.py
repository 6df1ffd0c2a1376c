"""Rounds with a real hub and real edges on real sockets: what counts, what does not, and when a round is over."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from edge.learner import Trained
from hub.events import (
    EdgeJoined,
    EdgeLeft,
    RoundAbandoned,
    RoundClosed,
    RoundStarted,
    RunEnded,
    StrangerRefused,
    UpdateAccepted,
    UpdateRefused,
)
from shared.codec import Frame, encode
from shared.errors import ExitCode, LinkClosed, TurnedAway
from shared.link import connect
from shared.messages import Goodbye, Hello, Ready, Receipt, Role, Train, Update
from shared.snapshot import read_tensors
from shared.tensors import ModelSpec, Tensors
from tests.support.federation import MODEL, SPEC, Adder, agent, edges, events_of, raw_edge, running_hub
from tests.together.bad_updates import BAD


async def test_the_new_model_is_the_old_one_plus_the_mean_weighted_by_examples(tmp_path: Path) -> None:
    async with running_hub(tmp_path, wait_for=2) as hub:
        async with edges(agent(hub.url, "a", Adder(1.0, examples=1)), agent(hub.url, "b", Adder(4.0, examples=2))):
            ended = await hub.ended()
    model = read_tensors(hub.folder / "model.safetensors")
    np.testing.assert_array_equal(model["weight"], MODEL["weight"] + 3.0)
    np.testing.assert_array_equal(model["bias"], MODEL["bias"] + 3.0)
    assert model["steps"] == 1
    assert ended.code is ExitCode.DONE
    assert ended.summary.rounds == 1


async def test_rounds_follow_each_other_until_all_are_done_and_edges_are_told(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rounds=5, wait_for=3) as hub:
        async with edges(*(agent(hub.url, name, Adder()) for name in "abc")) as lives:
            await hub.ended()
            await asyncio.wait_for(asyncio.gather(*lives), 5)  # they end by themselves, without an error
    assert [fact.round for fact in hub.all(RoundClosed)] == [1, 2, 3, 4, 5]
    assert {fact.outcome for fact in hub.all(RoundClosed)} == {"everyone-answered"}
    assert read_tensors(hub.folder / "model.safetensors")["bias"].tolist() == [5.0, 5.0, 5.0]


async def test_an_edge_that_misses_the_deadline_is_late_and_the_round_counts_without_it(tmp_path: Path) -> None:
    slow = Adder(1000.0, gate=asyncio.Event())
    async with running_hub(tmp_path, rounds=2, wait_for=2, deadline=0.3) as hub:
        async with edges(agent(hub.url, "fast", Adder()), agent(hub.url, "slow", slow)):
            closed = await hub.until(RoundClosed, round=1)
            assert closed.outcome == "deadline-passed"
            assert closed.late == ("slow",)
            await hub.ended()
    assert slow.trained == []  # the stale task was dropped for the newer one
    assert read_tensors(hub.folder / "model.safetensors")["bias"].tolist() == [2.0, 2.0, 2.0]


async def test_an_edge_that_leaves_in_the_middle_of_a_round_is_not_awaited(tmp_path: Path) -> None:
    leaver = Adder(gate=asyncio.Event())
    async with running_hub(tmp_path, wait_for=2) as hub, edges(agent(hub.url, "stays", Adder())):
        async with edges(agent(hub.url, "leaves", leaver)):
            await leaver.begun.wait()
        await hub.ended()
    (closed,) = hub.all(RoundClosed)
    assert (closed.answered, closed.asked, closed.left) == (1, 2, ("leaves",))


async def test_an_update_trained_while_the_line_was_down_counts_when_the_edge_is_back(tmp_path: Path) -> None:
    learner = Adder(gate=asyncio.Event())
    awaited = Adder(gate=asyncio.Event())
    async with running_hub(tmp_path, wait_for=2) as hub:
        async with edges(agent(hub.url, "flaky", learner), agent(hub.url, "awaited", awaited)):
            await asyncio.gather(learner.begun.wait(), awaited.begun.wait())
            for session in hub.hub.roster.everyone():
                if session.edge == "flaky":
                    session.cut()
            await hub.until(EdgeLeft, edge="flaky")
            learner.gate.set()
            await hub.until(EdgeJoined, edge="flaky")
            await hub.until(UpdateAccepted, edge="flaky")
            awaited.gate.set()
            await hub.ended()
    assert learner.trained == [(1, 1)]  # once: the work went on without the hub
    assert hub.all(RoundClosed)[0].answered == 2


async def test_an_edge_that_joins_in_the_middle_of_a_round_takes_part_in_the_next(tmp_path: Path) -> None:
    first, second = Adder(gate=asyncio.Event()), Adder()
    async with running_hub(tmp_path, rounds=2) as hub, edges(agent(hub.url, "first", first)):
        await first.begun.wait()
        async with edges(agent(hub.url, "second", second)):
            await hub.until(EdgeJoined, edge="second")
            first.gate.set()
            await hub.ended()
    assert [fact.cohort for fact in hub.all(RoundStarted)] == [("first",), ("first", "second")]
    assert second.trained == [(2, 1)]


async def test_an_edge_that_dies_in_the_middle_of_its_upload_leaves_no_trace_in_the_model(tmp_path: Path) -> None:
    model = {"w": np.zeros(1_000_000, np.float32)}
    async with running_hub(tmp_path, model=model, wait_for=2, deadline=60) as hub:
        async with edges(agent(hub.url, "honest", Adder(2.0))):
            link = await connect(hub.url)
            await link.send(Hello(versions=(1,), edge="dies", role=Role.TRAINER))
            welcome = (await link.receive()).message
            spec = ModelSpec(welcome.spec)
            link.expect(spec)
            await link.send(Ready(examples=1, data_bytes=0))
            task = (await link.receive()).message
            update = Update(
                run=task.run,
                round=1,
                attempt=1,
                model=task.model,
                spec=spec.digest,
                examples=1,
                metrics={},
                seconds=0.0,
            )
            whole = encode(update, [np.full(1_000_000, 9.0, np.float32)])

            async def half_of_it() -> AsyncIterator[bytes | memoryview]:
                for piece in whole.pieces[: len(whole.pieces) // 2]:
                    yield piece
                link.abort()
                yield whole.pieces[0]

            with pytest.raises(ConnectionClosed):
                await link._connection.send(half_of_it())
            await hub.ended()
    (closed,) = hub.all(RoundClosed)
    assert (closed.answered, closed.left) == (1, ("dies",))
    assert set(read_tensors(hub.folder / "model.safetensors")["w"].tolist()) == {2.0}


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\xff" * 100, b"\x81\xa4type\xa5hello", b"not msgpack at all", bytes(4000), b"\x81\xa4type\xa7unknown"],
)
async def test_a_stranger_who_sends_garbage_is_turned_away_and_the_run_goes_on(tmp_path: Path, garbage: bytes) -> None:
    async with running_hub(tmp_path) as hub:
        link = await connect(hub.url)
        with pytest.raises(LinkClosed) as closed:
            await link.send(Frame((garbage,), len(garbage)))
            await link.receive()
        assert closed.value.code == 1002
        await hub.until(StrangerRefused)
        async with edges(agent(hub.url, "honest", Adder())):
            await hub.ended()
    assert hub.all(RoundClosed)[0].answered == 1


async def test_an_edge_that_sends_garbage_is_out_and_the_round_goes_on(tmp_path: Path) -> None:
    async with running_hub(tmp_path, wait_for=2) as hub:
        async with raw_edge(hub.url, "bad") as bad, edges(agent(hub.url, "honest", Adder())):
            await bad.train()
            await bad.link.send(Frame((b"\x00garbage",), 8))
            left = await hub.until(EdgeLeft, edge="bad")
            assert "broke the protocol" in left.reason
            await hub.ended()
    assert hub.all(RoundClosed)[0].left == ("bad",)


async def test_an_edge_whose_message_is_longer_than_any_update_is_cut_off_and_changes_no_bit(tmp_path: Path) -> None:
    async with running_hub(tmp_path, wait_for=2) as hub:
        async with raw_edge(hub.url, "huge") as huge, edges(agent(hub.url, "honest", Adder(0.3))):
            task = await huge.train()
            with pytest.raises(LinkClosed) as closed:
                await huge.answer(task, tensors={"weight": np.ones(200_000, np.float32)})
                await huge.receive(Receipt)
            assert closed.value.code == 1009
            await hub.ended()
    (fact,) = hub.all(RoundClosed)
    assert (fact.answered, fact.left) == (1, ("huge",))
    model = read_tensors(hub.folder / "model.safetensors")
    np.testing.assert_array_equal(model["bias"], MODEL["bias"] + np.float32(0.3))


async def test_five_answers_of_one_edge_count_once(tmp_path: Path) -> None:
    honest = Adder(gate=asyncio.Event())
    async with running_hub(tmp_path, wait_for=2) as hub:
        async with raw_edge(hub.url, "five") as five, edges(agent(hub.url, "honest", honest)):
            task = await five.train()
            for examples in range(1, 6):
                await five.answer(task, examples=examples)
            receipts = [await five.receive(Receipt) for _ in range(5)]
            honest.gate.set()
            await hub.ended()
    assert sorted(receipt.code for receipt in receipts) == ["", *["duplicate"] * 4]
    assert hub.all(RoundClosed)[0].answered == 2


async def test_a_stranger_may_not_send_more_than_a_greeting(tmp_path: Path) -> None:
    async with running_hub(tmp_path) as hub:
        link = await connect(hub.url)
        with pytest.raises(LinkClosed) as closed:
            await link.send(Frame((bytes(5000),), 5000))
            await link.receive()
        assert closed.value.code == 1009


@pytest.mark.parametrize("why", BAD)
async def test_a_bad_update_is_refused_with_its_reason_and_changes_no_bit_of_the_model(
    tmp_path: Path, why: str
) -> None:
    async with running_hub(tmp_path, wait_for=2, deadline=60) as hub:
        honest = Adder(0.3, gate=asyncio.Event())
        async with raw_edge(hub.url, "bad") as bad, edges(agent(hub.url, "honest", honest)):
            await bad.answer(await bad.train(), **BAD[why])
            receipt = await bad.receive(Receipt)
            assert not receipt.accepted
            assert receipt.code == why.split(" ")[0]
            assert receipt.reason
            honest.gate.set()
            await hub.until(UpdateAccepted, edge="honest")
            bad.link.abort()
            await hub.ended()
    assert [fact.code for fact in hub.all(UpdateRefused)] == [why.split(" ")[0]]
    model = read_tensors(hub.folder / "model.safetensors")
    np.testing.assert_array_equal(model["bias"], MODEL["bias"] + np.float32(0.3))


async def test_an_answer_given_twice_counts_once(tmp_path: Path) -> None:
    honest = Adder(gate=asyncio.Event())
    async with running_hub(tmp_path, wait_for=2) as hub:
        async with raw_edge(hub.url, "twice") as twice, edges(agent(hub.url, "honest", honest)):
            task = await twice.train()
            await twice.answer(task)
            await twice.answer(task)
            await twice.answer(task, examples=7)
            first, same, other = [await twice.receive(Receipt) for _ in range(3)]
            assert (first.accepted, same.accepted) == (True, True)  # the same again gets the same receipt
            assert (other.accepted, other.code) == (False, "duplicate")
            honest.gate.set()
            await hub.ended()
    assert hub.all(RoundClosed)[0].answered == 2


async def test_an_edge_that_was_not_asked_is_refused(tmp_path: Path) -> None:
    awaited = Adder(gate=asyncio.Event())
    async with running_hub(tmp_path) as hub, edges(agent(hub.url, "asked", awaited)):
        await awaited.begun.wait()
        async with raw_edge(hub.url, "unasked") as unasked:
            task = Train(
                run=unasked.welcome.run,
                round=1,
                attempt=1,
                model=unasked.welcome.model,
                seconds=1.0,
                plan=unasked.welcome.plan,
            )
            await unasked.answer(task)
            receipt = await unasked.receive(Receipt)
            assert (receipt.accepted, receipt.code) == (False, "unasked")
            awaited.gate.set()
            await hub.ended()


async def test_more_edges_than_wanted_are_asked_and_the_fastest_count(tmp_path: Path) -> None:
    learners = {name: Adder() for name in "abcdefghij"}
    async with running_hub(tmp_path, wait_for=10, fraction=0.5, over_selection=2.0) as hub:
        for name in "ij":
            learners[name].gate = asyncio.Event()
        async with edges(*(agent(hub.url, name, learner) for name, learner in learners.items())):
            await hub.ended()
    (closed,) = hub.all(RoundClosed)
    assert (closed.asked, closed.answered, closed.outcome) == (10, 5, "goal-reached")


async def test_a_round_below_quorum_is_asked_again_and_then_the_run_stops_with_code_3(tmp_path: Path) -> None:
    silent = [Adder(gate=asyncio.Event()) for _ in range(2)]
    async with running_hub(tmp_path, wait_for=2, deadline=0.1, retries=2) as hub:
        async with edges(*(agent(hub.url, f"e{index}", learner) for index, learner in enumerate(silent))):
            ended = await hub.ended()
    assert ended.code is ExitCode.TOO_FEW_EDGES
    assert [(fact.round, fact.attempt, fact.answered) for fact in hub.all(RoundAbandoned)] == [
        (1, 1, 0),
        (1, 2, 0),
        (1, 3, 0),
    ]
    assert not hub.all(RoundClosed)


async def test_a_round_that_everybody_leaves_is_over_at_once(tmp_path: Path) -> None:
    async with running_hub(tmp_path, deadline=600) as hub:
        async with raw_edge(hub.url, "only") as only:
            await only.train()
        abandoned = await hub.until(RoundAbandoned)
        assert abandoned.left == ("only",)
        async with edges(agent(hub.url, "next", Adder())):
            await hub.ended()
    assert hub.all(RoundClosed)[0].attempt == 2


async def test_the_run_stops_when_the_metric_reaches_its_target(tmp_path: Path) -> None:
    judge = Adder(metrics=lambda model: {"accuracy": float(model["bias"][0]) / 10})
    async with running_hub(tmp_path, rounds=100, target=0.3, wait_for=1) as hub:
        async with edges(agent(hub.url, "judge", judge, role=Role.EVALUATOR)):
            await hub.until(EdgeJoined, edge="judge")
            async with edges(agent(hub.url, "a", Adder())):
                ended = await hub.ended()
    assert ended.summary.rounds == 3
    assert "target" in hub.all(RunEnded)[0].reason
    assert {fact.evaluated for fact in hub.all(RoundClosed)} == {"central"}


async def test_the_run_stops_when_nothing_improves_any_more(tmp_path: Path) -> None:
    judge = Adder(metrics=lambda model: {"accuracy": min(0.5, float(model["bias"][0]) / 10)})
    async with running_hub(tmp_path, rounds=100, patience=3) as hub:
        async with edges(agent(hub.url, "judge", judge, role=Role.EVALUATOR)):
            await hub.until(EdgeJoined, edge="judge")
            async with edges(agent(hub.url, "a", Adder())):
                ended = await hub.ended()
    assert ended.summary.rounds == 8
    assert "not improved" in hub.all(RunEnded)[0].reason


async def test_without_an_evaluator_edges_measure_on_what_they_hold_out(tmp_path: Path) -> None:
    def half(model: object) -> dict[str, float]:
        return {"accuracy": 0.5}

    def whole(model: object) -> dict[str, float]:
        return {"accuracy": 1.0}

    async with running_hub(tmp_path, holdout=0.2, wait_for=2) as hub:
        few, many = Adder(examples=1, metrics=half), Adder(examples=3, metrics=whole)
        async with edges(agent(hub.url, "few", few), agent(hub.url, "many", many)):
            await hub.ended()
    (closed,) = hub.all(RoundClosed)
    assert closed.evaluated == "federated"
    assert closed.metrics == {"accuracy": 0.875}


async def test_an_edge_that_holds_the_model_already_is_not_sent_it_again(tmp_path: Path) -> None:
    model = {"w": np.zeros(100_000, np.float32)}
    async with running_hub(tmp_path, model=model, rounds=1, holdout=0.5) as hub:
        learner = Adder(metrics=lambda model: {"accuracy": 1.0})
        async with edges(agent(hub.url, "a", learner)):
            await hub.ended()
    (closed,) = hub.all(RoundClosed)
    assert 800_000 < closed.bytes_down < 810_000  # the first model and the new one, once each

    async with running_hub(tmp_path, model=model, rounds=2, holdout=0.5, name="two") as hub:
        async with edges(agent(hub.url, "a", learner)):
            await hub.ended()
    assert 400_000 < hub.all(RoundClosed)[1].bytes_down < 410_000  # Train of round 2 brought nothing it had


async def test_an_edge_takes_memory_for_one_model_and_not_for_two(tmp_path: Path) -> None:
    model, places = {"w": np.zeros(100_000, np.float32)}, defaultdict[str, set[int]](set)

    def measure(of: Tensors) -> dict[str, float]:
        places["evaluator"].add(of["w"].__array_interface__["data"][0])
        return {"accuracy": 1.0}

    class Looker(Adder):
        async def train(self, task: Train, model: Tensors) -> Trained:
            places["trainer"].add(model["w"].__array_interface__["data"][0])
            return await super().train(task, model)

    async with running_hub(tmp_path, model=model, rounds=5, wait_for=1) as hub:
        judge = agent(hub.url, "judge", Adder(metrics=measure), role=Role.EVALUATOR)
        async with edges(judge):
            await hub.until(EdgeJoined)
            async with edges(agent(hub.url, "edge", Looker())):
                await hub.ended()
    assert {who: len(where) for who, where in places.items()} == {"evaluator": 1, "trainer": 1}


async def test_a_second_edge_of_the_same_name_takes_the_place_of_the_first(tmp_path: Path) -> None:
    first = Adder(gate=asyncio.Event())
    async with running_hub(tmp_path) as hub, edges(agent(hub.url, "same", first)) as lives:
        await first.begun.wait()
        async with edges(agent(hub.url, "same", Adder())):
            with pytest.raises(TurnedAway, match="another connection took the name same"):
                await lives[0]
            await hub.ended()
    assert hub.all(RoundClosed)[0].answered == 1


async def test_an_edge_of_another_protocol_version_is_told_who_must_update(tmp_path: Path) -> None:
    async with running_hub(tmp_path) as hub:
        link = await connect(hub.url)
        await link.send(Hello(versions=(99,), edge="future", role=Role.TRAINER))
        goodbye = (await link.receive()).message
        assert isinstance(goodbye, Goodbye)
        assert goodbye.code == "protocol-version"
        assert "Update the hub" in goodbye.reason


async def test_events_jsonl_tells_the_whole_run(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rounds=2) as hub, edges(agent(hub.url, "a", Adder())):
        await hub.ended()
    events = [event["event"] for event in events_of(hub.folder)]
    assert events[0] == "RunStarted"
    for once in ("EdgeJoined", "RunEnded"):
        assert events.count(once) == 1
    for twice in ("RoundStarted", "UpdateAccepted", "RoundCommitted", "RoundClosed"):
        assert events.count(twice) == 2


def test_the_test_model_has_integers_too() -> None:
    assert not SPEC.tensors[2].is_float
