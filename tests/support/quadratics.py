"""Edges with a quadratic each, to be worked out by hand: their real training and the hub's real step, no sockets."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import nn

from edge.app import App, Edge
from edge.examples import Examples
from edge.learner import Measured, Trained
from edge.memory import Memory
from edge.trainer import Trainer, seed_of
from hub.adding import Adding, wire
from hub.aggregation.algorithm import Algorithm
from hub.aggregation.catalogue import algorithm
from hub.config import Settings
from hub.journal import Committed
from hub.rules.admission import Gate
from hub.spool import Opening
from shared.codec import Decoded, decode, encode
from shared.exchange import Exchange
from shared.messages import ABANDONED, Plan, Receipt, ToHub, Train, Update
from shared.tensors import ModelSpec, Tensors

torch.set_num_threads(1)

CENTRES = {"a": [0.0], "b": [4.0, 4.0, 4.0]}
"""What each edge's examples say. With `Number`: f_a(w) = w^2 / 2, f_b(w) = (w - 4)^2 / 2, and b counts three times."""
_RUN = "r"


class Number(nn.Module):
    """One number w, which begins at 7; for an example that says c it puts out w - c."""

    def __init__(self, start: float = 7.0) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w - x


def half_square(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Give a loss whose slope is the output: for `Number`, w - c."""
    return ((output - target) ** 2).mean() / 2


@dataclass
class Fleet:
    """A run: the hub's algorithm and model, and edges with their memories.

    Args:
        algorithm: the hub's part.
        plan: what edges are told.
        trainers: by edge.
        examples: by edge.
        newest: where the run is.
    """

    algorithm: Algorithm
    plan: Plan
    trainers: dict[str, Trainer]
    examples: dict[str, Examples]
    newest: Committed
    memories: dict[str, Memory] = field(default_factory=dict)
    attempt: int = 1

    @property
    def exchange(self) -> Exchange:
        """What becomes of the model's tensors."""
        return next(iter(self.trainers.values())).exchange

    @property
    def sent(self) -> Tensors:
        """What edges get, read-only, as it is when it comes from the wire."""
        found = wire(self.algorithm, self.newest, self.exchange.of("average"))
        for array in found.values():
            array.flags.writeable = False
        return found

    def of_hub(self, name: str = "w") -> float:
        """Give a number of the hub's model."""
        return float(self.newest.model[name].item())

    def remembered(self, edge: str, name: str) -> float:
        """Give a number that an edge remembers."""
        return float(self.memories[edge].now[name].item())

    def rounds(self, count: int = 3) -> list[float]:
        """Play rounds that everybody answers; give w after each."""
        return [self.round() for _ in range(count)]

    def round(self, counted: Iterable[str] | None = None, refused: Iterable[str] = ()) -> float:
        """Play a round in which these edges' updates count, and those are refused; give w."""
        answered = list(self.trainers if counted is None else counted)
        gate = Gate(_RUN, ModelSpec.of(self.sent), 1000, self.algorithm.asks)
        sums = Adding(self.algorithm, gate, self._opening(), self.newest)
        for edge in answered:
            trained = self.answer(edge)
            assert set(trained.metrics) == self.algorithm.asks
            assert sums.add(self._on_the_wire(trained)) == trained.examples
            self.memories[edge].heard(self.receipt(accepted=True))
        for edge in refused:
            self.answer(edge)
            self.memories[edge].heard(self.receipt(accepted=False, code="late"))
        model, memory = sums.next_model(self.newest)
        self.newest, self.attempt = Committed(self.newest.number + 1, model, memory, ""), 1
        return self.of_hub() if "w" in model else 0.0

    def abandon(self, answered: Iterable[str]) -> None:
        """Play a try at a round that too few answer, so that what was accepted is taken back."""
        for edge in answered:
            self.answer(edge)
            self.memories[edge].heard(self.receipt(accepted=True))
            self.memories[edge].heard(self.receipt(accepted=False, code=ABANDONED))
        self.attempt += 1

    def answer(self, edge: str, *, share: float = 1.0, late: Callable[[], bool] = lambda: False) -> Trained:
        """Have an edge train, and propose what it would remember."""
        memory, number = self.memories[edge], self.newest.number + 1
        trained = self.trainers[edge].train(
            self.plan,
            self.sent,
            self.examples[edge],
            seed=seed_of(self.plan, round=number, edge=edge),
            stop=threading.Event(),
            memory=memory.at(number),
            share=share,
            late=late,
        )
        task = Train(run=_RUN, round=number, attempt=self.attempt, model="0" * 64, seconds=1.0, plan=self.plan)
        memory.propose(task, trained.memory)
        return trained

    def as_sent(self, trained: Trained) -> Tensors:
        """Give an answer's tensors in the order of the spec, having seen that they are of it."""
        update = {name: trained.tensors[name] for name in self.sent}
        assert ModelSpec.of(update) == ModelSpec.of(self.sent)
        return update

    def _on_the_wire(self, trained: Trained) -> Decoded[Update]:
        update = Update(
            run=_RUN,
            round=self.newest.number + 1,
            attempt=self.attempt,
            model="0" * 64,
            spec=ModelSpec.of(self.sent).digest,
            examples=trained.examples,
            metrics=trained.metrics,
            seconds=0.0,
        )
        message = b"".join(encode(update, self.as_sent(trained).values()).pieces)
        return decode(message, ToHub, max_tensors=len(self.sent))

    def measured(self, edge: str) -> Measured:
        """Have an edge measure the model on its own examples."""
        return self.trainers[edge].evaluate(
            self.sent, self.examples[edge], plan=self.plan, own=self.examples[edge], memory=self.memories[edge].now
        )

    def receipt(self, *, accepted: bool, code: str = "") -> Receipt:
        """Say what became of an answer to the open round."""
        return Receipt(
            run=_RUN, round=self.newest.number + 1, attempt=self.attempt, accepted=accepted, code=code, reason=""
        )

    def _opening(self) -> Opening:
        return Opening(
            run=_RUN,
            round=self.newest.number + 1,
            attempt=self.attempt,
            model="",
            cohort=tuple(self.trainers),
            goal=len(self.trainers),
            quorum=1,
            seconds=1.0,
            weight_cap=1000,
            algorithm=self.algorithm.name,
            plan=self.plan,
            fleet=len(self.trainers),
            averaged=tuple(sorted(self.exchange.of("average"))),
        )


def fleet_of(
    text: str | Algorithm,
    *,
    model: Callable[[], nn.Module] = Number,
    examples: dict[str, Examples] | None = None,
    rules: dict[str, str] | None = None,
    shared: bool = False,
    epochs: int = 1,
    batch: int = 0,
    lr: float = 0.5,
) -> Fleet:
    """Begin a run of the algorithm of this spelling.

    Args:
        text: the algorithm, spelled or made.
        model: makes the app's model.
        examples: by edge; `CENTRES` if it is not said.
        rules: the app's.
        shared: whether the edges share one trainer, as phones of a swarm do.
        epochs, batch, lr: of the plan.
    """
    chosen = algorithm(text, Settings(epochs=epochs, batch=batch, lr=lr)) if isinstance(text, str) else text
    app = App(rules=rules)
    app.name = "quadratic.py"
    app.model(model)
    app.loss(half_square)
    examples = examples or {edge: said(centres) for edge, centres in CENTRES.items()}
    one = _trainer(app, chosen)
    trainers = {edge: one if shared else _trainer(app, chosen) for edge in examples}
    plan = Plan(
        local=chosen.local, epochs=epochs, batch=batch, lr=lr, seed=0, holdout=0.0, settings=dict(chosen.settings)
    )
    fleet = Fleet(chosen, plan, trainers, examples, Committed(0, one.tensors, {}, ""))
    for edge in examples:
        fleet.memories[edge] = Memory(edge=edge)
        fleet.memories[edge].open(_RUN)
    return fleet


def said(centres: list[float]) -> Examples:
    """Make the examples of an edge for `Number`."""
    x = torch.tensor(centres, dtype=torch.float64)
    return Examples.of((x, torch.zeros_like(x)), where="the test")


def columns(values: list[float]) -> Examples:
    """Make examples of one feature each, for models with layers, and of target 0."""
    x = torch.tensor(values, dtype=torch.float64).reshape(-1, 1)
    return Examples.of((x, torch.zeros_like(x)), where="the test")


def _trainer(app: App, algorithm: Algorithm) -> Trainer:
    trainer = Trainer(app, app.make_model(Edge()), torch.device("cpu"))
    narrowed = algorithm.narrow(trainer.exchange)
    trainer.with_own(tuple(sorted(narrowed.of("own"))))
    return trainer
