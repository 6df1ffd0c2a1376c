"""Gives Prometheus the numbers of a run: what the board has added up, and a few that nobody else needs."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import get_args

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from hub.events import RoundAbandoned, RoundClosed, Stage, Stamped, UpdateAccepted, UpdateRefused
from hub.rules.admission import Code
from hub.rules.rounds import Outcome
from hub.views.board import Board, Fate, Phase
from shared.messages import Role

_NAP = 0.25  # seconds from one look at the event loop's lag to the next
_HUBS_WORK = ("listening", "averaging", "saving", "measuring")
_LONG = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics:
    """The numbers of a run. Labels come from short lists of ours, or name the run; an edge's name never is one."""

    def __init__(self, board: Board) -> None:
        """Tell of `board`, which somebody else keeps up to date."""
        self._board = board
        self._rounds = Counter[str]()
        self._refusals = Counter[str]()
        self._seconds = dict.fromkeys(_HUBS_WORK, 0.0)
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        self._round_seconds = Histogram(
            "fedhub_round_seconds",
            "From asking a cohort to the end of its round, evaluation included.",
            buckets=_LONG,
            registry=self._registry,
        )
        self._answer_seconds = Histogram(
            "fedhub_answer_seconds",
            "From a round's start to the arrival of an update that counts.",
            buckets=_LONG,
            registry=self._registry,
        )
        self._lag = Histogram(
            "fedhub_event_loop_lag_seconds",
            f"How late the hub's event loop wakes from a nap of {_NAP} s: for so long nobody is heard.",
            buckets=_SHORT,
            registry=self._registry,
        )

    def take(self, stamped: Stamped) -> None:
        """Count what the board does not add up; it must have taken `stamped` before."""
        match stamped.fact:
            case UpdateAccepted() as fact:
                self._answer_seconds.observe(fact.seconds)
            case UpdateRefused() as fact:
                self._refusals[fact.code] += 1
            case RoundClosed() as fact:
                self._rounds[fact.outcome] += 1
                self._round_seconds.observe(fact.seconds)
                for phase, seconds in self._board.state.rows[-1].phases.items():
                    self._seconds[phase] += seconds
            case RoundAbandoned() as fact:
                self._rounds[Outcome.TOO_FEW_ANSWERED] += 1
                self._round_seconds.observe(fact.seconds)
            case _:
                pass

    def page(self) -> tuple[bytes, str]:
        """Give all numbers in Prometheus' text format, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4

    async def watch_loop(self) -> None:
        """Measure the event loop's lag until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + _NAP
            await asyncio.sleep(_NAP)
            self._lag.observe(max(0.0, clock() - due))

    def collect(self) -> Iterator[Metric]:
        """Give what is on the board and in the counters, whenever the registry asks; nothing is added up twice."""
        yield from self._now()
        if self._board.state.head.run:  # until then, zeros would look as if a run that is resumed had lost its totals
            yield from self._run()
            yield from self._totals()

    def _run(self) -> Iterator[Metric]:
        head = self._board.state.head
        names = {"run": head.run, "name": head.name, "algorithm": head.algorithm, "metric": head.metric}
        yield InfoMetricFamily("fedhub_run", "Which run this is, and what it trains with.", names)
        yield GaugeMetricFamily("fedhub_run_start_timestamp_seconds", "When it began, since 1970.", head.began)
        yield GaugeMetricFamily("fedhub_model_parameters", "Numbers in the model.", head.parameters)
        yield GaugeMetricFamily("fedhub_model_bytes", "Size of the model.", head.model_bytes)
        yield GaugeMetricFamily("fedhub_rounds_planned", "Rounds that the run shall have.", head.rounds)
        yield GaugeMetricFamily("fedhub_round_deadline_seconds", "Time that edges have in a round.", head.deadline)

    def _now(self) -> Iterator[Metric]:
        state, head, round = self._board.state, self._board.state.head, self._board.state.round
        phase = GaugeMetricFamily("fedhub_run_phase", "1 for what the run is doing.", labels=["phase"])
        yield _with(phase, ((one, one == head.phase) for one in get_args(Phase)))
        yield GaugeMetricFamily("fedhub_run_paused", "1 if the operator paused the run.", head.paused)
        yield GaugeMetricFamily("fedhub_round", "The round that was asked last.", round.number if round else 0)
        yield GaugeMetricFamily("fedhub_round_committed", "The newest round that is safe on disk.", head.committed)
        yield GaugeMetricFamily("fedhub_round_best", "The round with the best metric; 0 without one.", head.best)

        measured = next((row.metrics for row in reversed(state.rows) if row.metrics), {})
        metric = GaugeMetricFamily(
            "fedhub_model_metric",
            "On held-out data, as measured last: the run's metric, and the loss.",
            labels=["metric"],
        )
        shown = dict.fromkeys((head.metric, "loss"))  # no more: edges make these names up
        yield _with(metric, ((name, measured[name]) for name in shown if name in measured))
        loss = state.rows[-1].loss if state.rows else None
        yield GaugeMetricFamily("fedhub_training_loss", "Mean loss at the edges in the newest round.", loss)

        here = Counter(edge.role for edge in state.edges.values() if edge.here)
        edges = GaugeMetricFamily("fedhub_edges", "Edges that are here.", labels=["role"])
        yield _with(edges, ((role, here[role]) for role in (Role.TRAINER, Role.EVALUATOR)))
        yield GaugeMetricFamily(
            "fedhub_edges_needed", "Trainers that a round needs, if they were too few.", head.needed
        )
        at = Counter(lane.stages[-1][0] for lane in round.lanes.values()) if round and not round.outcome else {}
        asked = GaugeMetricFamily("fedhub_round_edges", "Where the edges of the open round are.", labels=["stage"])
        yield _with(asked, ((stage, at.get(stage, 0)) for stage in Stage))

    def _totals(self) -> Iterator[Metric]:
        head = self._board.state.head
        rounds = CounterMetricFamily(
            "fedhub_rounds",
            "Rounds that ended, by how; too-few-answered: abandoned, all others: committed.",
            labels=["outcome"],
        )
        yield _with(rounds, ((outcome, self._rounds[outcome]) for outcome in Outcome))
        seconds = CounterMetricFamily(
            "fedhub_phase_seconds", "Where the hub's time of the committed rounds went.", labels=["phase"]
        )
        yield _with(seconds, ((phase, self._seconds[phase]) for phase in _HUBS_WORK))
        updates = CounterMetricFamily(
            "fedhub_updates",
            "What came of asking an edge for an update, told when its round ends;"
            " spared: not needed any more, void: the round did not count.",
            labels=["outcome"],
        )
        yield _with(updates, ((fate, head.fates.get(fate, 0)) for fate in get_args(Fate)))
        refusals = CounterMetricFamily(
            "fedhub_refusals", "Updates that arrived and were refused, by reason.", labels=["code"]
        )
        yield _with(refusals, ((code, self._refusals[code]) for code in Code))
        spent = CounterMetricFamily(
            "fedhub_edge_seconds",
            "Time of the edges that were asked, told when their round ends; each moment is in one stage.",
            labels=["stage"],
        )
        yield _with(spent, ((stage, head.spent.get(stage, 0.0)) for stage in Stage))
        says = "Edge-seconds of work that did not count."
        yield CounterMetricFamily("fedhub_wasted_edge_seconds", says, head.lost_seconds)
        yield CounterMetricFamily("fedhub_wasted_bytes", "Bytes that crossed for nothing.", head.lost_bytes)
        crossed = CounterMetricFamily(
            "fedhub_network_bytes", "Bytes to edges (down) and back (up), told when a round ends.", labels=["direction"]
        )
        yield _with(crossed, (("down", head.down), ("up", head.up)))
        yield CounterMetricFamily("fedhub_strangers", "Connections that were turned away.", head.strangers)
        yield CounterMetricFamily("fedhub_missed_facts", "Facts that these numbers lack.", head.missed)


def _with(family: GaugeMetricFamily | CounterMetricFamily, values: Iterable[tuple[str, float]]) -> Metric:
    """Give each value of the family's label its number."""
    for which, value in values:
        family.add_metric([which], value)
    return family
