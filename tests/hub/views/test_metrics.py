"""Prometheus reads the same numbers as the board, whatever edges and operators call themselves and their things."""

import asyncio
from collections.abc import Callable, Iterable

from prometheus_client.parser import text_string_to_metric_families

from hub.events import (
    EdgeJoined,
    EdgeLeft,
    EdgesMoved,
    Fact,
    Missed,
    Move,
    Ordered,
    RoundAbandoned,
    RoundClosed,
    RoundCommitted,
    RoundStarted,
    RunStarted,
    Stage,
    Stamped,
    StrangerRefused,
    UpdateAccepted,
    UpdateRefused,
)
from hub.views.board import Board
from hub.views.metrics import Metrics
from shared.messages import Role

Read = dict[str, float]
"""Numbers by name and label, as in `edges{trainer}`."""


def started(*, run: str = "5f3a", metric: str = "accuracy", algorithm: str = "fedavg", round: int = 0) -> RunStarted:
    return RunStarted(
        run=run, name="1120-demo", algorithm=algorithm, parameters=2410, model_bytes=9640, model="", round=round,
        rounds=20, metric=metric, deadline=60.0,
    )  # fmt: skip


def joined(edge: str, *, here: int, role: str = Role.TRAINER, kind: str = "phone") -> EdgeJoined:
    return EdgeJoined(edge=edge, role=role, agent="", examples=100, data_bytes=1, here=here, kind=kind)


def asked(*edges: str, round: int = 1, attempt: int = 1) -> RoundStarted:
    return RoundStarted(round=round, attempt=attempt, cohort=edges, goal=len(edges), quorum=1, seconds=60.0)


def closed(
    *, round: int = 1, metrics: dict[str, float], loss: float | None = 0.5, late: tuple[str, ...]
) -> RoundClosed:
    return RoundClosed(
        round=round, attempt=1, outcome="deadline-passed", asked=4, answered=1, late=late, left=(), refused={},
        loss=loss, metrics=metrics, evaluated="central", best=True, seconds=12.0, bytes_down=4000, bytes_up=2500,
        model="",
    )  # fmt: skip


def abandoned() -> RoundAbandoned:
    return RoundAbandoned(
        round=2, attempt=1, asked=1, answered=0, needed=1, again=True, seconds=7.0, bytes_down=100, bytes_up=0,
        late=("b",), left=(), refused={},
    )  # fmt: skip


A_ROUND: tuple[Fact, ...] = (
    started(),
    *(joined(edge, here=here) for here, edge in enumerate("abcd", 1)),
    joined("measurer", here=4, role=Role.EVALUATOR),
    asked("a", "b", "c", "d"),
    EdgesMoved(
        round=1,
        attempt=1,
        moves=(
            *(Move(edge, Stage.DOWNLOADING, 0.5) for edge in "abc"),
            *(Move(edge, Stage.TRAINING, 1.0, nbytes=1000) for edge in "abc"),
        ),
    ),
    UpdateAccepted(round=1, edge="a", examples=100, weight=100, loss=0.5, seconds=3.0, nbytes=1200),
    UpdateRefused(round=1, edge="b", code="not-finite", reason="NaN", attempt=1, final=True, seconds=4.0, nbytes=1100),
    RoundCommitted(round=1, model="", listened=10.0, averaged=0.25, saved=0.75),
    closed(metrics={"accuracy": 0.75, "loss": 0.6, "of-an-edges-own": 1.0}, late=("c", "d")),
)


def metrics_of(facts: Iterable[Fact]) -> tuple[Metrics, Callable[[Fact], None]]:
    """Make metrics that were told `facts`, and a way to tell more."""
    board = Board()
    metrics, seq = Metrics(board), 0

    def tell(fact: Fact) -> None:
        nonlocal seq
        seq += 1
        stamped = Stamped(seq, 1000.0 + seq, fact)
        board.take(stamped)
        metrics.take(stamped)

    for fact in facts:
        tell(fact)
    return metrics, tell


def read(metrics: Metrics) -> Read:
    """Read the page as Prometheus does; every family must have a type and a help text, and be there once."""
    body, content_type = metrics.page()
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    values: Read = {}
    for family in text_string_to_metric_families(body.decode()):
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram")
        for sample in family.samples:
            key = sample.name.removeprefix("fedhub_") + (
                "{" + ",".join(sample.labels.values()) + "}" if sample.labels else ""
            )
            assert key not in values
            values[key] = sample.value
    return values


def test_every_promised_number_is_there_and_right() -> None:
    metrics, _ = metrics_of([*A_ROUND, StrangerRefused(peer="1.2.3.4", reason="no key"), Missed(count=3)])
    values = read(metrics)
    expected = {
        "run_info{fedavg,accuracy,1120-demo,5f3a}": 1,
        "run_start_timestamp_seconds": 1001,
        "run_paused": 0,
        "run_phase{training}": 0,
        "model_parameters": 2410,
        "model_bytes": 9640,
        "model_metric{accuracy}": 0.75,
        "model_metric{loss}": 0.6,
        "training_loss": 0.5,
        "round": 1,
        "round_committed": 1,
        "round_best": 1,
        "rounds_planned": 20,
        "round_deadline_seconds": 60,
        "rounds_total{deadline-passed}": 1,
        "rounds_total{goal-reached}": 0,
        "rounds_total{too-few-answered}": 0,
        "edges{trainer}": 4,
        "edges{evaluator}": 1,
        "edges_needed": 0,
        "round_edges{training}": 0,
        "updates_total{accepted}": 1,
        "updates_total{refused}": 1,
        "updates_total{late}": 2,
        "updates_total{left}": 0,
        "updates_total{spared}": 0,
        "updates_total{void}": 0,
        "refusals_total{not-finite}": 1,
        "refusals_total{late}": 0,
        "phase_seconds_total{listening}": 10,
        "phase_seconds_total{averaging}": 0.25,
        "phase_seconds_total{saving}": 0.75,
        "phase_seconds_total{measuring}": 1,
        "edge_seconds_total{waiting}": 3 * 0.5 + 10,
        "edge_seconds_total{downloading}": 3 * 0.5,
        "edge_seconds_total{training}": 2 + 3 + 9,
        "edge_seconds_total{uploading}": 0,
        "edge_seconds_total{done}": 7,
        "edge_seconds_total{refused}": 6,
        "edge_seconds_total{away}": 0,
        "wasted_edge_seconds_total": (0.5 + 3) + (0.5 + 9),
        "wasted_bytes_total": (1000 + 1100) + 1000,
        "network_bytes_total{down}": 4000,
        "network_bytes_total{up}": 2500,
        "strangers_total": 1,
        "missed_facts_total": 3,
        "round_seconds_count": 1,
        "round_seconds_sum": 12,
        "round_seconds_bucket{10.0}": 0,
        "round_seconds_bucket{30.0}": 1,
        "answer_seconds_count": 1,
        "answer_seconds_sum": 3,
        "event_loop_lag_seconds_count": 0,
    }
    assert {key: values.get(key) for key in expected} == expected
    assert sum(values[f"edge_seconds_total{{{stage}}}"] for stage in Stage) == 4 * 10


def test_a_run_begins_with_zeros() -> None:
    metrics, _ = metrics_of([started()])
    values = read(metrics)
    assert values["updates_total{accepted}"] == values["rounds_total{goal-reached}"] == values["round"] == 0
    assert "training_loss" not in values
    assert "model_metric{accuracy}" not in values


def test_a_hub_without_a_run_has_no_totals_yet() -> None:
    values = read(Metrics(Board()))
    assert values["run_phase{opening}"] == 1
    assert not [key for key in values if "_total" in key and not key.startswith("process_")]


def test_where_the_edges_of_the_open_round_are_is_told_live() -> None:
    metrics, tell = metrics_of(A_ROUND[:8])
    values = read(metrics)
    assert [values[f"round_edges{{{stage}}}"] for stage in ("waiting", "training", "done")] == [1, 3, 0]
    assert values["run_phase{training}"] == 1
    tell(EdgeLeft(edge="c", role="trainer", reason="", here=3))
    values = read(metrics)
    assert [values[f"round_edges{{{stage}}}"] for stage in ("training", "away")] == [2, 1]
    assert values["edges{trainer}"] == 3


def test_an_abandoned_round_counts_as_one() -> None:
    metrics, _ = metrics_of([*A_ROUND, asked("b", round=2), abandoned()])
    values = read(metrics)
    assert values["rounds_total{too-few-answered}"] == 1
    assert values["rounds_total{deadline-passed}"] == 1
    assert values["round_seconds_sum"] == 12 + 7
    assert values["round"] == 2
    assert values["round_committed"] == 1
    assert values["network_bytes_total{down}"] == 4100


def test_reading_twice_gives_the_same() -> None:
    metrics, _ = metrics_of(A_ROUND)
    first, second = read(metrics), read(metrics)
    ours = [key for key in first if not key.startswith(("process_", "python_"))]
    assert {key: first[key] for key in ours} == {key: second[key] for key in ours}


def test_no_counter_ever_goes_back_not_even_when_the_run_is_resumed() -> None:
    metrics, tell = metrics_of(A_ROUND)
    before = read(metrics)
    tell(started(round=0))
    after = read(metrics)
    counters = [key for key in before if "_total" in key or "_count" in key or "_sum" in key or "_bucket" in key]
    assert len(counters) > 50
    assert {key: after[key] for key in counters if not key.startswith("process")} == {
        key: before[key] for key in counters if not key.startswith("process")
    }
    assert after["round_committed"] == 0
    assert after["edges{trainer}"] == 0


def test_what_the_operator_orders_is_told() -> None:
    metrics, _ = metrics_of(
        [started(), Ordered(action="deadline", round=1, seconds=5.0), Ordered(action="pause", round=1)]
    )
    values = read(metrics)
    assert values["round_deadline_seconds"] == 5
    assert values["run_paused"] == 1


HOSTILE = (
    'a"b',
    "back\\slash",
    "new\nline",
    "<script>alert(1)</script>",
    'x"} 1\nfedhub_round 99',
    "ümläut ✓ \u202e",
    "\r\x00",
)


def test_hostile_names_stay_names() -> None:
    for name in HOSTILE:
        metrics, _ = metrics_of(
            [
                started(run=name, metric=name, algorithm=name),
                joined(name, here=1, kind=name),
                asked(name),
                UpdateRefused(round=1, edge=name, code=name, reason=name),
                closed(metrics={name: 0.5, "loss": 1.0, name + "2": 7.0}, late=(name,)),
            ]
        )
        values = read(metrics)
        assert values[f"run_info{{{name},{name},1120-demo,{name}}}"] == 1
        assert values[f"model_metric{{{name}}}"] == 0.5
        assert values["round"] == 1
        assert sum(name in key for key in values) == 2


def test_edges_add_no_lines() -> None:
    crowd = [f"edge-{number}" for number in range(50)]
    few, _ = metrics_of([started(), joined("a", here=1), asked("a")])
    many, _ = metrics_of([started(), *(joined(edge, here=1, kind=edge, role=edge) for edge in crowd), asked(*crowd)])
    assert read(few).keys() == read(many).keys()


async def test_the_lag_of_the_loop_is_measured_until_nobody_wants_to_know() -> None:
    metrics = Metrics(Board())
    watching = asyncio.create_task(metrics.watch_loop())
    async with asyncio.timeout(10):
        while not (values := read(metrics))["event_loop_lag_seconds_count"]:
            await asyncio.wait([watching], timeout=0.05)
    assert 0 <= values["event_loop_lag_seconds_sum"] < 10
    watching.cancel()
    await asyncio.wait([watching])
    assert watching.cancelled()
