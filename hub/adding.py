"""Adds up a round's updates and gives the model they lead to: the same for a round that is played and for its proof."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from hub.aggregation.algorithm import Aggregate, Aggregation, Algorithm
from hub.aggregation.fedavg import move
from hub.journal import Committed
from hub.rules.admission import Gate, Refusal
from hub.spool import Opening
from shared.codec import Decoded
from shared.messages import Update
from shared.tensors import Tensors


def wire(algorithm: Algorithm, newest: Committed, averaged: Collection[str]) -> Tensors:
    """Give what edges are sent, and answer in kind: the model, and what the algorithm has them told beside it."""
    learnt = {name: array for name, array in newest.model.items() if name not in averaged}
    return {**newest.model, **algorithm.carried(newest.memory, learnt)}


@dataclass
class _Part:
    """Tensors that become one in the same way, and what has come of them."""

    aggregation: Aggregation[Any]
    names: frozenset[str]
    state: Any = None

    def of(self, tensors: Tensors) -> Tensors:
        return {name: array for name, array in tensors.items() if name in self.names}


class Adding:
    """What has come of a round so far. It holds sums (or the updates, if the algorithm wants them), and no model."""

    def __init__(self, algorithm: Algorithm, gate: Gate, opening: Opening, newest: Committed) -> None:
        """Begin with nothing.

        Args:
            algorithm: how updates become the next model.
            gate: which updates may count.
            opening: the round as it was asked.
            newest: the model that it began with.
        """
        self._algorithm = algorithm
        self._gate = gate
        self._opening = opening
        sent = wire(algorithm, newest, opening.averaged)
        apart = frozenset(opening.averaged if algorithm.averaging else ())
        self._parts = [_Part(algorithm.aggregation, frozenset(sent) - apart)]
        if algorithm.averaging and apart:
            self._parts.append(_Part(algorithm.averaging, apart))
        for part in self._parts:
            part.state = part.aggregation.init(part.of(sent))
        self._updates = 0

    def add(self, heard: Decoded[Update]) -> int | Refusal:
        """Look at an update's numbers and add them up, in passes over the data; give its weight.

        Nothing that is given back holds the tensors: their memory is wanted for the next update.
        """
        metrics, updates = heard.message.metrics, len(self._opening.cohort)

        def fits(examples: int, magnitude: float) -> bool:
            return all(
                part.aggregation.fits(examples, magnitude, updates=updates, metrics=metrics) for part in self._parts
            )

        judged = self._gate.contents(heard, weight_cap=self._opening.weight_cap, fits=fits)
        if isinstance(judged, Refusal):
            return judged
        for part in self._parts:
            part.state = part.aggregation.accumulate(
                part.state, part.of(judged.tensors), judged.weight, largest=judged.largest, metrics=metrics
            )
        self._updates += 1
        return judged.weight

    def next_model(self, newest: Committed) -> tuple[Tensors, Tensors]:
        """Give the next model and the server step's memory. The sums, twice the model's size, are let go of.

        What is averaged and not learnt, such as running statistics, goes where its average is: no server step is taken
        with it. An adaptive one would, for example, make a variance negative.
        """
        algorithm, averaged = self._algorithm, self._opening.averaged
        sent = wire(algorithm, newest, averaged)
        tensors: dict[str, Any] = {}
        for part in self._parts:
            state, part.state = part.state, None
            tensors.update(part.aggregation.finalize(state, part.of(sent), newest.memory))
        aggregate = Aggregate(tensors, turnout=self._updates / max(self._opening.fleet, self._updates))
        learnt = {name: array for name, array in newest.model.items() if name not in averaged}
        others = {name: array for name, array in newest.model.items() if name in averaged}
        stepped, memory = algorithm.step(newest.memory, learnt, aggregate)
        moved, _ = move({}, others, aggregate)
        return {name: stepped[name] if name in stepped else moved[name] for name in newest.model}, memory
