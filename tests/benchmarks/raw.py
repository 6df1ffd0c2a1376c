"""The floor: the same bytes through plain blocking TCP, between two processes, into one buffer that is used again."""

import json
import resource
import selectors
import socket
import subprocess
import sys
import time
from dataclasses import dataclass

_BUFFER = 1024 * 1024


@dataclass(frozen=True)
class Floor:
    """What raw TCP needs."""

    seconds: float
    cpu: float
    """Processor seconds of the hub's side."""


def raw(*, edges: int, down: int, up: int, repeats: int = 3) -> Floor:
    """Send `down` bytes to each of `edges` connections, then have `up` bytes sent back by each; give the median.

    One connection is written after the other, and all are read at once, which is the fastest of the plain ways.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as server:
        arguments = [str(server.getsockname()[1]), str(edges), str(down), str(up), str(repeats)]
        far = subprocess.Popen([sys.executable, "-m", "tests.benchmarks.raw", *arguments])
        ends = [server.accept()[0] for _ in range(edges)]
    body, buffer, took = bytearray(max(down, 1)), bytearray(_BUFFER), []
    for _ in range(repeats):
        began, spent = time.perf_counter(), _cpu()
        _send(ends, memoryview(body))
        _receive(ends, max(up, 1), buffer)
        took.append(Floor(time.perf_counter() - began, _cpu() - spent))
    far.wait()
    for end in ends:
        end.close()
    return sorted(took, key=lambda one: one.seconds)[repeats // 2]


def _far(port: int, edges: int, down: int, up: int, repeats: int) -> None:
    ends = [socket.create_connection(("127.0.0.1", port)) for _ in range(edges)]
    body, buffer = bytearray(max(up, 1)), bytearray(_BUFFER)
    for _ in range(repeats):
        _receive(ends, max(down, 1), buffer)
        _send(ends, memoryview(body))


def _send(ends: list[socket.socket], body: memoryview) -> None:
    for end in ends:
        end.sendall(body)


def _receive(ends: list[socket.socket], nbytes: int, buffer: bytearray) -> None:
    left = dict.fromkeys(ends, nbytes)
    view = memoryview(buffer)
    with selectors.DefaultSelector() as selector:
        for end in ends:
            selector.register(end, selectors.EVENT_READ)
        while left:
            for key, _ in selector.select():
                end = key.fileobj
                assert isinstance(end, socket.socket)
                count = end.recv_into(view[: min(left[end], _BUFFER)])
                if count == 0:
                    raise ConnectionError("the other side of the raw measurement has ended")
                left[end] -= count
                if not left[end]:
                    del left[end]
                    selector.unregister(end)


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    _far(*(json.loads(text) for text in sys.argv[1:]))
