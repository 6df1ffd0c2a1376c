"""Flips single bits of a run folder: whatever is given back afterwards is what was written, or it is told (D6)."""

import argparse
import asyncio
import random
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hub.journal import Committed, Journal
from hub.spool import _END, Spooled, read_spool
from shared.errors import FedhubError
from shared.tensors import sha256
from tests.support.disks import QuickDisk, quick_folder
from tests.support.journals import answer, memory, model, opening, plain

ROUNDS = 4
KEPT = 2
EDGES = ("a", "b", "c")


@dataclass(frozen=True)
class Flip:
    """One bit of one file."""

    file: Path
    bit: int

    def do(self, folder: Path) -> None:
        """Turn the bit over."""
        content = bytearray((folder / self.file).read_bytes())
        content[self.bit // 8] ^= 1 << self.bit % 8
        (folder / self.file).write_bytes(content)


async def write_run(folder: Path) -> None:
    """Write a run of a few rounds, with the updates of two of them kept, and an open round with two answers.

    The open round's file was that of a try with three answers before.
    """
    async with Journal(folder, disk=QuickDisk()) as journal:
        await journal.retain(KEPT)
        newest = await journal.begin(run="r1", settings={"app": "digits", "lr": 0.1}, model=model(0))
        for number in range(1, ROUNDS + 1):
            await journal.open_round(opening(round=number, model=newest.sha256))
            for at, edge in enumerate(EDGES):
                await journal.keep(*answer(edge, at / 8, size=30))
            newest = await journal.commit(number=number, attempt=1, model=model(number), memory=memory(number))
            await journal.evaluated(number, {"accuracy": number / 7})
        for attempt, edges in ((1, EDGES), (2, EDGES[:2])):
            await journal.abandon_round()
            await journal.open_round(opening(round=ROUNDS + 1, attempt=attempt, model=newest.sha256))
            for at, edge in enumerate(edges):
                await journal.keep(*answer(edge, at / 8, size=30))
        await journal.settle()


def right(committed: Committed) -> bool:
    """Tell whether a round's model is the one that was committed."""
    number = committed.number
    wanted = memory(number) if number else {}
    return committed.sha256 == sha256(committed.model) == sha256(model(number)) and (
        sha256(committed.memory) == sha256(wanted)
    )


def right_updates(spooled: Spooled, number: int, edges: int) -> bool:
    """Tell whether updates are the first of those that were accepted in a round, as many as there were edges."""
    wanted = plain(answer(edge, at / 8, size=30) for at, edge in enumerate(EDGES[:edges]))
    attempt = 1 if number <= ROUNDS else 2
    return spooled.opening == opening(round=number, attempt=attempt, model=sha256(model(number - 1))) and (
        plain(spooled.updates) == wanted
    )


async def read_run(folder: Path) -> list[str]:
    """Ask for everything.

    Returns:
        what was told: sentences about damage.

    Raises:
        AssertionError: something else than what was written was given back, and nothing was told.
    """
    told: list[str] = []
    try:
        async with Journal(folder, disk=QuickDisk()) as journal:
            remembered = await journal.resume()
            newest = remembered.newest
            if remembered.fell_back:
                told.append(remembered.fell_back)
            assert (remembered.run, remembered.settings) == ("r1", {"app": "digits", "lr": 0.1})
            assert right(newest)
            assert remembered.evaluations == {n: {"accuracy": n / 7} for n in range(1, newest.number + 1)}
            assert await journal.proved() == [(n, sha256(model(n))) for n in range(newest.number + 1)]
            assert newest.number == ROUNDS or told
            if told:
                assert remembered.open is None or any(
                    right_updates(remembered.open, newest.number + 1, edges) for edges in range(len(EDGES) + 1)
                )
            else:
                assert remembered.open
                assert right_updates(remembered.open, ROUNDS + 1, 2)
            for number in range(ROUNDS - KEPT, newest.number + 1):
                try:
                    snapshot = await journal.snapshot(number)
                    assert snapshot
                    assert right(snapshot)
                except FedhubError as error:
                    told.append(str(error))
            for number in range(ROUNDS - KEPT + 1, newest.number + 1):
                try:
                    updates = await journal.updates(number)
                    assert updates
                    assert right_updates(updates, number, len(EDGES))
                except FedhubError as error:
                    told.append(str(error))
    except FedhubError as error:
        told.append(str(error))
    return told


async def rot(flips: int, seed: int) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Flip so many bits, one in each of as many copies of a run.

    Returns:
        how many were told and how many were harmless, by the kind of file; and all that came to anything else.
    """
    dice = random.Random(seed)
    counted: Counter[tuple[str, str]] = Counter()
    bad: list[str] = []
    with quick_folder() as temporary:
        whole, copy = temporary / "whole", temporary / "copy"
        await write_run(whole)
        assert await read_run(shutil.copytree(whole, copy)) == []
        files = sorted(file.relative_to(whole) for file in whole.rglob("*") if file.is_file())
        kinds = sorted({kind_of(file) for file in files})
        for at in range(flips):
            kind = kinds[at % len(kinds)]
            file = dice.choice([file for file in files if kind_of(file) == kind])
            content = (whole / file).read_bytes()
            if kind == "spool":  # what is behind its end is a former round's, and nobody's
                content = content[: read_spool(content).length + _END]
            places: Sequence[int] = range(len(content))
            if at // len(kinds) % 2:  # half of the flips spare zeros, of which the database is full
                places = [place for place in places if content[place]]
            flip = Flip(file, 8 * dice.choice(places) + dice.randrange(8))
            shutil.rmtree(copy)
            shutil.copytree(whole, copy)
            flip.do(copy)
            try:
                told = await read_run(copy)
                assert all("\n" not in sentence for sentence in told), told
            except BaseException as error:  # noqa: BLE001  # even a panic of a library's is a finding
                bad.append(f"{flip}: {type(error).__name__}: {error}")
            else:
                counted[kind, "told" if told else "harmless"] += 1
    return counted, bad


def kind_of(file: Path) -> str:
    """Name the kind of a file: its folder, or the database."""
    return file.parts[0]


def main() -> None:
    """Flip as many bits as the command line says, and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    counted, bad = asyncio.run(rot(asked.flips, asked.seed))
    for (kind, what), number in sorted(counted.items()):
        print(f"{kind:16} {what:10} {number:6}")
    print("\n".join(bad))
    print(f"{asked.flips} bits flipped, {len(bad)} came back as something else")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
