"""Everything hub and edge can say to each other: one frozen type for each message, one union for each direction."""

from enum import StrEnum
from typing import Annotated, Literal

import msgspec

from shared.tensors import TensorSpec

PROTOCOL_VERSIONS: tuple[int, ...] = (1,)
"""The versions of `docs/protocol.md` that this release speaks, newest first."""

EdgeId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
"""Who an edge is: up to 64 letters, digits, dots, dashes and underscores, so that it is safe in any log or page."""

Hash = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
"""SHA-256 of a model, in hexadecimal (`shared.tensors.sha256`)."""

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Name = Annotated[str, msgspec.Meta(max_length=256)]
"""What an edge may name freely; a refusal quotes it, so it has to be short."""

Metrics = Annotated[dict[Name, float], msgspec.Meta(max_length=32)]
"""Named measurements; at most 32."""


class Role(StrEnum):
    """What a connection is there for."""

    TRAINER = "trainer"
    EVALUATOR = "evaluator"
    """Holds a test set of its own and only answers Evaluate."""
    WATCHER = "watcher"
    """Trains nothing; is told every fact."""
    VIEWER = "viewer"
    """Trains nothing; is shown the board, and may give orders if its key is the operator's."""


class Farewell(StrEnum):
    """Why a side says goodbye. Only `RESTARTING` and `LEAVING` mean that the edge may come back."""

    DONE = "done"
    RESTARTING = "restarting"
    LEAVING = "leaving"
    REPLACED = "replaced"
    REFUSED = "refused"
    PROTOCOL_VERSION = "protocol-version"


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag=str.lower):
    """What every message has: a `type`, the class's name in lower case. Unknown fields are ignored."""


# --- what an edge says ---------------------------------------------------------------------------


class Hello(Message, frozen=True, kw_only=True):
    """The first message of an edge; nothing large may be sent before the hub's Welcome."""

    versions: Annotated[tuple[int, ...], msgspec.Meta(min_length=1, max_length=16)]
    edge: EdgeId
    role: Role
    agent: Annotated[str, msgspec.Meta(pattern=r"^[ -~]{0,64}\Z")] = ""
    """Software and version, for the log; plain printable ASCII."""
    kind: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{0,16}\Z")] = ""
    """What sort of device this is, in a word: `laptop`, `phone`."""
    key: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """What stands behind the `#` of the hub's address, if anything does."""


class Ready(Message, frozen=True, kw_only=True):
    """The edge has built its model and found its data, and can be asked from now on."""

    examples: Count
    data_bytes: Count
    """Size of the edge's own data in bytes: what would have to be shipped without federation."""
    model: Hash | None = None
    """The model this edge still holds from before a reconnect, if any: it need not be sent again."""


class Update(Message, frozen=True, kw_only=True):
    """The answer to Train; the tensors follow (differences or gradients, in the order of the spec)."""

    run: Name
    round: int
    attempt: int
    model: Hash
    """The model that training began with."""
    spec: Name
    """Digest of the spec that the tensors follow."""
    examples: int | float
    """How many examples the edge trained on: this update's weight. (Judged by admission, so any number is read.)"""
    metrics: Metrics
    """At least `loss`, the mean training loss."""
    seconds: float
    """How long training took."""


class Evaluation(Message, frozen=True, kw_only=True):
    """The answer to Evaluate."""

    run: Name
    round: int
    model: Hash
    examples: int | float
    metrics: Metrics


# --- what a viewer says --------------------------------------------------------------------------

Action = Literal["pause", "resume", "next", "deadline", "drop", "stop"]
"""What an operator may have a running hub do: begin no further round, go on, close the open round with what is in,
change the deadline, send an edge away, stop."""


class Order(Message, frozen=True, kw_only=True):
    """Have the hub do something; only with the operator's key."""

    action: Action
    edge: Name = ""
    """Whom to drop."""
    seconds: float = 0.0
    """The new deadline."""


class Look(Message, frozen=True, kw_only=True):
    """Ask for a round that is over, to see it as it was."""

    round: int


class Fetch(Message, frozen=True, kw_only=True):
    """Ask for the newest model, as a safetensors file."""


# --- what the hub says ---------------------------------------------------------------------------


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How an edge shall train: the local part of the run's algorithm, and its settings."""

    local: Name
    """What an edge computes: `sgd` takes local steps and sends how far the weights moved; `gradient` takes none and
    sends the mean gradient over all its examples; others are named after their algorithm (`edge/local`)."""
    epochs: int
    """E of McMahan et al. 2017: passes over the edge's data."""
    batch: int
    """B: examples in a step; 0 means all of them."""
    lr: float
    """Learning rate of the local steps."""
    seed: int
    holdout: float
    """Share of its examples that an edge never trains on and uses to answer Evaluate."""
    settings: Annotated[dict[Name, bool | int | float | str], msgspec.Meta(max_length=32)] = {}
    """Settings of `local`, such as mu of FedProx."""


class Welcome(Message, frozen=True, kw_only=True):
    """The hub takes the edge in: which run this is and what its model consists of."""

    version: int
    run: str
    algorithm: str
    spec: tuple[TensorSpec, ...]
    """What crosses the wire with a Train or an Evaluate, and comes back with an Update."""
    options: dict[str, str]
    """The app's text options, as the operator set them (`--set net=cnn`)."""
    plan: Plan
    round: int
    """Rounds committed so far."""
    rounds: int
    """Rounds planned."""
    model: Hash
    carried: Count = 0
    """How many of the last tensors in `spec` are no part of the model but the algorithm's, such as SCAFFOLD's c."""
    averaged: tuple[Count, ...] = ()
    """Places in `spec` of the tensors that are averaged and not learnt, such as running statistics."""
    own: tuple[Name, ...] = ()
    """Tensors of the model that each edge trains and keeps to itself."""
    frozen: Hash | None = None
    """Of all other tensors, which never change: an edge has them from its app, and they must be the same."""


class Train(Message, frozen=True, kw_only=True):
    """Train for this round. The model's tensors follow, or nothing if the edge already holds `model`."""

    run: str
    round: int
    attempt: int
    model: Hash
    seconds: float
    """Time left until the round's deadline, in seconds, when the message was made."""
    plan: Plan


class Evaluate(Message, frozen=True, kw_only=True):
    """Measure the model on the data kept for that. The tensors follow, or nothing if the edge already holds `model`."""

    run: str
    round: int
    model: Hash
    seconds: float
    plan: Plan


ABANDONED = "abandoned"
"""The code of a receipt that takes one back: too few others answered, and the round is asked again."""


class Receipt(Message, frozen=True, kw_only=True):
    """What became of an update."""

    run: str
    round: int
    attempt: int
    accepted: bool
    code: str = ""
    """Why it does not count, in a word for programs (`hub.rules.admission.Code`, or `ABANDONED`)."""
    reason: str = ""
    """Why it was refused, in a sentence for people."""


class News(Message, frozen=True, kw_only=True):
    """For watchers: facts, each a line of `events.jsonl`."""

    facts: tuple[str, ...]


class Shown(Message, frozen=True, kw_only=True):
    """For viewers: what to see. One byte string follows: msgpack of what `hub/views/board.py` describes, or a file."""

    what: Literal["board", "changes", "past", "model"]
    """The whole board, what has changed on it, a round that is over, or the newest model."""
    may: Literal["watch", "command"] = "watch"
    """With a board: whether this viewer may give orders."""
    round: int = 0
    """Of a past round or a model."""
    now: float = 0.0
    """With a board or changes: the hub's clock, in seconds since 1970. The newest fact may be older."""


class Reply(Message, frozen=True, kw_only=True):
    """For viewers: what became of an order or a question, in a sentence."""

    done: bool
    reason: str


# --- what either side says -----------------------------------------------------------------------


class Goodbye(Message, frozen=True, kw_only=True):
    """The last message before a close, and why."""

    code: Farewell
    reason: Annotated[str, msgspec.Meta(max_length=1024)] = ""


ToHub = Hello | Ready | Update | Evaluation | Order | Look | Fetch | Goodbye
ToViewer = Shown | Reply | Goodbye
ToEdge = Welcome | Train | Evaluate | Receipt | News | Goodbye
Task = Train | Evaluate
"""What carries a model to an edge."""
