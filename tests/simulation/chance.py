"""Puts the sources of chance and of the outside world that libraries reach for under the seed, for one simulation."""

import email.utils
import io
import os
import random
import secrets
import sqlite3
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import websockets.asyncio.client
import websockets.asyncio.server

from tests.simulation.loop import MACHINE, Died, Machine


class InOrder(dict[Any, None]):
    """A set that is iterated in the order of insertion; websockets closes its connections in the order of a set."""

    def add(self, item: Any) -> None:
        self[item] = None

    def discard(self, item: Any) -> None:
        self.pop(item, None)

    remove = discard


class Silence(io.TextIOBase):
    """Where the log goes."""

    def write(self, text: str) -> int:
        return len(text)


class SteppedConnection(sqlite3.Connection):
    """A database whose statements are steps at which its machine may die; what was executed is durable."""

    step: Callable[[str], None]

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        self.step("execute")
        cursor = super().execute(*arguments)
        self.step("executed")
        return cursor


@contextmanager
def under_the_seed(seed: int, opened: Callable[[Machine, sqlite3.Connection], Callable[[str], None]]) -> Iterator[None]:
    """Make everything random follow `seed`; `opened` is told which machine opened a database, and steps it."""
    dice = random.Random(f"chance {seed}")
    connect = sqlite3.connect
    begin = websockets.asyncio.server.Server.__init__

    def connected(*arguments: Any, **options: Any) -> sqlite3.Connection:
        machine = MACHINE.get()
        if machine is None or not machine.alive:
            raise Died
        connection = connect(*arguments, **options, factory=SteppedConnection)
        connection.step = opened(machine, connection)
        return connection

    def ordered(server: Any, *arguments: Any, **options: Any) -> None:
        begin(server, *arguments, **options)
        server.all_connections, server.handler_tasks = InOrder(), InOrder()

    state = random.getstate()
    random.seed(f"module {seed}")
    try:
        with (
            patch.object(os, "urandom", dice.randbytes),
            patch.object(secrets, "token_bytes", lambda count=32: dice.randbytes(count)),
            patch.object(secrets, "token_hex", lambda count=32: dice.randbytes(count).hex()),
            patch.object(uuid, "uuid4", lambda: uuid.UUID(bytes=dice.randbytes(16), version=4)),
            patch.object(email.utils, "formatdate", lambda **_: "Thu, 01 Jan 1970 00:00:00 GMT"),  # HTTP's Date
            patch.object(sqlite3, "connect", connected),
            patch.object(websockets.asyncio.client, "get_proxy", lambda _: None),
            patch.object(websockets.asyncio.server.Server, "__init__", ordered),
            patch.object(sys, "stderr", Silence()),
        ):
            yield
    finally:
        random.setstate(state)
