"""Federations with one safeguard taken out, to see that the simulation notices: a safeguard nobody misses is none."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from edge.agent import Patience
from hub.connections.roster import Roster
from hub.coordinator import Coordinator
from hub.rules.admission import Code, Gate
from hub.rules.rounds import Round
from tests.simulation.world import Report, simulate


@dataclass(frozen=True)
class Mutant:
    """One safeguard taken out.

    Args:
        name: of the safeguard.
        without: takes it out.
        broken: verbs of the disk that do nothing, which is as if nobody had called them.
    """

    name: str
    without: Callable[[], AbstractContextManager[object]]
    broken: frozenset[str] = frozenset()


@contextmanager
def _gate_without(*codes: Code) -> Iterator[None]:
    standing = Gate.standing

    def lenient(self: Gate, update: Any, **what: Any) -> Any:
        verdict = standing(self, update, **what)
        return None if verdict is not None and verdict.code in codes else verdict

    with patch.object(Gate, "standing", lenient):
        yield


@contextmanager
def _no_content_check() -> Iterator[None]:
    contents = Gate.contents

    def lenient(self: Gate, heard: Any, **what: Any) -> Any:
        what["fits"] = lambda *_: True
        return contents(self, heard, **what)

    with patch.object(Gate, "contents", lenient):
        yield


def _no_quorum() -> AbstractContextManager[object]:
    return patch.object(Round, "has_quorum", property(lambda self: bool(self.answered)))


def _no_last_words() -> AbstractContextManager[object]:
    return patch.object(Roster, "impress", Roster.say)


def _no_taking_back() -> AbstractContextManager[object]:
    return patch.object(Coordinator, "_take_back", lambda self, round: None)


def _no_cap() -> AbstractContextManager[object]:
    def delay(self: Patience, attempt: int, dice: Any) -> float:
        return dice.uniform(0.0, self.base * 2.0 ** min(attempt - 1, 30))

    return patch.object(Patience, "delay", delay)


MUTANTS = (
    Mutant("duplicate check", lambda: _gate_without(Code.DUPLICATE)),
    Mutant("stale check", lambda: _gate_without(Code.STALE)),
    Mutant("late check", lambda: _gate_without(Code.LATE)),
    Mutant("foreign and stale check", lambda: _gate_without(Code.FOREIGN, Code.STALE)),
    Mutant("cohort check", lambda: _gate_without(Code.UNASKED)),
    Mutant("examples check", lambda: _gate_without(Code.BAD_EXAMPLES)),
    Mutant("magnitude check", _no_content_check),
    Mutant("quorum", _no_quorum),
    Mutant("receipts again", _no_last_words),
    Mutant("receipts taken back", _no_taking_back),
    Mutant("back-off cap", _no_cap),
    Mutant("sync of snapshots", nullcontext, frozenset({"sync .writing"})),
    Mutant("sync of the spool", nullcontext, frozenset({"sync .spool"})),
    Mutant("sync of folders", nullcontext, frozenset({"sync_folder"})),
)


def hunt(mutant: Mutant, *, seeds: int = 200) -> Report | None:
    """Live through seeds without the safeguard until a promise is broken."""
    with mutant.without():
        for seed in range(seeds):
            report = simulate(seed, broken=mutant.broken)
            if report.violation:
                return report
    return None
