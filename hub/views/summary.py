"""Adds a run up: what came of it, what it cost, and how that compares with shipping the data."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hub.events import EdgeJoined, Fact, RoundAbandoned, RoundClosed, RunEnded, RunStarted, UpdateRefused
from hub.feed import Follower
from hub.rules.admission import Code
from hub.views.words import number, own_models
from shared.console import size
from shared.messages import Role


@dataclass
class Summary:
    """The totals of a run; fold facts in with `take`."""

    metric: str = "accuracy"
    rounds: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    by_edges: bool = False
    """Whether edges measured, on what they hold out, and no evaluator."""
    training_loss: float | None = None
    bytes_down: int = 0
    bytes_up: int = 0
    late: int = 0
    """How often an edge missed a deadline."""
    refused: int = 0
    """Updates refused for another reason than lateness."""
    seconds: float = 0.0
    model: str = ""
    data_bytes: dict[str, int] = field(default_factory=dict)
    """Size of each trainer's data."""

    def take(self, fact: Fact) -> None:
        """Fold one fact in; most do not matter here."""
        match fact:
            case RunStarted():
                self.metric, self.rounds, self.model = fact.metric, fact.round, fact.model
            case EdgeJoined() if fact.role == Role.TRAINER:
                self.data_bytes[fact.edge] = fact.data_bytes
            case UpdateRefused() if fact.code != Code.LATE:
                self.refused += 1
            case RoundAbandoned():
                self.late += len(fact.late)
                self.bytes_down += fact.bytes_down
                self.bytes_up += fact.bytes_up
            case RoundClosed():
                self.rounds, self.model = fact.round, fact.model
                if fact.metrics:
                    self.metrics, self.by_edges = fact.metrics, fact.evaluated == "federated"
                self.training_loss = fact.loss
                self.bytes_down += fact.bytes_down
                self.bytes_up += fact.bytes_up
                self.late += len(fact.late)
            case RunEnded():
                self.rounds, self.model, self.seconds = fact.rounds, fact.model, fact.seconds
            case _:
                pass

    def to_json(self) -> str:
        """Give the totals as one line; the run's metric stands under its own name, null if nobody measured it."""
        totals: dict[str, Any] = {
            "rounds": self.rounds,
            self.metric: self.metrics.get(self.metric),
            "loss": self.metrics.get("loss", self.training_loss),
            "bytes_down": self.bytes_down,
            "bytes_up": self.bytes_up,
            "late": self.late,
            "refused": self.refused,
            "seconds": round(self.seconds, 3),
            "model_sha256": self.model,
        }
        return json.dumps(totals)


async def sum_up(follower: Follower, summary: Summary) -> None:
    """Fold facts into `summary` until the feed ends."""
    async for stamped in follower:
        summary.take(stamped.fact)


def closing_words(summary: Summary, folder: Path, *, compared: Mapping[str, Any], finished: bool) -> list[str]:
    """Say at the end of a run what federating was worth, what it cost, and where the model is.

    Args:
        summary: of the run.
        folder: where the run is kept.
        compared: the metric of one edge `alone` and of `centralised` training, if they were measured.
        finished: whether the run got to its end.
    """
    value = summary.metrics.get(summary.metric)
    parts = [] if value is None else [f"federated {number(summary.metric, value)}"]
    if own := own_models(summary.metrics, summary.metric):
        parts.append(f"edges' {own}")
    if compared:
        parts.append(f"one edge alone {number(summary.metric, compared['alone'])}")
        parts.append(f"centralised {number(summary.metric, compared['centralised'])}")
    data = sum(summary.data_bytes.values())
    crossed = f"{size(summary.bytes_down + summary.bytes_up)} crossed"
    parts.append(f"{crossed}, the data is {size(data)} and never left" if data else crossed)
    lines = [" · ".join(parts), f"saved {folder / 'model.safetensors'} (sha256 {summary.model[:12]})"]
    if compared and summary.by_edges:
        lines.insert(1, "federated is measured on what edges hold out, the other two on the app's test data")
    if not finished:
        lines.append(f"go on with: fedhub serve --resume {folder}")
    return lines
