"""One example of every message, and a model that holds every awkward kind of tensor."""

import ml_dtypes
import numpy as np

from shared.messages import (
    Evaluate,
    Evaluation,
    Farewell,
    Fetch,
    Goodbye,
    Hello,
    Look,
    Message,
    News,
    Order,
    Plan,
    Ready,
    Receipt,
    Reply,
    Role,
    Shown,
    Train,
    Update,
    Welcome,
)
from shared.tensors import Array, ModelSpec, Tensors

DTYPES: tuple[np.dtype[np.generic], ...] = tuple(
    np.dtype(kind)
    for kind in (
        "float16", ml_dtypes.bfloat16, "float32", "float64",
        "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool",
    )
)  # fmt: skip

MODEL: Tensors = {
    "net.weight": np.array([[1.5, -2.0, 0.25], [1e-40, 3.4e38, -0.0]], "<f4"),
    "net.half": np.array([1.0, -65504.0, 6e-8], "<f2"),
    "net.brain": np.array([1.0, -3.0, 0.15625, 3.3895314e38]).astype(ml_dtypes.bfloat16),
    "norm.count": np.array(2**53 + 1, "<i8"),
    "norm.frozen": np.array([True, False, True]),
    "net.unused": np.zeros((0, 4), "<f4"),
}
SPEC = ModelSpec.of(MODEL)
HASH = "0123456789abcdef" * 4
PLAN = Plan(local="sgd", epochs=1, batch=32, lr=0.1, seed=7, holdout=0.0)

HELLO = Hello(versions=(1,), edge="edge-01", role=Role.TRAINER, agent="fedhub 0.1.0")
UPDATE = Update(
    run="5f3a9c01",
    round=3,
    attempt=1,
    model=HASH,
    spec=SPEC.digest,
    examples=600,
    metrics={"loss": 0.25},
    seconds=1.5,
)
TRAIN = Train(run="5f3a9c01", round=3, attempt=1, model=HASH, seconds=60.0, plan=PLAN)
EVALUATE = Evaluate(run="5f3a9c01", round=3, model=HASH, seconds=30.0, plan=PLAN)
WELCOME = Welcome(
    version=1,
    run="5f3a9c01",
    algorithm="fedavg",
    spec=SPEC.tensors,
    options={"net": "cnn"},
    plan=PLAN,
    round=2,
    rounds=20,
    model=HASH,
)

SAID_BY_EDGES: dict[str, Message] = {
    "hello": HELLO,
    "hello-watcher": Hello(versions=(1,), edge="watcher-1", role=Role.WATCHER),
    "hello-viewer": Hello(versions=(1,), edge="viewer-1", role=Role.VIEWER, kind="browser", key="Zm9vYmFyYmF6"),
    "order": Order(action="drop", edge="edge-01"),
    "look": Look(round=3),
    "fetch": Fetch(),
    "ready": Ready(examples=600, data_bytes=153_600),
    "ready-again": Ready(examples=600, data_bytes=153_600, model=HASH),
    "update": UPDATE,
    "evaluation": Evaluation(
        run="5f3a9c01", round=3, model=HASH, examples=100, metrics={"accuracy": 0.875, "loss": 0.5}
    ),
    "goodbye-leaving": Goodbye(code=Farewell.LEAVING, reason="the app failed"),
}
SAID_BY_THE_HUB: dict[str, Message] = {
    "welcome": WELCOME,
    "train": TRAIN,
    "train-light": TRAIN,
    "evaluate": EVALUATE,
    "evaluate-light": EVALUATE,
    "receipt-accepted": Receipt(run="5f3a9c01", round=3, attempt=1, accepted=True),
    "receipt-refused": Receipt(
        run="5f3a9c01", round=3, attempt=1, accepted=False, code="late", reason="round 3 was over"
    ),
    "news": News(facts=('{"seq":1,"time":0.0,"fact":{"event":"Missed","count":2}}',)),
    "goodbye-done": Goodbye(code=Farewell.DONE, reason="the run is over"),
}
SAID_TO_VIEWERS: dict[str, Message] = {
    "shown": Shown(what="board", may="command", now=1767225600.25),
    "reply": Reply(done=False, reason="no round is open"),
}
WITH_TENSORS = ("update", "train", "evaluate")


def same(one: Array, other: Array) -> bool:
    """Tell whether two arrays have the same dtype, shape and bits (NaN and minus zero included)."""
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def same_tensors(one: Tensors, other: Tensors) -> bool:
    """Tell whether two models are the same to the last bit, names and their order included."""
    return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
