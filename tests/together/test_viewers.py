"""Whoever looks sees the board, from whenever it comes; whoever has the operator's key can give orders."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from edge.agent import TurnedAway
from hub.events import (
    EdgeJoined,
    EdgeLeft,
    EdgesMoved,
    Ordered,
    RoundAbandoned,
    RoundClosed,
    RoundReopened,
    RoundStarted,
    StrangerRefused,
    UpdateAccepted,
    WaitingForEdges,
    from_line,
)
from hub.runs import Contract
from hub.views.archive import board_of
from hub.views.board import Board, Round
from shared.errors import LinkClosed
from shared.exchange import Exchange
from shared.messages import Fetch, Goodbye, Hello, Order, Reply, Role, Shown
from tests.support.federation import MODEL, Adder, Running, agent, edges, raw_edge, running_hub
from tests.support.viewers import viewer


def guest(hub: Running) -> str:
    return hub.hub.access.keys.guest


def operator(hub: Running) -> str:
    return hub.hub.access.keys.operator


async def test_a_viewer_is_shown_the_board_and_then_what_changes(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rounds=3, wait_for=2) as hub, viewer(hub.url, guest(hub)) as one:
        await one.until(lambda state: state.head.phase == "waiting")
        assert one.may == "watch"
        boards = one.boards
        async with edges(agent(hub.url, "a", Adder()), agent(hub.url, "b", Adder())):
            state = await one.to_the_end()
        assert one.boards == boards
        assert [row.number for row in state.rows] == [1, 2, 3]
        assert set(state.edges) == {"a", "b"}
        assert [fate for fate, _ in state.bars["a"]] == ["accepted"] * 3
        assert (state.head.phase, state.head.committed) == ("ended", 3)
        assert one.goodbye is not None


async def test_live_late_and_replayed_viewers_see_the_same_final_board(tmp_path: Path) -> None:
    slow = Adder(gate=asyncio.Event())
    async with running_hub(tmp_path, rounds=4, wait_for=3, deadline=0.3) as hub, viewer(hub.url, guest(hub)) as early:
        names = [agent(hub.url, "a", Adder()), agent(hub.url, "b", Adder()), agent(hub.url, "slow", slow)]
        async with edges(*names):
            await early.until(lambda state: len(state.rows) >= 2)
            async with viewer(hub.url, guest(hub)) as late:
                finals = await asyncio.gather(early.to_the_end(), late.to_the_end())
            await hub.ended()
    assert finals[0] == finals[1]
    assert finals[0].head.fates == {"accepted": 8, "late": 4}
    assert finals[0].head.lost_seconds == pytest.approx(4 * 0.3, rel=0.2)
    replayed = board_of(hub.folder).state
    assert replayed == Board.of(map(from_line, (hub.folder / "events.jsonl").read_text().splitlines())).state
    # Edges leave while the hub says goodbye: a viewer may be gone by then, or may not.
    assert replayed.rows == finals[0].rows
    assert replayed.bars == finals[0].bars
    assert replayed.head.spent == finals[0].head.spent


async def test_what_viewers_are_shown_is_not_counted_as_learning(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rounds=1) as hub, viewer(hub.url, guest(hub)) as one:
        async with edges(agent(hub.url, "a", Adder())):
            await one.to_the_end()
        row = one.state.rows[0]
    assert row.up == one.state.edges["a"].up
    assert one.state.edges["a"].down <= row.down < one.state.edges["a"].down + 200  # the receipt


async def test_a_round_that_is_over_can_be_looked_at_again(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rounds=2, wait_for=1) as hub, viewer(hub.url, guest(hub)) as one:
        async with raw_edge(hub.url, "a") as edge:
            await edge.answer(await edge.train())
            task = await edge.train()
            past = await one.past(1)
            assert isinstance(past, Round)
            assert (past.number, past.outcome) == (1, "everyone-answered")
            assert [stage for stage, _ in past.lanes["a"].stages][-1] == "done"
            assert past.lanes["a"].fate == "accepted"
            assert isinstance(await one.past(7), Reply)
            await edge.answer(task)


async def test_the_newest_model_can_be_fetched_as_a_file(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rounds=2, wait_for=1) as hub, viewer(hub.url, guest(hub)) as one:
        await one.until(lambda state: state.head.phase == "waiting")
        fetched = await one.model()
        assert isinstance(fetched, bytes)
        assert {name: array.tolist() for name, array in load(fetched).items()} == {
            name: array.tolist() for name, array in MODEL.items()
        }


async def test_a_model_that_cannot_be_put_together_is_answered_with_why(tmp_path: Path) -> None:
    tensors = {"w": np.ones(2, np.float32), "base": np.zeros(2, np.float32)}
    contract = Contract("test", {}, False, tensors, Exchange(rules={"w": "learn", "base": "frozen"}))
    async with running_hub(tmp_path, contract=contract) as hub, viewer(hub.url, guest(hub)) as one:
        await one.until(lambda state: state.head.phase == "waiting")
        fetched = await one.model()
        assert isinstance(fetched, bytes)
        assert set(load(fetched)) == {"w", "base"}
        (hub.folder / "frozen.safetensors").unlink()
        for _ in range(5):
            refused = await one.model()
            assert isinstance(refused, Reply)
            assert "frozen.safetensors" in refused.reason


@pytest.mark.parametrize("role", [Role.WATCHER, Role.VIEWER])
@pytest.mark.parametrize("key", ["", "wrong"])
async def test_whoever_shows_no_key_is_turned_away_with_a_sentence(tmp_path: Path, role: Role, key: str) -> None:
    async with running_hub(tmp_path) as hub, viewer(hub.url, "") as one:
        said = (await one.link.receive()).message
        assert isinstance(said, Goodbye)
        assert said.code == "refused"
        assert "key" in said.reason
        assert isinstance(await hub.until(StrangerRefused), StrangerRefused)


async def test_a_guest_gives_no_orders(tmp_path: Path) -> None:
    async with running_hub(tmp_path, wait_for=2) as hub, viewer(hub.url, guest(hub)) as one:
        for action in ("pause", "resume", "next", "deadline", "drop", "stop"):
            reply = await one.order(action, edge="a", seconds=1.0)
            assert not reply.done
            assert "operator" in reply.reason
    assert not hub.all(Ordered)


async def test_a_pause_lets_the_open_round_end_and_begins_no_other(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rounds=2) as hub, viewer(hub.url, operator(hub)) as one:
        async with raw_edge(hub.url, "a") as edge:
            task = await edge.train()
            assert (await one.order("pause")).done
            assert one.may == "command"
            await edge.answer(task)
            await one.until(lambda state: state.head.phase == "paused")
            assert len(one.state.rows) == 1
            assert (await one.order("resume")).done
            await edge.answer(await edge.train())
            await hub.ended()


async def test_the_open_round_is_closed_with_what_is_in(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rounds=1, wait_for=2) as hub, viewer(hub.url, operator(hub)) as one:
        await hub.until(WaitingForEdges)
        reply = await one.order("next")
        assert (reply.done, reply.reason) == (False, "no round is open")
        async with raw_edge(hub.url, "a") as quick, raw_edge(hub.url, "b") as slow:
            task = await quick.train()
            await slow.train()
            reply = await one.order("next")
            assert not reply.done
            assert "needs 1" in reply.reason
            await quick.answer(task)
            await one.until(lambda state: bool(state.round and state.round.lanes["a"].stages[-1][0] == "done"))
            assert (await one.order("next")).done
            ended = await hub.ended()
            closed = hub.all(RoundClosed)[-1]
            assert isinstance(closed, RoundClosed)
            assert (closed.outcome, closed.answered, closed.late) == ("cut-short", 1, ())
            assert ended.summary.late == 0


async def test_a_new_deadline_counts_for_the_open_round_and_those_after_it(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rounds=2, wait_for=2) as hub, viewer(hub.url, operator(hub)) as one:
        async with raw_edge(hub.url, "a") as quick, raw_edge(hub.url, "b") as slow:
            await quick.answer(await quick.train())
            await slow.train()
            for nonsense in (0.0, -1.0, float("nan"), float("inf"), 1e12):
                assert not (await one.order("deadline", seconds=nonsense)).done
            assert (await one.order("deadline", seconds=0.2)).done
            second = await hub.until(RoundStarted, round=2)
            assert isinstance(second, RoundStarted)
            assert second.seconds == 0.2
            await one.until(lambda state: state.head.deadline == 0.2)
            await quick.answer(await quick.train())
            await hub.ended()


async def test_an_edge_that_is_sent_away_goes_and_does_not_come_back(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rounds=1, wait_for=2) as hub, viewer(hub.url, operator(hub)) as one:
        async with edges(agent(hub.url, "a", Adder())) as lives:
            await hub.until(EdgeJoined, edge="a")
            assert not (await one.order("drop", edge="nobody")).done
            assert (await one.order("drop", edge="a")).done
            await hub.until(EdgeLeft, edge="a")
            with pytest.raises(TurnedAway, match="sent this edge away"):
                await lives[0]


async def test_a_round_does_not_wait_for_an_edge_that_was_sent_away(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rounds=1, wait_for=2) as hub, viewer(hub.url, operator(hub)) as one:
        async with raw_edge(hub.url, "a") as quick, raw_edge(hub.url, "b") as slow:
            await quick.answer(await quick.train())
            await slow.train()
            assert (await one.order("drop", edge="b")).done
            with pytest.raises(LinkClosed):
                while True:
                    await slow.link.receive()
            await hub.ended()
            assert hub.all(RoundClosed)


async def test_stop_is_what_ctrl_c_is(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rounds=5, wait_for=2) as hub, viewer(hub.url, operator(hub)) as one:
        async with raw_edge(hub.url, "a") as edge, raw_edge(hub.url, "b"):
            await edge.answer(await edge.train())
            await one.until(lambda state: bool(state.round and state.round.lanes["a"].stages[-1][0] == "done"))
            assert (await one.order("stop")).done
            ended = await hub.ended()
            assert ended.stopped
            assert (hub.folder / "model.safetensors").exists()


async def test_a_board_goes_on_where_it_was_after_a_restart_and_the_keys_stay(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rounds=3) as hub:
        key = guest(hub)
        async with raw_edge(hub.url, "a") as edge:
            await edge.answer(await edge.train())
            await edge.train()
            hub.die()
    async with running_hub(tmp_path, resume=hub.folder) as again, viewer(again.url, key) as one:
        state = await one.until(lambda state: bool(state.rows))
        assert [row.number for row in state.rows] == [1]
        assert not state.edges["a"].here
        async with raw_edge(again.url, "a") as edge:
            await edge.answer(await edge.train())
            await edge.answer(await edge.train())
            state = await one.to_the_end()
    assert [row.number for row in state.rows] == [1, 2, 3]
    assert state.bars["a"][-1][0] == "accepted"


async def test_a_viewer_may_say_nothing_but_its_wishes(tmp_path: Path) -> None:
    async with running_hub(tmp_path, wait_for=2) as hub, viewer(hub.url, guest(hub)) as one:
        await one.until(lambda state: True)
        await one.link.send(Hello(versions=(1,), edge="again", role=Role.VIEWER))
        with pytest.raises(LinkClosed) as closed:
            while True:
                await one.link.receive()
        assert closed.value.code == 1002


async def test_a_screen_that_falls_behind_is_shown_the_whole_board_again(tmp_path: Path) -> None:
    async with running_hub(tmp_path, wait_for=2) as hub, viewer(hub.url, guest(hub)) as one:
        await one.until(lambda state: state.head.phase == "waiting")
        boards = one.boards
        for number in range(6000):  # news that would take 6 MB; it does not read until all of it has happened
            hub.hub.feed.publish(StrangerRefused(peer=f"10.0.0.1:{number}", reason="x" * 1000))
            if number % 50 == 0:
                hub.hub._screens._show_changes()
                await asyncio.sleep(0)
        last = await one.until(lambda state: state.head.strangers == 6000)
        assert one.boards > boards
        assert last.lines[-1].text.startswith("turned away 10.0.0.1:5999")


async def test_who_does_not_take_the_answers_is_not_heard(tmp_path: Path) -> None:
    large = {"weight": np.ones(2_000_000, np.float32)}
    async with running_hub(tmp_path, wait_for=2, model=large) as hub, viewer(hub.url, operator(hub)) as one:
        await one.until(lambda state: state.head.phase == "waiting")
        for _ in range(20):
            await one.link.send(Fetch())
        await one.link.send(Order(action="pause"))
        models = 0
        while not one.replies:
            said = await one.look()
            models += isinstance(said, Shown) and said.what == "model"
        assert models == 20


async def test_events_say_in_which_stage_each_edge_was(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rounds=1) as hub, raw_edge(hub.url, "a") as edge:
        await edge.answer(await edge.train())
        await hub.ended()
    told = [json.loads(line)["fact"] for line in (hub.folder / "events.jsonl").read_text().splitlines()]
    moves = [move for fact in told if fact["event"] == "EdgesMoved" for move in fact["moves"]]
    assert [move[:2] for move in moves] == [["a", "downloading"], ["a", "training"]]
    assert moves[1][3] > sum(array.nbytes for array in MODEL.values())
    kinds = [fact["event"] for fact in told]
    assert kinds.index("RoundStarted") < kinds.index("EdgesMoved") < kinds.index("UpdateAccepted")


async def test_what_an_edge_did_is_said_before_that_it_left(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rounds=1) as hub:
        async with raw_edge(hub.url, "a") as edge:
            await edge.train()
        await hub.until(RoundAbandoned)
    kinds = [type(fact) for fact in hub.facts]
    assert kinds.index(EdgesMoved) < kinds.index(EdgeLeft)


async def test_an_update_that_was_acknowledged_under_a_longer_deadline_outlives_the_hub(tmp_path: Path) -> None:
    async with running_hub(tmp_path, wait_for=2, quorum=1.0, deadline=0.3) as hub:
        async with (
            viewer(hub.url, operator(hub)) as one,
            raw_edge(hub.url, "a") as quick,
            raw_edge(hub.url, "b") as slow,
        ):
            task = await quick.train()
            await slow.train()
            assert (await one.order("deadline", seconds=60.0)).done
            with pytest.raises(TimeoutError):  # the first deadline passes, and nobody is asked again
                await asyncio.wait_for(slow.link.receive(), 0.4)
            await quick.answer(task)
            await hub.until(UpdateAccepted, edge="a")
            hub.die()
    async with running_hub(tmp_path, resume=hub.folder) as again:
        reopened = await again.until(RoundReopened)
        assert isinstance(reopened, RoundReopened)
        assert reopened.answered == ("a",)
        assert reopened.seconds > 50
        async with raw_edge(again.url, "b") as slow:
            await slow.answer(await slow.train())
            await again.ended()
    assert not again.all(RoundAbandoned)


async def test_a_deadline_in_which_nobody_can_answer_is_taken_back_and_ends_no_run(tmp_path: Path) -> None:
    slow = Adder(gate=asyncio.Event())
    async with running_hub(tmp_path, rounds=1, retries=2) as hub, viewer(hub.url, operator(hub)) as one:
        await hub.until(WaitingForEdges)
        assert (await one.order("deadline", seconds=0.001)).done
        async with edges(agent(hub.url, "a", slow)):
            back = await hub.until(Ordered, by="hub")
            assert isinstance(back, Ordered)
            assert back.seconds == 20.0
            slow.gate.set()  # type: ignore[union-attr]
            ended = await hub.ended()
    assert ended.code == 0
    assert len(hub.all(RoundAbandoned)) == 3
    assert all(fact.again for fact in hub.all(RoundAbandoned) if isinstance(fact, RoundAbandoned))


async def test_a_deadline_that_has_passed_already_is_refused_where_it_would_void_the_round(tmp_path: Path) -> None:
    async with running_hub(tmp_path, wait_for=2, quorum=1.0) as hub, viewer(hub.url, operator(hub)) as one:
        async with raw_edge(hub.url, "a") as quick, raw_edge(hub.url, "b") as slow:
            await quick.answer(await quick.train())
            task = await slow.train()
            refused = await one.order("deadline", seconds=1e-9)
            assert not refused.done
            assert "too few have answered" in refused.reason
            await slow.answer(task)
            await hub.ended()


async def test_a_run_that_is_resumed_with_nobody_here_says_that_it_waits(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rounds=3) as hub, viewer(hub.url, operator(hub)) as one:
        async with raw_edge(hub.url, "a") as edge:
            task = await edge.train()
            await one.order("pause")
            await edge.answer(task)
            await one.until(lambda state: state.head.phase == "paused")
        await one.until(lambda state: state.head.here == 0)
        assert (await one.order("resume")).done
        await one.until(lambda state: state.head.phase == "waiting" and state.head.needed == 1)


@pytest.mark.parametrize("order", [Order(action="pause", seconds=float("inf"), edge="x" * 200), Order(action="resume")])
async def test_what_an_order_says_besides_is_not_passed_on(tmp_path: Path, order: Order) -> None:
    async with running_hub(tmp_path, wait_for=2) as hub, viewer(hub.url, operator(hub)) as one:
        await hub.until(WaitingForEdges)
        await one.link.send(order)
        assert await hub.until(Ordered) == Ordered(action=order.action, round=0)


async def test_metrics_that_are_too_large_to_be_added_are_left_out(tmp_path: Path) -> None:
    measures = Adder(examples=1000, metrics=lambda model: {"accuracy": 0.5, "big": 1e308})
    async with running_hub(tmp_path, rounds=1, wait_for=1, holdout=0.5) as hub, edges(agent(hub.url, "a", measures)):
        await hub.ended()
    assert [row.metrics for row in board_of(hub.folder).state.rows] == [{"accuracy": 0.5}]


async def test_the_operator_gets_in_however_many_are_looking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.views.screens._MOST_SCREENS", 2)
    async with running_hub(tmp_path, wait_for=2) as hub, viewer(hub.url, guest(hub)) as first:
        await hub.until(WaitingForEdges)
        await first.until(lambda state: True)
        async with viewer(hub.url, guest(hub)) as second:
            await second.until(lambda state: True)
            async with viewer(hub.url, guest(hub)) as third:
                assert "others are watching" in (await third.link.receive()).message.reason  # type: ignore[union-attr]
            async with viewer(hub.url, operator(hub)) as one:
                await one.until(lambda state: True)
                assert (await one.order("pause")).done
                await first.to_the_end()
                assert first.goodbye is not None
                assert "operator" in first.goodbye.reason
