"""Abuse of a hub on real sockets, small and with short limits; `python -m tests.abuse` has the promised sizes."""

import asyncio
import io
import logging
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from edge.agent import Patience
from hub.connections.turnstile import Turnstile
from hub.events import EdgeJoined, EdgeLeft, RoundClosed, Stamped, StrangerRefused, WaitingForEdges
from hub.views.log import PrettyLog
from shared.codec import encode
from shared.errors import LinkClosed
from shared.link import connect
from shared.messages import Goodbye, Hello, Ready, Role
from shared.tensors import ModelSpec
from shared.watch import OF_A_HUB
from tests.abuse.attacks import (
    Attack,
    drips_a_header,
    drips_fragments,
    drips_in_a_frame,
    fleet,
    gone_after,
    is_silent,
    never_reads,
    running,
    says_too_much,
)
from tests.support.federation import SPEC, Adder, agent, edges, raw_edge, running_hub
from tests.support.strangers import stranger

MIB = 2**20
BIG = {"w": np.zeros(MIB // 4, np.float32)}
IMPATIENT = replace(OF_A_HUB, ping_every=0.2, silence=1.0, window=0.3, stalled=0.5, greeting=0.5)


# --- strangers ---


@pytest.mark.parametrize("attack", [is_silent, drips_a_header, says_too_much])
async def test_strangers_are_gone_within_their_time_and_the_round_goes_on(tmp_path: Path, attack: Attack) -> None:
    async with running_hub(tmp_path, rounds=3, limits=IMPATIENT) as hub:
        seconds = await gone_after(attack, hub.url, 50)
        async with edges(agent(hub.url, "honest", Adder())):
            await hub.ended()
    assert max(seconds) < 2.0  # half a second, half a second for the answer to a close, and a slow machine


async def test_a_stranger_that_shakes_hands_and_says_nothing_more_is_told_why(tmp_path: Path) -> None:
    async with running_hub(tmp_path, limits=IMPATIENT) as hub, stranger(hub.url) as one:
        await one.shake_hands()
        assert b"no Hello came in time" in await one.gone()
        assert (await hub.until(StrangerRefused)).reason == "no Hello came in time"


# --- members that misbehave ---


@pytest.mark.parametrize(
    ("attack", "why"),
    [
        (drips_in_a_frame, "a message came at less than 4096 bytes a second"),
        (drips_fragments, "a message came at less than 4096 bytes a second"),
        (never_reads, "nothing could be sent for 0.5 s"),
    ],
)
async def test_an_edge_that_drips_or_does_not_read_is_cut_and_the_round_goes_on(
    tmp_path: Path, attack: Attack, why: str
) -> None:
    big = {"w": np.zeros(4 * MIB, np.float32)}
    async with running_hub(tmp_path, model=big, wait_for=6, quorum=0.1, limits=IMPATIENT) as hub:
        async with fleet(hub.url, ModelSpec.of(big), 2), running(*(attack(hub.url, number) for number in range(4))):
            await hub.ended()
    assert [fact.reason for fact in hub.all(EdgeLeft) if not fact.edge.startswith("edge")] == [why] * 4
    (closed,) = hub.all(RoundClosed)
    assert (closed.asked, closed.answered, len(closed.left)) == (6, 2, 4)


async def test_an_edge_that_joins_in_a_tight_loop_is_slowed_down_and_others_are_not(tmp_path: Path) -> None:
    async def flap(url: str) -> None:
        while True:
            async with raw_edge(url, "flaps"):
                pass

    async with running_hub(tmp_path, wait_for=2, rounds=1) as hub:
        async with running(flap(hub.url)):
            for _ in range(20):
                await hub.until(EdgeJoined, edge="flaps")
            async with fleet(hub.url, SPEC, 1):
                await hub.until(EdgeJoined, edge="edge-0")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await hub.until(EdgeJoined, edge="flaps")


def test_a_turnstile_lets_a_burst_in_and_then_one_at_a_time_for_each_id() -> None:
    now = 0.0
    turnstile = Turnstile(lambda: now, burst=3, every=2.0, patience=5.0)
    assert [turnstile.wait("a") for _ in range(7)] == [0, 0, 0, 2, 4, None, None]
    assert turnstile.wait("b") == 0
    now = 6.0  # b is forgotten, a is not
    assert [turnstile.wait("a") for _ in range(2)] == [0, 2]
    now = 100.0
    assert [turnstile.wait(edge) for edge in "aaab"] == [0, 0, 0, 0]


# --- memory for uploads ---


async def test_uploads_beyond_the_budget_wait_and_all_count(tmp_path: Path) -> None:
    async with running_hub(tmp_path, model=BIG, rounds=2, wait_for=12, upload_budget=3, limits=IMPATIENT) as hub:
        taken = list[int]()

        async def look() -> None:
            while True:
                taken.append(hub.hub.budget.taken)
                await asyncio.sleep(0)

        async with fleet(hub.url, ModelSpec.of(BIG), 12), running(look()):
            await hub.ended()
    assert [fact.answered for fact in hub.all(RoundClosed)] == [12, 12]
    assert MIB < max(taken) <= 3 * MIB
    assert hub.hub.budget.taken == 0


async def test_no_room_is_lost_to_edges_that_fail_in_the_middle_of_everything(tmp_path: Path) -> None:
    spec = ModelSpec.of(BIG)
    async with running_hub(tmp_path, model=BIG, wait_for=99, upload_budget=3, limits=IMPATIENT) as hub:

        async def fails(number: int) -> None:
            link = await connect(hub.url)
            await link.send(Hello(versions=(1,), edge=f"fails-{number}", role=Role.TRAINER))
            await link.receive()
            link.expect(spec)
            await link.send(Ready(examples=1, data_bytes=1))
            nonsense = encode(Goodbye(code="leaving") if number % 2 else Ready(examples=1, data_bytes=1), BIG.values())
            try:
                async with asyncio.timeout(0.01 * number):
                    await link.send(nonsense)
                    await link.receive()
            except (TimeoutError, LinkClosed):
                pass
            finally:
                link.abort()

        await asyncio.gather(*(fails(number) for number in range(20)))
        for number in range(20):
            await hub.until(EdgeLeft, here=19 - number)
        hub.hub.stop()
        await hub.ended()
    assert hub.hub.budget.taken == 0


# --- noise ---


async def test_sockets_cut_all_at_once_make_no_noise(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = ModelSpec.of(BIG)
    patient = replace(IMPATIENT, greeting=20.0)  # a hundred greet at once, and a collection of this process takes 0.8 s
    async with running_hub(tmp_path, model=BIG, wait_for=201, limits=patient) as hub:
        await hub.until(WaitingForEdges)
        with caplog.at_level(logging.INFO):
            async with fleet(hub.url, spec, 100):
                for number in range(100):
                    await hub.until(EdgeJoined, here=number + 1)
                async with running(*(is_silent(hub.url, number) for number in range(100))):
                    await asyncio.sleep(0)
            for number in range(100):
                await hub.until(EdgeLeft, here=99 - number)
    lines = capfd.readouterr().err.splitlines()
    assert sum("EdgeLeft" in line for line in lines) == 100
    assert [line for line in lines if not line.startswith(("{", "fedhub", "  page", "  join", "  watch"))] == []
    assert caplog.records == []


async def test_a_flood_of_strangers_is_a_few_lines_for_people() -> None:
    out = io.StringIO()
    with PrettyLog(Console(file=out, width=200)) as log:
        for number in range(5000):
            fact = StrangerRefused(peer=f"10.0.0.1:{number}", reason="no Hello came in time")
            log.take(Stamped(number, 100.0 + number / 2500, fact))
    lines = out.getvalue().splitlines()
    assert len(lines) == 42
    assert lines[0] == "turned away 10.0.0.1:0: no Hello came in time"
    assert [line for line in lines if "more" in line] == ["turned away 2480 more"] * 2


# --- the loop ---


async def test_the_event_loop_does_not_stall_while_models_are_added_up(tmp_path: Path) -> None:
    lags = list[float]()
    loop = asyncio.get_running_loop()

    async def tick() -> None:
        while True:
            before = loop.time()
            await asyncio.sleep(0.005)
            lags.append(loop.time() - before - 0.005)

    model = {"w": np.zeros(400_000, np.float32)}
    async with running_hub(tmp_path, model=model, wait_for=5, rounds=3) as hub, running(tick()):
        async with fleet(hub.url, ModelSpec.of(model), 5):
            await hub.ended()
    assert max(lags) < 0.25


# --- storms ---


def test_a_fleet_whose_hub_was_away_comes_back_spread_out() -> None:
    patience, dice, back = Patience(), random.Random(0), list[float]()
    for _ in range(2000):
        now, failures = 0.0, 0
        while now < 30.0:  # each is cut at 0 and tries again after its delay
            failures += 1
            now += patience.delay(failures, dice)
        back.append(now - 30.0)
    back.sort()
    assert max(sum(start <= at < start + 1 for at in back) for start in back) <= 0.08 * len(back)
    assert back[int(0.95 * len(back))] <= 45.0


# --- the end ---


async def test_every_edge_sees_1012_also_one_that_waits_for_its_welcome(tmp_path: Path) -> None:
    async with running_hub(tmp_path, wait_for=9, model=BIG) as hub, raw_edge(hub.url, "present") as present:
        await hub.until(EdgeJoined)
        welcomed, greeted = await connect(hub.url), await connect(hub.url)
        await welcomed.send(Hello(versions=(1,), edge="welcomed", role=Role.TRAINER))
        await welcomed.receive()
        hub.hub.stop()
        for link in (present.link, welcomed, greeted):
            with pytest.raises(LinkClosed) as closed:
                while True:
                    await link.receive()
            assert closed.value.code == 1012
        await hub.ended()


async def test_a_hub_full_of_edges_that_do_not_read_stops_within_seconds(tmp_path: Path) -> None:
    big = {"w": np.zeros(4 * MIB, np.float32)}
    async with running_hub(tmp_path, model=big, wait_for=40, deadline=600.0) as hub:
        async with running(*(never_reads(hub.url, number) for number in range(40))):
            for number in range(40):
                await hub.until(EdgeJoined, here=number + 1)
            began = asyncio.get_running_loop().time()
            hub.hub.stop()
            await hub.ended()
    assert asyncio.get_running_loop().time() - began < 10.0
