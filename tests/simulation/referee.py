"""Watches a run from outside and says at once when a promise is broken; it knows what every edge computed."""

import math
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from hub import events
from hub.aggregation.algorithm import Aggregate
from hub.aggregation.fedavg import move
from hub.aggregation.mean import ExactMean
from hub.events import Fact
from shared.messages import ABANDONED, Receipt, Train
from shared.tensors import Tensors, sha256

EXAMPLES = 500
"""How many examples each edge says it has on joining."""

_GRID = 2.0**-32
_HONEST_REFUSALS = ("late", "stale", "duplicate", "unasked", "abandoned")


class Violation(Exception):
    """A promise was broken."""


@dataclass(frozen=True)
class Made:
    """An update that an edge may have sent."""

    tensors: Tensors
    examples: int
    loss: float


@dataclass
class Open:
    """The round that is open, as the facts tell of it."""

    round: int
    attempt: int
    cohort: tuple[str, ...]
    goal: int
    quorum: int
    model: str
    accepted: dict[str, list[Made]] = field(default_factory=dict)
    """What counts; several candidates where a crash left it open which it was."""
    acknowledged: set[str] = field(default_factory=set)
    losses: list[float] = field(default_factory=list)
    """What the mean loss can be, once the round is committed."""


Header = tuple[str, int, int, str]


class Referee:
    """Checks after every published fact, every receipt an edge reads and every training it begins.

    Args:
        model: the first one.
    """

    def __init__(self, model: Tensors) -> None:
        self.run = ""
        self.models: dict[str, Tensors] = {sha256(model): model}
        self.committed: list[str] = [sha256(model)]
        self.tries = [0]
        """Which try at each round was committed."""
        self.who = [frozenset[str]()]
        """Whose updates each round is made of."""
        self.open: Open | None = None
        self.restarted = False
        self.accepted = 0
        self.honest: set[str] = set()
        self._made: dict[tuple[str, Header], list[Made]] = {}
        self._begun: set[tuple[int, str, int, int]] = set()
        self._proposed: dict[tuple[str, int, int], set[int]] = {}
        self._counted: dict[int, tuple[int, int] | None] = {}
        self._newest_try = (0, 0)
        self._given_up: Open | None = None
        self._given_up_tries: set[tuple[int, int]] = set()

    @property
    def last(self) -> int:
        """The newest committed round."""
        return len(self.committed) - 1

    # --- what edges do ---

    def joins(self, edge: str, incarnation: int) -> None:
        """An edge has its Welcome. What counts of it already, the hub must not ask for again on this connection."""
        now = self.open
        self._counted[incarnation] = (now.round, now.attempt) if now and edge in now.accepted else None

    def begins(self, edge: str, incarnation: int, task: Train) -> None:
        """An edge begins to train."""
        key = (incarnation, task.run, task.round, task.attempt)
        promised = (task.round, task.attempt) not in self._given_up_tries  # of which another may have the same name
        if promised and key in self._begun:
            raise Violation(f"{edge} trains round {task.round}, try {task.attempt} again")
        self._begun.add(key)
        if promised and self._counted.get(incarnation) == (task.round, task.attempt):
            raise Violation(f"{edge} trains round {task.round}, try {task.attempt} although its update was accepted")
        if task.model not in self.models:
            raise Violation(f"{edge} was sent model {task.model[:12]}, which no committed round led to")

    def holds(self, edge: str, task: Train, model: Tensors) -> None:
        """An edge has a model in its hands."""
        if sha256(model) != task.model:
            raise Violation(f"{edge} trains on other tensors than those of model {task.model[:12]}")

    def remembers(self, edge: str, incarnation: int, task: Train, rounds: list[tuple[int, int]]) -> None:
        """An edge that begins a round remembers these rounds and tries: just those of its own that have counted."""
        counted = [at for at in enumerate(self.tries) if at[0] < task.round and edge in self.who[at[0]]]
        if phantoms := [one for one in rounds if one not in counted]:
            raise Violation(f"{edge} remembers {phantoms}, which did not count, when round {task.round} begins")
        for one in reversed(counted):
            if self._proposed.get((edge, *one)) != {incarnation}:
                break  # somebody started the edge twice: one was away while the other went on
            if one not in rounds:
                raise Violation(f"{edge} has forgotten {one}, which counted, when round {task.round} begins")

    def proposes(self, edge: str, incarnation: int, task: Train) -> None:
        """A life of an edge hands in what it made, and will remember it if it counts."""
        self._proposed.setdefault((edge, task.round, task.attempt), set()).add(incarnation)

    def made(self, edge: str, header: Header, made: Made) -> None:
        """An edge sends an update that may count in the round of `header`: run, round, attempt, model."""
        known = self._made.setdefault((edge, header), [])
        if all(one.loss != made.loss for one in known):
            known.append(made)

    def receipt(self, edge: str, receipt: Receipt) -> None:
        """An edge reads what became of its update."""
        if receipt.accepted:
            now = self.open
            if now and (now.round, now.attempt) == (receipt.round, receipt.attempt):
                if edge not in now.accepted and not self.restarted:
                    raise Violation(f"{edge} has a receipt for round {now.round} that no fact tells of")
                now.acknowledged.add(edge)
        elif edge in self.honest and receipt.code not in (ABANDONED, *_HONEST_REFUSALS):
            raise Violation(f"the honest {edge} was refused: {receipt.code}, {receipt.reason}")

    # --- what the hub says ---

    def crashed(self) -> None:
        """The hub is gone; what it has not made durable may be forgotten."""
        self.restarted = True

    def fact(self, fact: Fact) -> None:
        """The hub has published a fact."""
        match fact:
            case events.RunStarted():
                self._run_started(fact)
            case events.RoundStarted():
                self._round_started(fact)
            case events.RoundReopened():
                self._reopened(fact)
            case events.UpdateAccepted():
                self._accept(fact)
            case events.RoundCommitted():
                if self.open is None or fact.round != self.last + 1 or fact.round != self.open.round:
                    raise Violation(f"round {fact.round} was committed after round {self.last}, {self.open}")
                self._commit(fact.model)
            case events.RoundClosed():
                self._closed(fact)
            case events.RoundAbandoned():
                now = self._current(fact.round, fact.attempt)
                if fact.answered != len(now.accepted) or fact.answered >= now.quorum:
                    raise Violation(f"{fact} but {len(now.accepted)} were accepted and {now.quorum} needed")
                self._given_up_tries.add((fact.round, fact.attempt))
                self._given_up, self.open = now, None
            case events.RunEnded():
                if fact.rounds != self.last or fact.model != self.committed[-1]:
                    raise Violation(f"{fact} but round {self.last} was the last")
                self.restarted = True  # what a hub that is stopped leaves open, the next one goes on with
            case _:
                pass

    def _run_started(self, fact: events.RunStarted) -> None:
        if self.run and fact.run != self.run:
            raise Violation(f"run {self.run} came back as run {fact.run}")
        self.run = fact.run
        self._newest_try = (0, 0)  # a hub that gave a try up counts anew when it is started again
        if fact.round == self.last + 1 and self.open and self.open.round == fact.round:
            self._commit(fact.model)  # the hub died after the commit and before it could say so
        if fact.round != self.last:
            raise Violation(f"round {self.last} was committed; the hub goes on after round {fact.round}")
        if fact.model != self.committed[-1]:
            raise Violation(f"round {self.last} led to model {self.committed[-1][:12]}, now it is {fact.model[:12]}")
        if self.open and self.open.round <= self.last:
            self.open = None

    def _round_started(self, fact: events.RoundStarted) -> None:
        now = self.open
        # A hub that dies just after it gave a round up has not said so: too few answers may be forgotten then.
        if now is not None and not (self.restarted and len(now.accepted) < now.quorum):
            raise Violation(f"{fact} although round {now.round}, try {now.attempt} is open with {list(now.accepted)}")
        if fact.round != self.last + 1:
            raise Violation(f"round {fact.round} was started after round {self.last}")
        if (fact.round, fact.attempt) <= self._newest_try:
            raise Violation(f"round {fact.round}, try {fact.attempt} was started after {self._newest_try}")
        self._opened(fact)

    def _opened(self, fact: events.RoundStarted | events.RoundReopened) -> Open:
        self.restarted = False
        self._newest_try = fact.round, fact.attempt
        self.open = Open(fact.round, fact.attempt, fact.cohort, fact.goal, fact.quorum, self.committed[-1])
        return self.open

    def _reopened(self, fact: events.RoundReopened) -> None:
        now = self.open
        if not self.restarted:
            raise Violation(f"{fact} without a crash or a stop")
        old = self._given_up
        if (
            now is None
            and old is not None
            and (old.round, old.attempt, old.cohort) == (fact.round, fact.attempt, fact.cohort)
            and set(old.accepted) <= set(fact.answered)
        ):
            now = self.open = old  # that it was given up is not durable until the next try is
        if now is None:  # the hub died after it wrote the round down and before it could say so
            if fact.round != self.last + 1:
                raise Violation(f"{fact} after round {self.last}")
            now = self._opened(fact)
        elif (fact.round, fact.attempt) == (now.round, now.attempt + 1) and len(now.accepted) < now.quorum:
            now = self._opened(fact)  # it gave a try up, asked again, and said neither
        self.restarted = False
        self._newest_try = fact.round, fact.attempt
        if (fact.round, fact.attempt, fact.cohort, fact.goal, fact.quorum) != (
            now.round, now.attempt, now.cohort, now.goal, now.quorum,
        ):  # fmt: skip
            raise Violation(f"{fact} is another round than {now}")
        forgotten = sorted((set(now.accepted) | now.acknowledged) - set(fact.answered))
        if forgotten:
            raise Violation(f"{fact.round}: the accepted updates of {forgotten} were forgotten")
        for edge in fact.answered:
            if edge not in now.accepted:
                made = self._made.get((edge, (self.run, now.round, now.attempt, now.model)), [])
                if not made or edge not in now.cohort:
                    raise Violation(f"{edge} has answered round {now.round} without having made an update")
                now.accepted[edge] = list(made)

    def _accept(self, fact: events.UpdateAccepted) -> None:
        now = self.open
        if now is None or fact.round != now.round:
            raise Violation(f"{fact} but {now} is open")
        if fact.edge not in now.cohort:
            raise Violation(f"{fact.edge} was not asked in round {now.round}")
        if fact.edge in now.accepted:
            raise Violation(f"two updates of {fact.edge} were accepted in round {now.round}, try {now.attempt}")
        made = self._made.get((fact.edge, (self.run, now.round, now.attempt, now.model)), [])
        fitting = [one for one in made if one.loss == fact.loss and one.examples == fact.examples]
        if not fitting:
            raise Violation(f"{fact} is not what {fact.edge} made for round {now.round}, try {now.attempt}")
        if fact.weight != weight_of(fitting[0]):
            raise Violation(f"{fact} has another weight than {weight_of(fitting[0])}")
        now.accepted[fact.edge] = fitting[:1]
        self.accepted += 1

    def _current(self, round: int, attempt: int) -> Open:
        if self.open is None or (self.open.round, self.open.attempt) != (round, attempt):
            raise Violation(f"round {round}, try {attempt} ended, but {self.open} is open")
        return self.open

    def _commit(self, model: str) -> None:
        """A round led to `model`: it must be what its updates give."""
        now = self.open
        assert now is not None
        if len(now.accepted) < now.quorum:
            raise Violation(f"round {now.round} was committed with {len(now.accepted)} of {now.quorum} updates")
        before = self.models[now.model]
        for chosen in product(*now.accepted.values()):
            pairs = [(made, weight_of(made)) for made in chosen]
            after = exact_mean(before, pairs)
            if sha256(after) == model:
                check_plainly(before, after, pairs)
                self.models[model] = after
                now.losses.append(
                    sum(made.loss * weight for made, weight in pairs) / sum(weight for _, weight in pairs)
                )
        if not now.losses:
            raise Violation(f"the model of round {now.round} is not the mean of {sorted(now.accepted)}")
        self.committed.append(model)
        self.tries.append(now.attempt)
        self.who.append(frozenset(now.accepted))

    def _closed(self, fact: events.RoundClosed) -> None:
        now = self._current(fact.round, fact.attempt)
        if fact.answered != len(now.accepted) or fact.round != self.last or fact.model != self.committed[-1]:
            raise Violation(f"{fact}, but {len(now.accepted)} were accepted, {self.last} was committed")
        if fact.loss is None or not any(math.isclose(fact.loss, loss, rel_tol=1e-9) for loss in now.losses):
            raise Violation(f"{fact}: the weights of what was accepted make the loss {now.losses}")
        self.open = None


def weight_of(made: Made) -> int:
    """Give what an update weighs: its examples, but at most ten times the median of what edges say they have."""
    return min(made.examples, 10 * EXAMPLES)


def exact_mean(before: Tensors, pairs: list[tuple[Made, int]]) -> Tensors:
    """Compute the next model as the hub should."""
    rule = ExactMean()
    state = rule.init(before)
    for made, weight in pairs:
        state = rule.accumulate(state, made.tensors, weight, largest=math.inf)  # by the other of its two ways
    return move({}, before, Aggregate(rule.finalize(state, before)))[0]


def check_plainly(before: Tensors, after: Tensors, pairs: list[tuple[Made, int]]) -> None:
    """Compare with the textbook's formula in float64: within the grid of the exact sum and one unit in the last place.

    Raises:
        Violation: they differ, or something is not finite.
    """
    total = sum(weight for _, weight in pairs)
    for name, array in after.items():
        if array.dtype.kind in "biu":
            expected = np.max([made.tensors[name] for made, _ in pairs], axis=0)
            fine = np.array_equal(array, expected)
        else:
            moved = sum(made.tensors[name].astype(np.float64) * weight for made, weight in pairs) / total
            expected = before[name].astype(np.float64) + moved
            off = np.abs(array.astype(np.float64) - expected)
            fine = bool(
                np.isfinite(array).all() and (off <= _GRID + np.spacing(np.abs(array)).astype(np.float64)).all()
            )
        if not fine:
            raise Violation(f"tensor {name} is {array.tolist()}, the updates give {expected.tolist()}")
