"""What a connection may cost: who is silent, drips or does not read is cut, and who only waits is not."""

import asyncio
import contextlib
import os
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close, Opcode

from shared import watch
from shared.budget import AT_ONCE, Budget, Store
from shared.codec import Decoded, Frame, encode
from shared.errors import LinkClosed, ProtocolError
from shared.intake import SMALL
from shared.link import Link, Traffic, connect, listen, port_of
from shared.messages import Goodbye, ToHub
from shared.tensors import ModelSpec
from shared.watch import OF_A_HUB, OF_AN_EDGE, Limits, WatchedByHub, by_hub
from tests.support import tls
from tests.support.examples import HELLO, TRAIN, UPDATE, WELCOME
from tests.support.strangers import Stranger, frame, head_of, stranger

MIB = 2**20
MODEL = {"w": np.zeros(MIB, np.uint8)}
SPEC = ModelSpec.of(MODEL)
UPLOAD = encode(UPDATE, MODEL.values())
BYTES = b"".join(UPLOAD.pieces)

QUICK = Limits(ping_every=0.05, silence=0.3, window=0.15, floor=4096.0, stalled=0.3)
CALM = Limits(ping_every=60.0, silence=60.0, window=60.0, floor=0.0, stalled=60.0)


@dataclass
class Hub:
    """A listening hub that does nothing by itself: a test takes the links of those who come."""

    url: str
    links: asyncio.Queue[Link[ToHub]]


@contextlib.asynccontextmanager
async def hub(limits: Limits = OF_A_HUB, budget: Budget | None = None) -> AsyncIterator[Hub]:
    links: asyncio.Queue[Link[ToHub]] = asyncio.Queue()
    over = asyncio.Event()

    async def keep(link: Link[ToHub]) -> None:
        link.expect(SPEC)
        links.put_nowait(link)
        await over.wait()

    server = await listen(keep, host="127.0.0.1", port=0, traffic=Traffic(), limits=limits, budget=budget)
    try:
        yield Hub(f"ws://127.0.0.1:{port_of(server)}", links)
    finally:
        over.set()
        server.close()
        await server.wait_closed()


@contextlib.asynccontextmanager
async def websocket(of: Hub) -> AsyncIterator[tuple[Stranger, Link[ToHub]]]:
    """Give a bare websocket, and the hub's end of it."""
    async with stranger(of.url) as one:
        await one.shake_hands()
        yield one, await of.links.get()


async def until(happened: Callable[[], bool]) -> None:
    """Wait for something that tells nobody when it happens."""
    for _ in range(1000):
        if happened():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen")


async def stuck(link: Link[Any]) -> None:
    """Wait until a send of this link is stuck, as the line is full."""
    outlet, now = link._connection.outlet, asyncio.get_running_loop().time
    await until(lambda: outlet.waits and now() > outlet.moved + 0.02)


async def cut(link: Link[ToHub]) -> str:
    """Receive until the link is cut; give the reason."""
    with pytest.raises(LinkClosed) as closed:
        while True:
            with contextlib.suppress(ProtocolError):
                await link.receive()
    assert closed.value.code == 1006
    return closed.value.reason


# --- who drips ---


async def in_a_frame(one: Stranger) -> None:
    one.writer.write(head_of(1000))
    await one.drip(bytes(1000), every=0.01)


async def in_the_head_of_a_frame(one: Stranger) -> None:
    await one.drip(head_of(1000) + bytes(1000), every=0.02)


async def in_fragments_with_pongs_answered(one: Stranger) -> None:
    one.writer.write(frame(b"\x80", fin=False))
    while not one.reader.at_eof():
        one.writer.write(frame(b"x", Opcode.CONT, fin=False) + frame(b"", Opcode.PONG) + frame(b"?", Opcode.PING))
        await asyncio.sleep(0.01)


async def in_empty_fragments(one: Stranger) -> None:
    one.writer.write(frame(b"", fin=False))
    while not one.reader.at_eof():
        one.writer.write(frame(b"", Opcode.CONT, fin=False))
        await asyncio.sleep(0.01)


async def after_a_whole_message_and_half_a_head(one: Stranger) -> None:
    one.writer.write(frame(b"\x80") + head_of(1000)[:2])
    await asyncio.sleep(0.05)
    await one.drip(head_of(1000)[2:] + bytes(1000), every=0.01)


async def in_a_ping(one: Stranger) -> None:
    await one.drip(frame(bytes(125), Opcode.PING), every=0.02)


DRIPS: list[Callable[[Stranger], Awaitable[None]]] = [
    in_a_frame,
    in_the_head_of_a_frame,
    in_fragments_with_pongs_answered,
    in_empty_fragments,
    after_a_whole_message_and_half_a_head,
    in_a_ping,
]


@pytest.mark.parametrize("drip", DRIPS)
async def test_whoever_drips_is_cut_and_is_told_from_whoever_left(
    drip: Callable[[Stranger], Awaitable[None]],
) -> None:
    async with hub(replace(QUICK, silence=60.0)) as of, websocket(of) as (one, there):
        began = asyncio.get_running_loop().time()
        dripping = asyncio.create_task(drip(one))
        assert await cut(there) == "a message came at less than 4096 bytes a second"
        assert asyncio.get_running_loop().time() - began < 1.0
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)


async def test_a_message_that_comes_above_the_floor_is_received_however_long_it_takes() -> None:
    async with hub(replace(QUICK, silence=60.0)) as of, websocket(of) as (one, there):
        receiving = asyncio.create_task(there.receive())
        one.writer.write(head_of(6400))
        await one.drip(encode(HELLO).pieces[0] + b"\xc0" * (6400 - encode(HELLO).nbytes), every=0.01, size=100)
        with pytest.raises(ProtocolError, match="padding"):
            await receiving  # whole, after four windows


async def test_messages_and_pings_that_come_now_and_then_are_no_drip() -> None:
    async with hub(replace(QUICK, ping_every=60.0, silence=60.0)) as of, websocket(of) as (one, there):
        for _ in range(20):
            one.writer.write(frame(b"", Opcode.PING) + frame(b"".join(encode(HELLO).pieces)) + frame(b"?", Opcode.PING))
            assert (await there.receive()).message == HELLO
            await asyncio.sleep(0.02)


async def test_whoever_says_goodbye_and_goes_on_talking_is_cut() -> None:
    async with hub(replace(QUICK, silence=60.0)) as of, websocket(of) as (one, there):
        one.writer.write(frame(Close(1000, "bye").serialize(), Opcode.CLOSE))
        dripping = asyncio.create_task(one.drip(bytes(1000), every=0.01))
        assert await cut(there) == "a message came at less than 4096 bytes a second"
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)


# --- who is silent ---


async def test_whoever_is_silent_is_cut_by_the_hub() -> None:
    async with hub(QUICK) as of, websocket(of) as (_, there):
        assert await cut(there) == "nothing came for 0.3 s"


async def test_whoever_answers_pings_may_be_silent() -> None:
    async with hub(replace(QUICK, ping_every=0.05)) as of:
        edge = await connect(of.url)
        there = await of.links.get()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.8):
                await asyncio.gather(there.receive(), edge.receive())
        edge.abort()


async def test_a_hub_that_is_silent_is_given_up_by_the_edge() -> None:
    async with hub(CALM) as of:
        edge = await connect(of.url, limits=replace(OF_AN_EDGE, ping_every=60.0, silence=0.2, window=0.15))
        with pytest.raises(LinkClosed, match=r"nothing came for 0\.2 s"):
            await edge.receive()


# --- who does not read ---


async def test_whoever_does_not_read_is_cut_when_a_send_gets_nowhere() -> None:
    async with hub(replace(QUICK, silence=60.0)) as of, websocket(of) as (one, there):
        one.writer.transport.pause_reading()
        sending = asyncio.create_task(there.send(encode(UPDATE, [np.zeros(16 * MIB, np.uint8)])))
        receiving = asyncio.create_task(there.receive())
        with pytest.raises(LinkClosed, match=r"nothing could be sent for 0\.3 s"):
            await sending
        with pytest.raises(LinkClosed):
            await receiving


@pytest.mark.parametrize(
    "said",
    [encode(UPDATE, [np.zeros(16 * MIB, np.uint8)]), Frame((bytes(16 * MIB),), 16 * MIB)],
    ids=["fragments", "one frame"],
)
@pytest.mark.parametrize("system", ["plain", "no writev"])
async def test_whoever_reads_slowly_but_reads_is_not_cut(
    said: Frame, system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if system != "plain":
        monkeypatch.delattr(os, "writev")  # so that asyncio holds what the socket does not take
    async with hub(replace(QUICK, silence=60.0)) as of, websocket(of) as (one, there):
        one.writer.transport.pause_reading()
        sending = asyncio.create_task(there.send(said))
        for _ in range(30):
            await asyncio.sleep(0.02)
            one.writer.transport.resume_reading()
            await one.reader.readexactly(MIB // 4)
            one.writer.transport.pause_reading()
        one.writer.transport.resume_reading()
        reading = asyncio.create_task(one.gone())
        await sending
        there.abort()
        await reading


async def test_where_the_system_cannot_say_how_much_is_unsent_a_connection_works_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch, "_NOT_SENT", None)
    async with hub() as of:
        edge = await connect(of.url)
        there = await of.links.get()
        await there.send(WELCOME)
        assert (await edge.receive()).message == WELCOME
        edge.abort()


async def test_what_the_hub_holds_for_whoever_does_not_read_is_next_to_nothing() -> None:
    said = Frame((memoryview(bytes(16 * MIB)),), 16 * MIB)  # one frame, so that pongs have to wait for its end
    async with hub(CALM) as of, websocket(of) as (one, there):
        one.writer.transport.pause_reading()
        tracemalloc.start()
        sending = asyncio.create_task(there.send(said))
        await stuck(there)
        for _ in range(3):
            one.writer.write(frame(bytes(125), Opcode.PING))
        await until(lambda: there._connection._owed == 3 * 127)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held < MIB // 32
        there.abort()
        with pytest.raises(LinkClosed):
            await sending


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "in the middle of a frame"])
async def test_whoever_pings_and_does_not_read_the_pongs_is_cut(busy: bool) -> None:
    async with hub(CALM) as of, websocket(of) as (one, there):
        one.writer.transport.pause_reading()
        one.writer.transport.set_write_buffer_limits(high=0)
        sending = asyncio.create_task(there.send(Frame((bytes(16 * MIB),), 16 * MIB) if busy else WELCOME))
        if busy:
            await stuck(there)
        cutting = asyncio.create_task(cut(there))
        flood = frame(bytes(125), Opcode.PING) * 1000
        while not cutting.done():
            one.writer.write(flood)
            with contextlib.suppress(OSError):
                await one.writer.drain()
        assert await cutting == "it pings and does not read the pongs"
        if busy:
            with pytest.raises(LinkClosed, match="does not read the pongs"):
                await sending
        else:
            await sending


# --- closing ---


async def test_nothing_is_heard_of_whoever_broke_the_protocol_in_a_close() -> None:
    async with hub() as of, websocket(of) as (one, there):
        one.writer.write(frame(b"?", Opcode.CLOSE) + frame(encode(HELLO).pieces[0]))
        await one.gone()
        one.writer.close()
        with pytest.raises(LinkClosed) as closed:
            await there.receive()
        assert closed.value.code == 1002


async def test_nothing_is_left_to_do_for_a_connection_that_has_ended() -> None:
    async with hub(replace(QUICK, ping_every=60.0, silence=60.0)) as of:
        edge = await connect(of.url)
        there = await of.links.get()
        now = asyncio.get_running_loop().time
        await until(lambda: there._connection._timer.when() > now() + 1.0)  # it looks after idle connections seldom
        edge.abort()
        with pytest.raises(LinkClosed):
            await there.receive()
        with pytest.raises(LinkClosed):
            await there.send(WELCOME)
        assert there._connection._timer.cancelled()


async def test_a_socket_that_fails_while_it_is_written_to_is_a_line_that_was_cut() -> None:
    async with hub() as of, websocket(of) as (one, there):
        there._connection.transport.pause_reading()  # so that only a write can tell
        one.writer.transport.pause_reading()
        sending = asyncio.create_task(there.send(encode(UPDATE, [np.zeros(16 * MIB, np.uint8)])))
        await stuck(there)
        one.writer.transport.abort()
        with pytest.raises(LinkClosed, match="the line was cut"):
            await sending


async def test_a_close_in_the_middle_of_a_long_message_says_its_own_code() -> None:
    async with hub() as of:
        edge = await connect(of.url)
        edge.expect(ModelSpec.of({"w": np.zeros(16 * MIB, np.uint8)}))
        there = await of.links.get()
        edge._connection.transport.pause_reading()
        sending = asyncio.create_task(there.send(encode(UPDATE, [np.zeros(16 * MIB, np.uint8)])))
        await stuck(there)
        closing = asyncio.create_task(there.close(1012, "the hub has stopped"))
        await asyncio.sleep(0)
        edge._connection.transport.resume_reading()
        with pytest.raises(LinkClosed) as closed:
            await edge.receive()
        assert (closed.value.code, closed.value.reason) == (1012, "the hub has stopped")
        edge.abort()
        await closing
        with pytest.raises(LinkClosed):
            await sending


async def test_a_close_does_not_wait_long_for_whoever_does_not_read() -> None:
    async with hub(CALM) as of, websocket(of) as (one, there):
        one.writer.transport.pause_reading()
        sending = asyncio.create_task(there.send(encode(UPDATE, [np.zeros(16 * MIB, np.uint8)])))
        await stuck(there)
        await asyncio.wait_for(there.close(1012, within=0.1), 1.0)
        with pytest.raises(LinkClosed, match="it did not take the close"):
            await sending


async def test_a_short_send_given_up_leaves_the_link_usable() -> None:
    async with hub(CALM) as of:
        edge = await connect(of.url)
        edge.expect(ModelSpec.of({"w": np.zeros(64 * MIB, np.uint8)}))
        there = await of.links.get()
        edge._connection.transport.pause_reading()
        sending = asyncio.create_task(there.send(encode(TRAIN, [np.zeros(64 * MIB, np.uint8)])))
        await stuck(there)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await there.send(Goodbye(code="done"))
        edge._connection.transport.resume_reading()
        assert len((await edge.receive()).segments) == 1
        await sending
        await there.send(WELCOME)
        assert (await edge.receive()).message == WELCOME
        edge.abort()


async def test_waiting_ends_with_the_time_or_with_the_link() -> None:
    async with hub() as of:
        edge = await connect(of.url)
        there = await of.links.get()
        before = asyncio.get_running_loop().time()
        await there.wait_closed(0.01)
        assert before < there.greet_by - 4.9
        assert before < asyncio.get_running_loop().time() - 0.009
        edge.abort()
        with pytest.raises(LinkClosed):
            await there.wait_closed(10.0)


# --- TLS ---


async def test_a_full_queue_and_a_lack_of_room_at_the_same_time_both_have_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only TLS brings it about: it hands over what it has decrypted although nothing more shall come."""
    budget, connections = Budget(2 * MIB), asyncio.Queue[WatchedByHub]()
    over = asyncio.Event()

    async def keep(connection: WatchedByHub) -> None:
        connections.put_nowait(connection)
        await over.wait()

    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    server = await serve(
        keep, "localhost", 0, ssl=tls.of_a_server(tmp_path), compression=None, ping_interval=None, write_limit=0,
        max_size=MIB, create_connection=by_hub(CALM, budget),
    )  # fmt: skip
    taken = budget.ask(2 * MIB, lambda: None)
    edge = await connect(f"wss://localhost:{port_of(server)}")
    there = await connections.get()
    messages = [b"a", b"b", b"c", bytes(SMALL + 1)]
    wire = edge._connection.transport
    wire.write(b"".join(frame(one) for one in messages))  # in one record, as far as that goes
    assert [bytes((await there.next_message()).data) for _ in range(3)] == messages[:3]
    last = asyncio.create_task(there.next_message())
    await asyncio.sleep(0)
    assert not last.done()
    taken.give_back()
    assert bytes((await last).data) == messages[3]
    over.set()
    edge.abort()
    server.close()
    await server.wait_closed()


async def test_an_edge_talks_to_a_hub_behind_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy takes the TLS off in front of a hub; that the hub's own end can do the same is asked here as well."""
    ended, heard = asyncio.Event(), list[bytes]()

    async def answer(connection: WatchedByHub) -> None:
        for _ in range(3):
            whole = await connection.next_message()
            heard.append(bytes(whole.data))
            await connection.send_message([whole.data[at : at + MIB] for at in range(0, len(whole.data), MIB)])
            if whole.room:
                whole.room.give_back()
        with pytest.raises(ConnectionClosed):
            await connection.next_message()
        ended.set()

    said = encode(UPDATE, [np.arange(2 * MIB, dtype=np.uint32)])
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    calm = replace(CALM, window=0.2, stalled=0.1)  # nothing is stalled that only looks so
    server = await serve(
        answer, "localhost", 0, ssl=tls.of_a_server(tmp_path), compression=None, ping_interval=None, write_limit=0,
        max_size=100 * MIB, create_connection=by_hub(calm, Budget(100 * MIB)),
    )  # fmt: skip
    edge = await connect(f"wss://localhost:{port_of(server)}")
    edge._incoming = ToHub  # it hears what it said
    edge.expect(ModelSpec.of({"w": np.zeros(8 * MIB, np.uint8)}))
    for _ in range(3):
        sending = asyncio.create_task(edge.send(said))
        assert bytes((await edge.receive()).data) == b"".join(said.pieces)
        await sending
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await edge.receive()
    assert heard == [b"".join(said.pieces)] * 3
    await asyncio.wait_for(edge.close(), 1.0)
    await ended.wait()
    server.close()
    await server.wait_closed()


# --- room for long messages ---


@contextlib.asynccontextmanager
async def uploading(of: Hub) -> AsyncIterator[Link[ToHub]]:
    """Send a long message in one frame, as browsers do; give the hub's end."""
    async with websocket(of) as (one, there):
        one.writer.write(frame(BYTES))
        yield there


async def test_a_long_message_takes_room_until_its_reader_has_done_with_it() -> None:
    budget = Budget(2 * MIB)
    async with hub(budget=budget) as of, uploading(of) as there:
        heard = await there.receive()
        assert MIB < budget.taken < MIB + 2 * SMALL
        heard.release()
        assert budget.taken == 0


async def test_small_messages_take_no_room() -> None:
    budget = Budget(1)
    async with hub(budget=budget) as of, websocket(of) as (one, there):
        one.writer.write(frame(b"".join(encode(HELLO).pieces)) * 3)
        heard = [await there.receive() for _ in range(3)]
        assert budget.taken == 0
        assert {one.message for one in heard} == {HELLO}


async def test_what_does_not_fit_waits_in_its_socket_and_comes_when_there_is_room() -> None:
    budget = Budget(2 * MIB)
    async with hub(budget=budget) as of, uploading(of) as first, uploading(of) as second:
        heard = await first.receive()
        waiting = asyncio.create_task(second.receive())
        done, _ = await asyncio.wait([waiting], timeout=0.1)
        assert not done
        assert second._connection._intake.held <= 4096  # and no more than that is in memory
        heard.release()
        (await asyncio.wait_for(waiting, 5)).release()
    assert budget.taken == 0


async def test_whoever_waits_for_its_reader_and_for_room_goes_on_when_it_has_both() -> None:
    budget = Budget(2 * MIB)
    async with hub(budget=budget) as of, uploading(of) as first, websocket(of) as (one, second):
        heard = await first.receive()
        one.writer.write(frame(encode(HELLO).pieces[0]) * 5 + frame(BYTES))
        for _ in range(5):
            assert (await second.receive()).message == HELLO
        waiting = asyncio.create_task(second.receive())
        done, _ = await asyncio.wait([waiting], timeout=0.05)
        assert not done
        heard.release()
        assert bytes((await waiting).data) == BYTES
        waiting.result().release()
    assert budget.taken == 0


async def test_a_message_in_small_fragments_waits_for_room_all_the_same() -> None:
    budget = Budget(2 * MIB)
    async with hub(budget=budget) as of, uploading(of) as first, websocket(of) as (one, second):
        heard = await first.receive()
        for at in range(0, MIB, 1000):
            one.writer.write(frame(BYTES[at : at + 1000], Opcode.CONT if at else Opcode.BINARY, fin=False))
        one.writer.write(frame(BYTES[at + 1000 :], Opcode.CONT))
        waiting = asyncio.create_task(second.receive())
        done, _ = await asyncio.wait([waiting], timeout=0.1)
        assert not done
        heard.release()
        again = await asyncio.wait_for(waiting, 5)
        assert bytes(again.data) == BYTES
        again.release()
    assert budget.taken == 0


async def test_whoever_waits_for_room_or_for_its_reader_is_not_taken_for_dead_by_either_side() -> None:
    limits = replace(QUICK, silence=0.2)
    budget = Budget(2 * MIB)
    async with hub(limits, budget) as of, uploading(of) as first:
        edge = await connect(of.url, limits=replace(OF_AN_EDGE, silence=0.2, window=0.15))
        there = await of.links.get()
        there.expect(SPEC)
        heard = await first.receive()
        sending = asyncio.create_task(edge.send(UPLOAD))
        listening = asyncio.create_task(edge.receive())
        receiving = asyncio.create_task(there.receive())
        done, _ = await asyncio.wait([listening, receiving], timeout=1.0)  # five times the silence
        assert not done
        heard.release()
        (await asyncio.wait_for(receiving, 5)).release()
        await sending
        frames = asyncio.create_task(edge.send(UPLOAD))  # now there is room, but nobody receives
        done, _ = await asyncio.wait([listening], timeout=1.0)
        assert not done
        (await there.receive()).release()
        await frames
        edge.abort()
        with contextlib.suppress(LinkClosed):
            await listening
    assert budget.taken == 0


async def taken_in(one: Stranger, data: bytes) -> None:
    """Send something, and wait until the hub has it."""
    one.writer.write(data + frame(b"", Opcode.PING))
    await one.reader.readexactly(2)


async def refused(one: Stranger, there: Link[ToHub], budget: Budget) -> None:
    await taken_in(one, frame(bytes(MIB)))
    assert budget.taken
    with pytest.raises(ProtocolError):
        await there.receive()


async def never_read(one: Stranger, there: Link[ToHub], budget: Budget) -> None:
    await taken_in(one, frame(BYTES))
    assert budget.taken


async def cut_while_it_is_read(one: Stranger, there: Link[ToHub], budget: Budget) -> None:
    receiving = asyncio.create_task(there.receive())
    await taken_in(one, frame(BYTES[:-1], fin=False))
    assert budget.taken
    there.abort()
    with pytest.raises(LinkClosed):
        await receiving


async def given_up_while_it_is_read(one: Stranger, there: Link[ToHub], budget: Budget) -> None:
    receiving = asyncio.create_task(there.receive())
    await taken_in(one, frame(BYTES[:-1], fin=False))
    assert budget.taken
    receiving.cancel()
    await asyncio.wait([receiving])


@pytest.mark.parametrize("fail", [refused, never_read, cut_while_it_is_read, given_up_while_it_is_read])
async def test_room_is_given_back_on_every_way_to_fail(
    fail: Callable[[Stranger, Link[ToHub], Budget], Awaitable[None]],
) -> None:
    budget = Budget(2 * MIB)
    async with hub(CALM, budget) as of, websocket(of) as (one, there):
        await fail(one, there, budget)
    assert budget.taken == 0


async def test_what_comes_whole_after_its_reader_has_left_keeps_nobody_waiting() -> None:
    budget = Budget(100 * MIB)
    async with hub(CALM, budget) as of, websocket(of) as (one, there):
        await taken_in(one, frame(BYTES[:-1], fin=False))
        there._connection.leave()
        assert budget.taken == 0
        await taken_in(one, frame(BYTES[-1:], Opcode.CONT))
        rooms = [budget.ask(MIB, lambda: None) for _ in range(3 * AT_ONCE)]
        await until(lambda: all(room.memory for room in rooms))
        for room in rooms:
            room.give_back()


async def test_messages_that_nobody_read_are_dropped_when_their_reader_leaves() -> None:
    budget = Budget(100 * MIB)
    async with hub(CALM, budget) as of, websocket(of) as (one, there):
        for message in (b"a short one", BYTES):
            one.writer.write(frame(message))
        await until(lambda: len(there._connection._messages) == 2)
        assert budget.taken
        there._connection.leave()
        assert not there._connection._messages
        assert budget.taken == 0


async def test_a_message_that_comes_in_parts_is_announced_once() -> None:
    told = list[int]()
    async with hub(CALM) as of, websocket(of) as (one, there):
        there.when_begun(lambda: told.append(len(told)))
        await taken_in(one, frame(b"all at once"))
        assert told == []
        for _ in range(2):
            await taken_in(one, frame(BYTES[:1000], fin=False))
            await taken_in(one, frame(BYTES[1000:2000], Opcode.CONT, fin=False))
            await taken_in(one, frame(BYTES[2000:3000], Opcode.CONT))
        assert told == [0, 1]


@pytest.mark.parametrize("waits", [False, True], ids=["with room", "waiting for room"])
async def test_whoever_talks_on_while_its_connection_is_closed_gets_no_room_and_is_heard_to_the_end(
    waits: bool,
) -> None:
    budget = Budget(2 * MIB)
    others = budget.ask(2 * MIB, lambda: None) if waits else None
    async with hub(CALM, budget) as of, websocket(of) as (one, there):
        one.writer.write(frame(BYTES[:500_000], fin=False))
        await until(lambda: there._connection._room is not None)
        closing = asyncio.create_task(there.close(1000, "enough"))
        assert (await one.reader.readexactly(10))[4:] == b"enough"
        if others:
            others.give_back()
        assert budget.taken == 0
        one.writer.write(
            frame(BYTES[500_000:], Opcode.CONT) + frame(BYTES) + frame(b"", fin=False) + frame(b"", Opcode.CONT)
        )
        await taken_in(one, frame(BYTES[:1000], fin=False))
        assert budget.taken == 0
        one.writer.write(frame(b"\x03\xe8", Opcode.CLOSE))
        one.writer.close()
        await asyncio.wait_for(closing, 2)
    assert budget.taken == 0


async def test_whoever_breaks_the_protocol_within_a_long_message_gives_its_room_back() -> None:
    budget = Budget(2 * MIB)
    async with hub(CALM, budget) as of, websocket(of) as (one, there):
        await taken_in(one, frame(BYTES[:-1], fin=False))
        assert budget.taken
        one.writer.write(frame(BYTES[:1]))
        await one.gone()
        assert budget.taken == 0
        one.writer.close()
        with pytest.raises(LinkClosed) as closed:
            await there.receive()
        assert closed.value.code == 1002


async def test_an_edge_that_lets_go_of_its_model_when_the_next_one_comes_needs_memory_for_one() -> None:
    async with hub() as of:
        edge = await connect(of.url, store=(store := Store()))
        edge.expect(SPEC)
        there = await of.links.get()
        models = list[memoryview]()
        edge.before_long(models.clear)
        places = set[int]()
        for _ in range(3):
            sending = asyncio.create_task(there.send(encode(TRAIN, MODEL.values())))
            models.append((await edge.receive()).segments[0])
            places.add(np.frombuffer(models[0], np.uint8).ctypes.data)
            await sending
        assert len(places) == 1
        assert len(models) == 1
        models.clear()
        assert len(store._free) == 1
        edge.abort()


async def test_whoever_leaves_while_it_waits_makes_place_in_the_line() -> None:
    budget = Budget(2 * MIB)
    heard: list[Decoded[ToHub]] = []
    async with hub(budget=budget) as of, uploading(of) as first:
        heard.append(await first.receive())
        async with uploading(of) as second:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await second.receive()
            second.abort()
            with pytest.raises(LinkClosed):
                await second.receive()
        heard[0].release()
        async with uploading(of) as third:
            (await third.receive()).release()
    assert budget.taken == 0
