"""An edge stays connected with patience, comes back after every loss, and knows when it is not wanted."""

import asyncio
import gc
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from edge.agent import Agent, Patience
from edge.learner import Measured, WentAway
from hub.events import EdgeJoined, EdgeLeft, RoundClosed
from shared.codec import Frame, encode
from shared.errors import ConfigError, ExitCode, TurnedAway, Unreachable
from shared.link import Link, Traffic, listen, port_of
from shared.messages import Evaluate, Farewell, Goodbye, Hello, Ready, Role, ToHub, Train, Welcome
from shared.tensors import Tensors, sha256
from tests.support.federation import MODEL, SPEC, Adder, agent, edges, running_hub
from tests.support.tiny import plan

QUICK = Patience(first=5.0, again=5.0, base=0.01, cap=0.05)

Said = Callable[[Link[ToHub]], Awaitable[None]]


def edge(url: str, *, patience: Patience = QUICK, learner: Adder | None = None, name: str = "edge") -> Agent:
    return Agent(
        url=url,
        edge=name,
        role=Role.TRAINER,
        learner=learner or Adder(),
        patience=patience,
        dice=random.Random(0),
        tell=TOLD.append,
    )


TOLD: list[str] = []


@pytest.fixture(autouse=True)
def told() -> list[str]:
    """What the edge told in this test."""
    TOLD.clear()
    return TOLD


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@asynccontextmanager
async def scripted_hub(*says: Said) -> AsyncIterator[str]:
    """Listen as a hub that hears Hello and then does what the test says: one thing for each connection in turn."""
    turns = iter(says)

    async def receive(link: Link[ToHub]) -> None:
        assert isinstance((await link.receive()).message, Hello)
        await next(turns)(link)

    server = await listen(receive, host="127.0.0.1", port=0, traffic=Traffic())
    try:
        yield f"ws://127.0.0.1:{port_of(server)}"
    finally:
        server.close()
        await server.wait_closed()


def goodbye(code: Farewell, reason: str = "so it is") -> Said:
    async def say(link: Link[ToHub]) -> None:
        await link.send(Goodbye(code=code, reason=reason))
        await link.close()

    return say


WELCOME = Welcome(
    version=1,
    run="r",
    algorithm="fedavg",
    spec=SPEC.tensors,
    options={},
    plan=plan(),
    round=0,
    rounds=1,
    model="0" * 64,
)


async def welcome(link: Link[ToHub]) -> None:
    await link.send(WELCOME)
    link.expect(SPEC)
    assert isinstance((await link.receive()).message, Ready)


# --- how a stay ends ---


async def test_a_hub_that_is_done_ends_the_edge_in_peace(told: list[str]) -> None:
    async with scripted_hub(goodbye(Farewell.DONE, "the run is over")) as url:
        await edge(url).live()
    assert told == ["done: the run is over"]


@pytest.mark.parametrize("code", [Farewell.RESTARTING, Farewell.LEAVING])
async def test_a_hub_that_will_be_back_is_come_back_to(told: list[str], code: Farewell) -> None:
    async with scripted_hub(goodbye(code), goodbye(Farewell.DONE)) as url:
        await edge(url).live()
    assert told == ["the hub says goodbye: so it is; trying again in 0.0 s", "done: so it is"]


@pytest.mark.parametrize(
    ("code", "exit_code", "sentence"),
    [
        (Farewell.REFUSED, ExitCode.REFUSED, "the hub turned this edge away: so it is"),
        (Farewell.REPLACED, ExitCode.REFUSED, "the hub turned this edge away: so it is"),
        (Farewell.PROTOCOL_VERSION, ExitCode.PROTOCOL_VERSION, "so it is"),
    ],
)
async def test_a_hub_that_does_not_want_the_edge_ends_it_with_a_code_of_its_own(
    code: Farewell, exit_code: ExitCode, sentence: str
) -> None:
    async with scripted_hub(goodbye(code)) as url:
        with pytest.raises(TurnedAway) as caught:
            await edge(url).live()
    assert (str(caught.value), caught.value.exit_code) == (sentence, exit_code)
    assert (ExitCode.REFUSED, ExitCode.PROTOCOL_VERSION) == (4, 5)


async def test_a_line_that_is_cut_is_come_back_from(told: list[str]) -> None:
    async def cut(link: Link[ToHub]) -> None:
        await welcome(link)
        link.abort()

    async with scripted_hub(cut, cut, goodbye(Farewell.DONE)) as url:
        await edge(url).live()
    assert sum("trying again in 0.0 s" in line for line in told) == 2


@pytest.mark.parametrize("code", [1002, 1009])
async def test_a_hub_that_does_not_understand_the_edge_is_not_bothered_again(code: int) -> None:
    async def not_understand(link: Link[ToHub]) -> None:
        await welcome(link)
        await link.close(code, "what do you mean?")

    async with scripted_hub(not_understand) as url:
        with pytest.raises(TurnedAway) as caught:
            await edge(url).live()
    assert str(caught.value) == "the hub closed the connection because of what this edge sent: what do you mean?"


async def say_ready(link: Link[ToHub]) -> None:
    await link.send(Ready(examples=1, data_bytes=1))


async def say_welcome_twice(link: Link[ToHub]) -> None:
    await welcome(link)
    await link.send(WELCOME)


async def tell_of_tensors_that_are_not_there(link: Link[ToHub]) -> None:
    await link.send(msgspec.structs.replace(WELCOME, averaged=(len(SPEC.tensors),)))


async def carry_more_than_there_is(link: Link[ToHub]) -> None:
    await link.send(msgspec.structs.replace(WELCOME, carried=len(SPEC.tensors) + 1))


async def say_garbage(link: Link[ToHub]) -> None:
    await link.send(Frame((b"\xff" * 10,), 10))


async def leave_the_model_out(link: Link[ToHub]) -> None:
    await welcome(link)
    await link.send(Train(run="r", round=1, attempt=1, model="1" * 64, seconds=1.0, plan=plan()))


@pytest.mark.parametrize(
    "nonsense",
    [
        say_ready,
        say_welcome_twice,
        say_garbage,
        leave_the_model_out,
        tell_of_tensors_that_are_not_there,
        carry_more_than_there_is,
    ],
)
async def test_what_is_no_hub_ends_the_edge_with_a_sentence(nonsense: Said) -> None:
    closed: list[str] = []

    async def hub(link: Link[ToHub]) -> None:
        await nonsense(link)
        try:
            await link.receive()
        finally:
            closed.append("closed")

    async with scripted_hub(hub) as url:
        with pytest.raises(TurnedAway, match=f"^the hub at {url} does not keep to the protocol: "):
            await edge(url).live()
    assert closed


async def test_a_name_that_hubs_would_not_take_is_refused_before_any_is_asked() -> None:
    for name in ("my laptop", "", "-x", "x" * 65, "a\nb"):
        with pytest.raises(ConfigError, match="an edge cannot be called "):
            await edge("ws://127.0.0.1:9", name=name).live()


# --- patience ---


async def test_a_hub_that_was_never_there_is_given_up_at_once_unless_told_otherwise(told: list[str]) -> None:
    with pytest.raises(Unreachable, match="nothing listens there"):
        await edge(f"ws://127.0.0.1:{free_port()}", patience=Patience()).live()
    assert told == []


async def test_a_hub_that_is_not_there_yet_is_waited_for_to_the_end_of_patience_and_no_longer(told: list[str]) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(Unreachable):
        # Delays grow so fast that the last would end long after patience does.
        await edge(f"ws://127.0.0.1:{free_port()}", patience=Patience(first=0.3, base=0.05, cap=60.0)).live()
    assert 0.29 <= loop.time() - began < 5
    assert told
    assert all("trying again in" in line for line in told)


async def test_a_hub_that_starts_late_is_found(tmp_path: Path) -> None:
    port, tried = free_port(), asyncio.Event()
    early = edge(f"ws://127.0.0.1:{port}")
    early.tell = lambda line: tried.set()
    async with edges(early):
        await tried.wait()
        async with running_hub(tmp_path, port=port) as hub:
            await hub.ended()
    assert hub.all(RoundClosed)[0].answered == 1


async def test_an_edge_comes_back_after_its_hub_restarts_on_the_same_port(tmp_path: Path) -> None:
    learner = Adder()
    async with running_hub(tmp_path, rounds=1000) as first:
        life = asyncio.create_task(edge(first.url, learner=learner).live())
        await first.until(RoundClosed, round=2)
        first.hub.stop()
        await first.ended()
    port = int(first.url.rpartition(":")[2])
    rounds = learner.trained[-1][0] + 2
    async with running_hub(tmp_path, port=port, resume=first.folder, rounds=rounds) as second:
        await second.ended()
    await asyncio.wait_for(life, 10)
    assert [fact.edge for fact in second.all(EdgeJoined)] == ["edge"]
    assert {round for round, _ in learner.trained} == set(range(1, rounds + 1))


async def test_an_edge_whose_hub_does_not_come_back_gives_up_in_the_end(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rounds=1000) as hub:
        life = asyncio.create_task(edge(hub.url, patience=Patience(again=0.2, base=0.01, cap=0.05)).live())
        await hub.until(RoundClosed)
        hub.hub.stop()
        await hub.ended()
    with pytest.raises(Unreachable, match="nothing listens there"):
        await asyncio.wait_for(life, 10)


async def test_a_device_that_goes_away_gives_its_work_up_and_comes_back(tmp_path: Path) -> None:
    class Leaver(Adder):
        async def train(self, task: Train, model: Tensors) -> object:
            if not self.begun.is_set():
                self.begun.set()
                raise WentAway(0.01)
            return await super().train(task, model)

    async with running_hub(tmp_path, wait_for=2) as hub:
        awaited = Adder(gate=asyncio.Event())
        async with edges(edge(hub.url, learner=Leaver()), agent(hub.url, "awaited", awaited)):
            await hub.until(EdgeLeft, edge="edge")
            await hub.until(EdgeJoined, edge="edge")
            awaited.gate.set()
            await hub.ended()
    assert hub.all(RoundClosed)[0].answered == 2


async def test_work_that_failed_while_nobody_listened_is_dropped_without_a_complaint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failed = asyncio.Event()

    class Failing(Adder):
        async def train(self, task: Train, model: Tensors) -> object:
            self.begun.set()
            assert self.gate
            await self.gate.wait()
            failed.set()
            raise ConfigError("my loss is broken")

    async with running_hub(tmp_path, rounds=1000) as hub:
        learner = Failing(gate=asyncio.Event())
        async with edges(edge(hub.url, learner=learner)):
            await learner.begun.wait()
            hub.hub.stop()
            await hub.ended()
            learner.gate.set()
            await failed.wait()
    gc.collect()  # asyncio complains when it throws a task away whose error nobody has looked at
    assert caplog.records == []


# --- back-off ---


def test_delays_are_drawn_evenly_between_nothing_and_a_bound_that_doubles_up_to_a_cap() -> None:
    patience, dice = Patience(base=1.0, cap=60.0), random.Random(1)
    for attempt, bound in ((1, 1.0), (2, 2.0), (3, 4.0), (6, 32.0), (7, 60.0), (10_000, 60.0)):
        delays = [patience.delay(attempt, dice) for _ in range(400)]
        assert all(0 <= delay <= bound for delay in delays)
        assert min(delays) < 0.05 * bound
        assert max(delays) > 0.95 * bound
        assert 0.4 * bound < sum(delays) / len(delays) < 0.6 * bound


def test_the_dice_decide_the_delays_so_two_edges_do_not_come_back_together() -> None:
    def delays(seed: int) -> list[float]:
        dice = random.Random(seed)
        return [Patience().delay(attempt, dice) for attempt in range(1, 6)]

    assert delays(1) == delays(1) != delays(2)


# --- evaluations ---


@pytest.mark.parametrize(
    ("metrics", "answer"),
    [(lambda model: {"sum": float(model["weight"].sum())}, Measured(1, {"sum": 15.0})), (None, Measured(0, {}))],
    ids=["with held-out data", "without"],
)
async def test_an_edge_that_is_asked_to_measure_always_answers(metrics: object, answer: Measured) -> None:
    measured: list[Measured] = []

    async def ask(link: Link[ToHub]) -> None:
        await welcome(link)
        task = Evaluate(run="r", round=1, model=sha256(MODEL), seconds=1.0, plan=plan())
        await link.send(encode(task, MODEL.values()))
        heard = (await link.receive()).message
        measured.append(Measured(heard.examples, heard.metrics))
        await goodbye(Farewell.DONE)(link)

    async with scripted_hub(ask) as url:
        await edge(url, learner=Adder(metrics=metrics)).live()
    assert measured == [answer]
