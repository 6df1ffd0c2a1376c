"""Decides whether an update may count; every reason to refuse one is here."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from hub.rules.rounds import Round
from shared.codec import Decoded
from shared.errors import SpecMismatch
from shared.messages import Update
from shared.tensors import ModelSpec, Tensors, magnitude


class Code(StrEnum):
    """Why an update is refused."""

    FOREIGN = "foreign"
    """It belongs to another run."""
    LATE = "late"
    """Its round is over."""
    STALE = "stale"
    """It answers an earlier try at this round, or began with another model."""
    UNASKED = "unasked"
    """This edge was not asked in this round."""
    DUPLICATE = "duplicate"
    """This edge has answered already."""
    BAD_EXAMPLES = "bad-examples"
    BAD_METRICS = "bad-metrics"
    """It brings other metrics than were asked for."""
    MISSHAPEN = "misshapen"
    """Its tensors are not those of the model."""
    NOT_FINITE = "not-finite"
    """It holds NaN or infinity."""
    TOO_LARGE = "too-large"
    """A number in it is too large to be added exactly."""


FINAL = frozenset({Code.BAD_EXAMPLES, Code.BAD_METRICS, Code.MISSHAPEN, Code.NOT_FINITE, Code.TOO_LARGE})
"""Refusals that asking again would not mend: the edge is not awaited any more in this round."""


@dataclass(frozen=True)
class Refusal:
    """An answer to an update, not an error of ours."""

    code: Code
    reason: str


@dataclass(frozen=True)
class Admitted:
    """An update that counts."""

    tensors: Tensors
    weight: int
    largest: float
    """The largest absolute value of its float tensors."""


@dataclass(frozen=True)
class Gate:
    """What every update of a run is held against."""

    run: str
    spec: ModelSpec
    max_examples: int
    asks: frozenset[str] = frozenset({"loss"})
    """Metrics that each update must bring."""

    def standing(self, update: Update, *, edge: str, arrived: float, round: Round, model: str) -> Refusal | None:
        """Ask the questions that cost nothing: is this an answer the open round waits for?

        Args:
            update: what came.
            edge: who sent it.
            arrived: when it had come in whole, on the round's clock.
            round: the open round.
            model: hash of the model that the round sent out.
        """
        if update.run != self.run:
            return Refusal(Code.FOREIGN, f"the update is for run {update.run}, this is {self.run}")
        if update.round < round.number or (update.round == round.number and arrived > round.deadline):
            return Refusal(Code.LATE, f"round {update.round} was over when the update arrived")
        if update.round > round.number or update.attempt != round.attempt or update.model != model:
            return Refusal(
                Code.STALE,
                f"round {round.number}, try {round.attempt} is open; the update is for round {update.round}, "
                f"try {update.attempt}, and began with model {update.model[:12]}",
            )
        if edge not in round.cohort:
            return Refusal(Code.UNASKED, f"{edge} was not asked in round {round.number}")
        if edge in round.answered:
            return Refusal(Code.DUPLICATE, f"{edge} has answered round {round.number} already")
        if not (math.isfinite(update.examples) and update.examples == int(update.examples)):
            return Refusal(Code.BAD_EXAMPLES, f"{update.examples} is not a number of examples")
        if not 1 <= update.examples <= self.max_examples:
            return Refusal(
                Code.BAD_EXAMPLES,
                f"{update.examples} examples; 1 to {self.max_examples} are accepted (max_examples)",
            )
        if set(update.metrics) != self.asks:
            asked, brought = (", ".join(sorted(names)) or "none" for names in (self.asks, update.metrics))
            return Refusal(Code.BAD_METRICS, f"an update brings the metrics {asked}; this one has {brought}")
        for name, value in sorted(update.metrics.items()):
            if not math.isfinite(value):
                return Refusal(Code.NOT_FINITE, f"the {name} is {value}: training diverged on that edge")
        return None

    def contents(
        self, heard: Decoded[Update], *, weight_cap: int, fits: Callable[[int, float], bool]
    ) -> Admitted | Refusal:
        """Ask the questions that need a pass over the data: is it this model's, and can it be added?

        Args:
            heard: an update in good standing.
            weight_cap: the most that an edge can weigh in this round, whatever it claims.
            fits: whether so many examples times such a largest value can be taken in (`Aggregation.fits`).
        """
        update = heard.message
        if update.spec != self.spec.digest:
            return Refusal(Code.MISSHAPEN, "the update follows another model's spec; do hub and edge run the same app?")
        try:
            tensors = self.spec.views(heard.segments)
        except SpecMismatch as error:
            return Refusal(Code.MISSHAPEN, str(error))
        weight, most = min(int(update.examples), weight_cap), 0.0
        for tensor in self.spec.tensors:
            largest = magnitude(tensors[tensor.name]) if tensor.is_float else 0.0
            if not math.isfinite(largest):
                return Refusal(Code.NOT_FINITE, f"tensor {tensor.name} holds NaN or infinity")
            most = max(most, largest)
            if not fits(weight, largest):
                return Refusal(
                    Code.TOO_LARGE,
                    f"tensor {tensor.name} holds {largest:g}, too large to be added exactly for "
                    f"{update.examples} examples",
                )
        return Admitted(tensors, weight, most)


def weight_cap(claims: Sequence[int], *, most: int) -> int:
    """Give the most that an edge can weigh in a round: ten times the median of what its cohort said it has.

    So a lie about the number of examples takes over no mean. The claims are those made on joining, before the round, so
    the cap depends neither on who answers nor on the order.

    Args:
        claims: how many examples each edge of the cohort said it has; 0 for no claim.
        most: the cap where nobody claims anything, and the most it can be.
    """
    said = sorted(claim for claim in claims if claim > 0)
    return min(most, 10 * said[len(said) // 2]) if said else most
