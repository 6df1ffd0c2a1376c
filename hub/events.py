"""What can happen in a federation, as frozen facts: the one vocabulary of the log, the files and every view."""

import json
import re
from enum import StrEnum
from typing import Literal

import msgspec

from shared.messages import Action

SCHEMA = 1
"""Version of the facts as `docs/events.md` describes them. It grows when a reader of the old ones would misread."""


class Stage(StrEnum):
    """Where an edge of the cohort is in the round. At each moment it is in exactly one of these."""

    WAITING = "waiting"
    """Asked; the task has not begun to go out to it, or it is back and has not been asked again."""
    DOWNLOADING = "downloading"
    TRAINING = "training"
    """The network has taken the task, and no byte of an answer has come."""
    UPLOADING = "uploading"
    DONE = "done"
    """Its update counts: what is left of the round it has nothing to do."""
    REFUSED = "refused"
    """Its answer cannot be mended in this round."""
    AWAY = "away"


class Move(msgspec.Struct, frozen=True, array_like=True):
    """An edge went on to another stage."""

    edge: str
    to: Stage
    at: float
    """Seconds since the round's start."""
    nbytes: int = 0
    """Of the stage that ended: how many bytes went down."""


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag=True, omit_defaults=False):
    """What every fact has: an `event`, the class's name."""


class RunStarted(Event, frozen=True, kw_only=True):
    """The hub has a model and begins, or goes on with, a run."""

    run: str
    name: str
    algorithm: str
    parameters: int
    model_bytes: int
    model: str
    """SHA-256 of the model the run begins with."""
    round: int
    """Rounds committed already: 0 unless the run is resumed."""
    rounds: int
    metric: str
    deadline: float = 0.0
    """Seconds an edge has to answer in a round."""
    schema: int = SCHEMA


class EdgeJoined(Event, frozen=True, kw_only=True):
    """An edge is ready to be asked."""

    edge: str
    role: str
    agent: str
    examples: int
    data_bytes: int
    here: int
    """How many trainers are here now."""
    kind: str = ""
    """What sort of device it says it is, in a word."""


class EdgeLeft(Event, frozen=True, kw_only=True):
    """An edge's connection ended."""

    edge: str
    role: str
    reason: str
    here: int


class StrangerRefused(Event, frozen=True, kw_only=True):
    """A connection was turned away before it became an edge."""

    peer: str
    reason: str


class WaitingForEdges(Event, frozen=True, kw_only=True):
    """Too few trainers are here to begin a round; said once, EdgeJoined says how it goes on."""

    here: int
    needed: int


class RoundStarted(Event, frozen=True, kw_only=True):
    """A cohort was asked to train."""

    round: int
    attempt: int
    cohort: tuple[str, ...]
    goal: int
    quorum: int
    seconds: float
    """Time until the deadline."""


class RoundReopened(Event, frozen=True, kw_only=True):
    """The round that was open when the hub stopped goes on, with the answers it had."""

    round: int
    attempt: int
    cohort: tuple[str, ...]
    answered: tuple[str, ...]
    goal: int
    quorum: int
    seconds: float
    """Time left until the deadline: while the hub was down, none passed."""
    elapsed: float = 0.0
    """Time of the round that had passed before."""


class EdgesMoved(Event, frozen=True, kw_only=True):
    """Edges of the cohort went on to other stages; said at most every 50 ms, and before what comes of it is said."""

    round: int
    attempt: int
    moves: tuple[Move, ...]


class DiskTrouble(Event, frozen=True, kw_only=True):
    """The disk is full or damaged, in words; the hub waits, or goes on with what it has."""

    reason: str


class UpdateAccepted(Event, frozen=True, kw_only=True):
    """An update counts."""

    round: int
    edge: str
    examples: int
    """As the edge said."""
    weight: int
    """As it counts: an edge cannot weigh more than ten times the median of its cohort."""
    loss: float | None
    seconds: float
    """From the round's start to the arrival of the update."""
    nbytes: int


class UpdateRefused(Event, frozen=True, kw_only=True):
    """An update does not count, and why."""

    round: int
    edge: str
    code: str
    reason: str
    attempt: int = 0
    """The try at the round that it answers."""
    final: bool = False
    """Whether the edge is out of the open round with that."""
    seconds: float | None = None
    """From the start of the open round, if there is one, to the arrival of the update."""
    nbytes: int = 0


class RoundCommitted(Event, frozen=True, kw_only=True):
    """The round's model is safe on disk."""

    round: int
    model: str
    listened: float = 0.0
    """Seconds from the round's start until nobody was listened to any more."""
    averaged: float = 0.0
    """Seconds that the server step took after that."""
    saved: float = 0.0
    """Seconds until the model was safe after that."""


class RoundClosed(Event, frozen=True, kw_only=True):
    """All there is to say about a round that counts, its evaluation included."""

    round: int
    attempt: int
    outcome: str
    asked: int
    answered: int
    late: tuple[str, ...]
    """Asked and here, but not answered by the deadline."""
    left: tuple[str, ...]
    """Asked, and gone before answering."""
    refused: dict[str, str]
    """Edges whose update was refused in this round, with the code."""
    loss: float | None
    """Mean training loss, weighted by examples."""
    metrics: dict[str, float]
    """Of the new model on held-out data; empty if nobody evaluated."""
    evaluated: Literal["", "central", "federated"]
    best: bool
    """Whether the metric is the best so far."""
    seconds: float
    """From asking to the end of the evaluation."""
    bytes_down: int
    bytes_up: int
    model: str


class RoundAbandoned(Event, frozen=True, kw_only=True):
    """Too few answered; the answers are thrown away."""

    round: int
    attempt: int
    asked: int
    answered: int
    needed: int
    again: bool
    """Whether the round is asked again."""
    seconds: float = 0.0
    """From asking to giving up."""
    bytes_down: int
    bytes_up: int
    late: tuple[str, ...]
    left: tuple[str, ...]
    refused: dict[str, str]


class Ordered(Event, frozen=True, kw_only=True):
    """The operator had the hub do something, from a page or a terminal; or the hub took back such a deadline."""

    action: Action
    round: int
    """The round that is open, or was committed last."""
    edge: str = ""
    """Whom to drop."""
    seconds: float = 0.0
    """The new deadline."""
    by: Literal["operator", "hub"] = "operator"


class StopRequested(Event, frozen=True, kw_only=True):
    """The operator asked the hub to stop."""

    round: int
    answered: int
    asked: int


class RunEnded(Event, frozen=True, kw_only=True):
    """The run is over, for now or for good."""

    reason: str
    finished: bool
    """False if the run can be resumed."""
    rounds: int
    """Rounds committed."""
    model: str
    seconds: float


class Missed(Event, frozen=True, kw_only=True):
    """A follower was too slow and lost this many facts; its view may be incomplete."""

    count: int


Fact = (
    RunStarted | EdgeJoined | EdgeLeft | StrangerRefused | WaitingForEdges | RoundStarted | RoundReopened
    | EdgesMoved | UpdateAccepted | UpdateRefused | DiskTrouble | RoundCommitted | RoundClosed | RoundAbandoned
    | Ordered | StopRequested | RunEnded | Missed
)  # fmt: skip


class Stamped(msgspec.Struct, frozen=True, omit_defaults=True):
    """A fact with its place in the run: one line of `events.jsonl`."""

    seq: int
    time: float
    """Seconds since 1970, by the hub's clock."""
    fact: Fact
    run: str = ""
    """The run's id; empty before there is one."""


def to_line(stamped: Stamped) -> str:
    """Write a fact as one line of JSON, without the line's end, and without a character that a terminal would obey."""
    line = msgspec.json.encode(stamped).decode()
    if line.isascii() and "\x7f" not in line:  # asked first: it is free, and nearly always so
        return line
    return re.sub("[^ -~]", lambda odd: odd[0] if odd[0].isprintable() else json.dumps(odd[0])[1:-1], line)


def from_line(line: str | bytes) -> Stamped:
    """Read a line of `events.jsonl`.

    Raises:
        msgspec.ValidationError, msgspec.DecodeError: it is not one.
    """
    return msgspec.json.decode(line, type=Stamped)
