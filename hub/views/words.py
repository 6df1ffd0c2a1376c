"""How the views write facts, names and numbers, so that the log, the page and the summary say the same."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

from hub.events import (
    DiskTrouble,
    EdgeJoined,
    EdgeLeft,
    EdgesMoved,
    Fact,
    Missed,
    Ordered,
    RoundAbandoned,
    RoundClosed,
    RoundCommitted,
    RoundReopened,
    RoundStarted,
    RunEnded,
    RunStarted,
    StopRequested,
    StrangerRefused,
    UpdateAccepted,
    UpdateRefused,
    WaitingForEdges,
)
from hub.rules.admission import Code
from shared.console import printable, size
from shared.messages import Role


def names(edges: Sequence[str], *, shown: int = 3) -> str:
    """List the first few names, and how many more there are."""
    more = len(edges) - shown
    return ", ".join(edges[:shown]) + (f" +{more}" if more > 0 else "")


def short(metric: str) -> str:
    """Give a metric's name for a narrow column."""
    return {"accuracy": "acc"}.get(metric, metric)


def number(metric: str, value: float) -> str:
    """Write a metric's value: accuracies in per cent, everything else with four digits."""
    return (
        f"{100 * value:.1f}%" if metric.removeprefix("personal_").startswith("acc") else f"{float(f'{value:.4g}'):.12g}"
    )


def percent(share: float) -> str:
    """Write a share in per cent, finer where little of it, or nearly all of it, would be hidden: `4.2%`, `37%`."""
    value = 100 * share
    if 0 < value < 0.05:
        return "<0.1%"
    fine = 0 < value < 10 or 99 < value < 100
    return f"{min(value, 99.9):.1f}%" if fine else f"{value:.0f}%"


def took(seconds: float) -> str:
    """Write a time as people say it: `0.35 s`, `12 s`, `4.5 min`, `2.3 h`."""
    if not math.isfinite(seconds):
        return "?"
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if abs(seconds) >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.2f} s" if abs(seconds) < 1 else f"{seconds:.1f} s" if abs(seconds) < 10 else f"{seconds:.0f} s"


def gaps(count: int) -> str:
    """Say that facts are missing, be it that nobody kept up with them or that they cannot be read."""
    return "1 fact is missing" if count == 1 else f"{count:,} facts are missing"


Level = Literal["info", "good", "warn", "bad"]


@dataclass(frozen=True)
class Said:
    """A fact in words."""

    text: str
    level: Level = "info"


def own_models(metrics: Mapping[str, float], metric: str) -> str:
    """Say what edges' own models have reached, if they have any."""
    value = metrics.get(f"personal_{metric}")
    return "" if value is None else f"own {number(metric, value)}"


def sentence(fact: Fact, metric: str) -> Said | None:
    """Say what happened, on one line and safe to show; None for what is better seen than read.

    Args:
        fact: what happened.
        metric: the measurement that counts in this run.
    """
    said = _said(fact, metric)
    return Said(printable(said.text.replace("\n", " ")), said.level) if said else None


def _said(fact: Fact, metric: str) -> Said | None:
    match fact:
        case RunStarted():
            goes_on = f", going on after round {fact.round}" if fact.round else ""
            return Said(
                f"run {fact.run} · {fact.algorithm} · {fact.parameters:,} parameters ({size(fact.model_bytes)})"
                f" · {fact.rounds} rounds{goes_on}"
            )
        case EdgeJoined(role=Role.TRAINER):
            return Said(f"{fact.edge} joined with {fact.examples:,} examples · {fact.here} here")
        case EdgeJoined():
            return Said(f"{fact.edge} measures ({fact.examples:,} held-out examples)")
        case EdgeLeft():
            return Said(f"{fact.edge} left ({fact.reason}) · {fact.here} here")
        case StrangerRefused():
            return Said(f"turned away {fact.peer}: {fact.reason}", "warn")
        case WaitingForEdges():
            return Said(f"waiting for edges: {fact.here} of {fact.needed} here")
        case RoundStarted():
            again = f", try {fact.attempt}" if fact.attempt > 1 else ""
            return Said(f"round {fact.round}{again}: {len(fact.cohort)} asked, {fact.goal} answers wanted")
        case RoundReopened():
            return Said(f"round {fact.round:>3}  goes on: {len(fact.answered)} of {len(fact.cohort)} are in")
        case UpdateRefused(code=Code.LATE):
            return Said(f"{fact.edge} answered round {fact.round} after its end", "warn")
        case UpdateRefused():
            return Said(f"round {fact.round:>3}  refused {fact.edge} ({fact.code}): {fact.reason}", "bad")
        case DiskTrouble():
            return Said(fact.reason, "bad")
        case RoundClosed():
            value = fact.metrics.get(metric)
            measured = f" · {metric} {number(metric, value)}" if value is not None else ""
            loss = fact.metrics.get("loss", fact.loss)
            notes = missing(fact)
            return Said(
                f"round {fact.round}{measured}{f' · loss {loss:.3g}' if loss is not None else ''}"
                f" · {fact.answered} of {fact.asked} · {fact.seconds:.1f} s{'; ' + notes if notes else ''}",
                "good" if fact.best else "info",
            )
        case RoundAbandoned():
            notes = missing(fact)
            return Said(
                f"round {fact.round:>3}  abandoned: {fact.answered} of {fact.asked} answered, {fact.needed} needed"
                f"{'; ' + notes if notes else ''}{'; asking again' if fact.again else ''}",
                "warn",
            )
        case Ordered():
            return Said(f"the {fact.by} {_ordered(fact)}", "warn")
        case StopRequested():
            doing = f" round {fact.round} ({fact.answered} of {fact.asked} in)" if fact.asked else ""
            return Said(f"closing{doing}, saving ...")
        case RunEnded():
            return Said(f"{fact.reason} · {fact.seconds:.1f} s", "good" if fact.finished else "info")
        case Missed():
            return Said(f"{gaps(fact.count)} here", "warn")
        case EdgesMoved() | UpdateAccepted() | RoundCommitted():
            return None
        case _:
            assert_never(fact)


def _ordered(fact: Ordered) -> str:
    match fact.action:
        case "pause":
            return "pauses the run: no further round begins"
        case "resume":
            return "lets the run go on"
        case "next":
            return f"closes round {fact.round} with what is in"
        case "deadline":
            return f"sets the deadline to {fact.seconds:g} s"
        case "drop":
            return f"sends {fact.edge} away"
        case "stop":
            return "stops the hub"
        case _:
            assert_never(fact.action)


def missing(fact: RoundClosed | RoundAbandoned) -> str:
    """Say who of a round's cohort did not count, and why; empty if everybody did."""
    notes = []
    if fact.late:
        notes.append(f"late: {names(fact.late)}")
    if fact.left:
        notes.append(f"left: {names(fact.left)}")
    if fact.refused:
        notes.append("refused: " + names([f"{edge} ({code})" for edge, code in fact.refused.items()]))
    return "; ".join(notes)
