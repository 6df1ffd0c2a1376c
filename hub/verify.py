"""Proves a run: recomputes every round whose updates are kept, and compares with the model that was committed."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from hub.adding import Adding, wire
from hub.aggregation.catalogue import algorithm
from hub.journal import Committed, Journal
from hub.rules.admission import Gate, Refusal
from hub.spool import Spooled
from shared.codec import decode
from shared.errors import ConfigError, JournalError
from shared.messages import ToHub
from shared.tensors import ModelSpec, sha256


@dataclass(frozen=True)
class Verdict:
    """What was found of one committed round."""

    round: int
    model: str
    """Hash of the committed model."""
    updates: int
    """How many updates it was recomputed from; 0 if they are not kept any more."""


async def verify(folder: Path) -> AsyncIterator[Verdict]:
    """Check the journal's proofs and every snapshot and update that is kept; give a verdict for each committed round.

    Raises:
        ConfigError: `folder` is not a run's.
        JournalError: something is not what was committed; says what.
    """
    if not (folder / "journal.sqlite").is_file():
        raise ConfigError(f"{folder} is not a run folder")
    async with Journal(folder) as journal:
        before: Committed | None = None
        for number, committed in await journal.proved():
            newest = await journal.snapshot(number)
            spooled = await journal.updates(number)
            if spooled and before:
                found = recompute(before, spooled)
                if found != committed:
                    raise JournalError(f"round {number}: its updates give {found[:12]}, {committed[:12]} was committed")
            yield Verdict(number, committed, len(spooled.updates) if spooled and before else 0)
            before = newest


def recompute(before: Committed, spooled: Spooled) -> str:
    """Give the hash of the model that a round's kept updates lead to from the model before it."""
    opening = spooled.opening
    chosen = algorithm(opening.algorithm, opening.plan)
    spec = ModelSpec.of(wire(chosen, before, opening.averaged))
    gate = Gate(opening.run, spec, max_examples=opening.weight_cap, asks=chosen.asks)
    sums = Adding(chosen, gate, opening, before)
    for kept, message in spooled.updates:
        refusal = sums.add(decode(message, ToHub, max_tensors=len(spec.tensors)))
        if isinstance(refusal, Refusal):
            raise JournalError(
                f"round {opening.round}: the kept update of {kept.edge} could not count: {refusal.reason}"
            )
    model, _ = sums.next_model(before)
    return sha256(model)
