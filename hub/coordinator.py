"""The story of a run: ask a cohort, listen until the round is over, average what counts, keep it, measure it, go on."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, assert_never

from hub.aggregation.algorithm import Algorithm
from hub.config import Settings
from hub.connections.inbox import Answered, Inbox, Item, Joined, Left, Stop
from hub.connections.roster import Broadcast, Roster
from hub.events import (
    RoundAbandoned,
    RoundClosed,
    RoundCommitted,
    RoundStarted,
    RunEnded,
    StopRequested,
    UpdateAccepted,
    UpdateRefused,
    WaitingForEdges,
)
from hub.feed import Feed
from hub.journal import Committed, Journal
from hub.rules.admission import FINAL, Admitted, Code, Gate, Refusal
from hub.rules.progress import Progress
from hub.rules.rounds import Outcome, Round, quorum_of
from hub.rules.selection import select
from shared.codec import Decoded, encode
from shared.errors import ExitCode
from shared.link import Traffic
from shared.messages import Evaluate, Evaluation, Plan, Receipt, Role, Train, Update


@dataclass
class Tally:
    """What has come of the open round besides its score."""

    state: Any
    """The aggregation's state."""
    started: float
    bytes_before: Traffic
    task: Broadcast
    refused: dict[str, Code] = field(default_factory=dict)
    weight: int = 0
    loss: float = 0.0


@dataclass
class Coordinator:
    """Runs the rounds. It is the only reader of the inbox, and the only writer of the model.

    Args:
        run: the run's id.
        settings: what the operator chose.
        plan: what edges are told about training.
        algorithm: how updates become the next model.
        gate: which updates may count.
        progress: when the run has got where it should.
        newest: the model to go on from.
        roster, inbox, feed, journal: see their files.
        traffic: the byte counter of all links.
        clock: a steady clock, in seconds.
        evaluator_expected: whether the first round waits for an evaluator.
    """

    run: str
    settings: Settings
    plan: Plan
    algorithm: Algorithm
    gate: Gate
    progress: Progress
    newest: Committed
    roster: Roster
    inbox: Inbox
    feed: Feed
    journal: Journal
    traffic: Traffic
    clock: Callable[[], float]
    evaluator_expected: bool = False
    stopping: bool = False

    async def play(self) -> ExitCode:
        """Play rounds until the run is over or stopped; the exit code says which."""
        began, first = self.clock(), self.newest.number
        abandoned = 0
        code = ExitCode.DONE
        while (reason := self.progress.finished(self.newest.number)) is None:
            await self._enough_edges(at_first=self.newest.number == first)
            if self.stopping:
                reason = "stopped by the operator"
            elif abandoned > self.settings.retries:
                reason = f"round {self.newest.number + 1} had too few answers {abandoned} times in a row"
                code = ExitCode.TOO_FEW_EDGES
            if reason:
                break
            abandoned = 0 if await self._play_round(attempt=abandoned + 1) else abandoned + 1
        self.feed.publish(
            RunEnded(
                reason=reason,
                finished=not self.stopping and code is ExitCode.DONE,
                rounds=self.newest.number,
                model=self.newest.sha256,
                seconds=self.clock() - began,
            )
        )
        return code

    async def _enough_edges(self, *, at_first: bool) -> None:
        """Wait until enough edges are here: at first all that were wished for, then at least one trainer."""
        needed = self.settings.wait_for if at_first else 1

        def missing() -> bool:
            without_judge = at_first and self.evaluator_expected and not self.roster.ids(Role.EVALUATOR)
            return not self.stopping and (without_judge or len(self.roster.ids(Role.TRAINER)) < needed)

        if missing():
            self.feed.publish(WaitingForEdges(here=len(self.roster.ids(Role.TRAINER)), needed=needed))
        while missing():
            self._note(await self.inbox.next())

    async def _play_round(self, *, attempt: int) -> bool:
        """Play one try at the next round; tell whether it counted."""
        round, tally = self._ask(attempt)
        outcome = await self._listen(round, tally)
        if outcome is Outcome.TOO_FEW_ANSWERED:
            self._abandon(round, tally)
            return False
        model, memory = await asyncio.to_thread(self._next_model, tally.state)
        self.newest = await self.journal.commit(number=round.number, attempt=attempt, model=model, memory=memory)
        self.feed.publish(RoundCommitted(round=round.number, model=self.newest.sha256))
        by, metrics = await self._evaluate()
        if metrics:
            await self.journal.evaluated(round.number, metrics)
        self._close(round, tally, outcome, by, metrics)
        return True

    def _ask(self, attempt: int) -> tuple[Round, Tally]:
        """Choose a cohort and send it the model."""
        number, now = self.newest.number + 1, self.clock()
        cohort, goal = select(
            self.roster.ids(Role.TRAINER),
            fraction=self.settings.fraction,
            over_selection=self.settings.over_selection,
            seed=self.settings.seed,
            round=number,
            attempt=attempt,
        )
        round = Round(
            number=number,
            attempt=attempt,
            cohort=cohort,
            goal=goal,
            quorum=quorum_of(goal, share=self.settings.quorum),
            deadline=now + self.settings.deadline,
        )
        tally = Tally(
            state=self.algorithm.aggregation.init(self.newest.model),
            started=now,
            bytes_before=Traffic(self.traffic.sent, self.traffic.received),
            task=self._training(round, now),
        )
        self.feed.publish(
            RoundStarted(
                round=number,
                attempt=attempt,
                cohort=tuple(sorted(cohort)),
                goal=goal,
                quorum=round.quorum,
                seconds=self.settings.deadline,
            )
        )
        for edge in sorted(cohort):
            self.roster.offer(edge, tally.task)
        return round, tally

    def _training(self, round: Round, now: float) -> Broadcast:
        return self._broadcast(
            Train(
                run=self.run,
                round=round.number,
                attempt=round.attempt,
                model=self.newest.sha256,
                seconds=max(0.0, round.deadline - now),
                plan=self.plan,
            )
        )

    def _broadcast(self, task: Train | Evaluate) -> Broadcast:
        return Broadcast(model=task.model, full=encode(task, self.newest.model.values()), light=encode(task))

    async def _listen(self, round: Round, tally: Tally) -> Outcome:
        """Hear everything until the round is over. An item's time is when it arrived, not when it is read."""
        now = self.clock()
        while (outcome := round.outcome(now)) is None:
            item = await self.inbox.next(until=round.deadline)
            now = item.arrived if item else self.clock()
            match item:
                case None:
                    pass
                case Answered(edge, Decoded(Update()) as heard, arrived):
                    await self._examine(edge, heard, arrived, round, tally)
                case Answered():
                    pass  # an evaluation that nobody waits for any more
                case Left(edge):
                    round.out.add(edge)
                case Joined(edge, arrived):
                    if arrived >= tally.started:
                        self._welcome_back(edge, round, tally)
                case Stop():
                    self.stopping = True
                    self.feed.publish(
                        StopRequested(round=round.number, answered=len(round.answered), asked=len(round.cohort))
                    )
                    return Outcome.STOPPED if round.has_quorum else Outcome.TOO_FEW_ANSWERED
                case _:
                    assert_never(item)
        return outcome

    def _welcome_back(self, edge: str, round: Round, tally: Tally) -> None:
        """Await an edge of the cohort again that was gone for a while; if it still trains, it just goes on."""
        if edge in round.cohort - round.answered and edge not in tally.refused:
            round.out.discard(edge)
            self.roster.offer(edge, self._training(round, self.clock()))

    async def _examine(self, edge: str, heard: Decoded[Update], arrived: float, round: Round, tally: Tally) -> None:
        """Check an update, then add it, then count it, and give a receipt either way."""
        update = heard.message
        verdict = self.gate.standing(update, edge=edge, arrived=arrived, round=round, model=self.newest.sha256)
        if verdict is None:
            judged = await asyncio.to_thread(self._add, heard, tally, updates=len(round.cohort))
            if isinstance(judged, Admitted):
                round.answered.add(edge)
                loss = update.metrics.get("loss")
                tally.weight += judged.examples
                tally.loss += judged.examples * (loss if loss is not None else 0.0)
                self._receipt(edge, update)
                self.feed.publish(
                    UpdateAccepted(
                        round=round.number,
                        edge=edge,
                        examples=judged.examples,
                        loss=loss,
                        seconds=arrived - tally.started,
                        nbytes=heard.nbytes,
                    )
                )
                return
            verdict = judged
        if verdict.code in FINAL:
            round.out.add(edge)
            tally.refused[edge] = verdict.code
        self._refuse(edge, update, verdict)

    def _add(self, heard: Decoded[Update], tally: Tally, *, updates: int) -> Admitted | Refusal:
        """Look at the numbers and add them up: a pass over the data, so in a thread."""
        aggregation = self.algorithm.aggregation
        judged = self.gate.contents(heard, fits=partial(aggregation.fits, updates=updates))
        if isinstance(judged, Admitted):
            tally.state = aggregation.accumulate(tally.state, judged.tensors, judged.examples)
        return judged

    def _refuse(self, edge: str, update: Update, refusal: Refusal) -> None:
        self._receipt(edge, update, refusal)
        self.feed.publish(UpdateRefused(round=update.round, edge=edge, code=refusal.code, reason=refusal.reason))

    def _receipt(self, edge: str, update: Update, refusal: Refusal | None = None) -> None:
        self.roster.say(
            edge,
            Receipt(
                run=self.run,
                round=update.round,
                attempt=update.attempt,
                accepted=refusal is None,
                code=refusal.code if refusal else "",
                reason=refusal.reason if refusal else "",
            ),
        )

    def _next_model(self, state: Any) -> tuple[Any, Any]:
        aggregate = self.algorithm.aggregation.finalize(state, self.newest.model)
        return self.algorithm.step(self.newest.memory, self.newest.model, aggregate)

    def _abandon(self, round: Round, tally: Tally) -> None:
        late, left = self._missing(round, tally)
        self.feed.publish(
            RoundAbandoned(
                round=round.number,
                attempt=round.attempt,
                asked=len(round.cohort),
                answered=len(round.answered),
                needed=round.quorum,
                late=late,
                left=left,
                refused={edge: str(code) for edge, code in sorted(tally.refused.items())},
            )
        )

    def _close(
        self,
        round: Round,
        tally: Tally,
        outcome: Outcome,
        by: Literal["", "central", "federated"],
        metrics: dict[str, float],
    ) -> None:
        """Say all there is to say about a round that counts."""
        late, left = self._missing(round, tally)
        self.feed.publish(
            RoundClosed(
                round=round.number,
                attempt=round.attempt,
                outcome=outcome,
                asked=len(round.cohort),
                answered=len(round.answered),
                late=late if outcome is Outcome.DEADLINE_PASSED else (),
                left=left,
                refused={edge: str(code) for edge, code in sorted(tally.refused.items())},
                loss=tally.loss / tally.weight if tally.weight else None,
                metrics=metrics,
                evaluated=by,
                best=self.progress.note(round.number, metrics),
                seconds=self.clock() - tally.started,
                bytes_down=self.traffic.sent - tally.bytes_before.sent,
                bytes_up=self.traffic.received - tally.bytes_before.received,
                model=self.newest.sha256,
            )
        )

    def _missing(self, round: Round, tally: Tally) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Tell who of the cohort did not answer: those still here, and those who left."""
        return tuple(sorted(round.awaited)), tuple(sorted(round.out - round.answered - set(tally.refused)))

    async def _evaluate(self) -> tuple[Literal["", "central", "federated"], dict[str, float]]:
        """Have the new model measured: by evaluators if any are here, else by edges on what they hold out."""
        number = self.newest.number
        if number % self.settings.evaluate_every and number != self.settings.rounds:
            return "", {}
        asked = self.roster.ids(Role.EVALUATOR)
        by: Literal["central", "federated"] = "central"
        if not asked and self.plan.holdout > 0:
            asked, by = self.roster.ids(Role.TRAINER), "federated"
        if not asked:
            return "", {}
        deadline = self.clock() + self.settings.evaluation_deadline
        task = self._broadcast(
            Evaluate(
                run=self.run,
                round=number,
                model=self.newest.sha256,
                seconds=self.settings.evaluation_deadline,
                plan=self.plan,
            )
        )
        for edge in asked:
            self.roster.offer(edge, task)
        awaited, answers = set(asked), dict[str, Evaluation]()
        while awaited and not self.stopping:
            item = await self.inbox.next(until=deadline)
            match item:
                case None:
                    break
                case Answered(edge, Decoded(Evaluation() as evaluation)) if evaluation.model == task.model:
                    if edge in awaited:
                        awaited.discard(edge)
                        answers[edge] = evaluation
                case Left(edge):
                    awaited.discard(edge)
                case Joined(edge) if edge in asked and edge not in answers:
                    awaited.add(edge)
                    self.roster.offer(edge, task)
                case _:
                    self._note(item)
        metrics = weighted([answers[edge] for edge in sorted(answers)])
        return (by, metrics) if metrics else ("", {})

    def _note(self, item: Item | None) -> None:
        """Hear an item while no round is open."""
        match item:
            case Stop():
                self.stopping = True
                self.feed.publish(StopRequested(round=self.newest.number, answered=0, asked=0))
            case Answered(edge, Decoded(Update() as update)):
                reason = f"round {update.round} was over when the update arrived"
                self._refuse(edge, update, Refusal(Code.LATE, reason))
            case Answered() | Joined() | Left() | None:
                pass
            case _:
                assert_never(item)


def weighted(evaluations: list[Evaluation]) -> dict[str, float]:
    """Give the mean of each metric that every evaluation has, weighted by examples; nonsense does not count."""
    sound = [
        one
        for one in evaluations
        if 0 < one.examples < 2**53 and all(value - value == 0 for value in one.metrics.values())
    ]
    if not sound:
        return {}
    total = sum(one.examples for one in sound)
    names = sorted(set.intersection(*(set(one.metrics) for one in sound)))
    return {name: sum(one.examples * one.metrics[name] for one in sound) / total for name in names}
