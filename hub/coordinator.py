"""The story of a run: ask a cohort, listen until the round is over, average what counts, keep it, measure it, go on."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from typing import Literal, ParamSpec, TypeVar, assert_never

import xxhash

from hub.adding import Adding, wire
from hub.aggregation.algorithm import Algorithm
from hub.config import Settings
from hub.connections.inbox import Answered, Inbox, Item, Joined, Left, Stop, Told
from hub.connections.movements import Movements
from hub.connections.roster import Broadcast, Roster
from hub.events import (
    Ordered,
    RoundAbandoned,
    RoundClosed,
    RoundCommitted,
    RoundReopened,
    RoundStarted,
    RunEnded,
    StopRequested,
    UpdateAccepted,
    UpdateRefused,
    WaitingForEdges,
)
from hub.feed import Feed
from hub.journal import Committed, Counted, Journal
from hub.rules.admission import FINAL, Code, Gate, Refusal, weight_cap
from hub.rules.orders import unable
from hub.rules.progress import Progress
from hub.rules.rounds import Outcome, Round, quorum_of
from hub.rules.selection import select
from hub.spool import Kept, Opening, Spooled
from shared.codec import Decoded, decode, encode
from shared.errors import Diverged, ExitCode
from shared.link import Traffic
from shared.messages import (
    ABANDONED,
    Evaluate,
    Evaluation,
    Farewell,
    Plan,
    Receipt,
    Reply,
    Role,
    ToHub,
    Train,
    Update,
)
from shared.tensors import Tensors, magnitude

P = ParamSpec("P")
T = TypeVar("T")

_LITTLE = 64 * 1024
_ENDS = 16 * 1024
_MOST_REFUSALS = 16  # in a round, of one edge: an honest one has one or two


@dataclass
class Tally:
    """What has come of the open round besides its score."""

    opening: Opening
    sums: Adding
    chosen: float
    """When the cohort was chosen: who came or went before that is taken into account."""
    started: float
    bytes_before: Traffic
    sent: Tensors
    """What the task carries; an edge that comes back gets the same, and no copy of what goes beside the model."""
    task: Broadcast
    refused: dict[str, Code] = field(default_factory=dict)
    prints: dict[str, bytes] = field(default_factory=dict)
    """A fingerprint of each accepted update, by edge: the same update again gets the same receipt."""
    unsettled: list[tuple[Update, UpdateAccepted]] = field(default_factory=list)
    """Updates that count and are not acknowledged yet, because they are not durable."""
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
        averaged: tensors that the algorithm's step leaves alone.
        gate: which updates may count.
        progress: when the run has got where it should.
        newest: the model to go on from.
        reopened: the round that was open when the hub was stopped or crashed, if any.
        roster, inbox, movements, feed, journal: see their files.
        traffic: the byte counter of all links.
        clock: a steady clock, in seconds.
        evaluator_expected: whether the first round waits for an evaluator.
        counted: whose updates have counted, if the run is taken up again.
    """

    run: str
    settings: Settings
    plan: Plan
    algorithm: Algorithm
    averaged: frozenset[str]
    gate: Gate
    progress: Progress
    newest: Committed
    roster: Roster
    inbox: Inbox
    movements: Movements
    feed: Feed
    journal: Journal
    traffic: Traffic
    clock: Callable[[], float]
    reopened: Spooled | None = None
    evaluator_expected: bool = False
    _refusals: Counter[str] = field(default_factory=Counter)
    """How many answers of each edge were refused since the last round began."""
    counted: InitVar[Counted | None] = None
    _abandoned: int = 0
    """How often in a row too few have answered."""
    reason: str = ""
    """Why the run is over."""
    stopping: bool = False
    why_stopping: str = "stopped by the operator"
    paused: bool = False
    deadline: float = 0.0
    """Seconds that a round allows, from now on."""

    def __post_init__(self, counted: Counted | None) -> None:
        self.deadline = self.settings.deadline
        if counted:  # nobody is here yet; each will hear it on coming back
            for edge, (round, attempt) in counted.newest.items():
                self._receipt(edge, round, attempt)
            reason = "nothing of it has counted"
            self.roster.else_say = Receipt(
                run=self.run, round=counted.since, attempt=1, accepted=False, code=ABANDONED, reason=reason
            )

    async def play(self) -> ExitCode:
        """Play rounds until the run is over or stopped; the exit code says which."""
        # A try that is taken up again keeps its number, and so the next one gets another: an edge that has answered
        # a task does not answer a second one of the same name.
        attempt = self.reopened.opening.attempt if self.reopened else 1
        self._abandoned = attempt - 1
        if not self.reopened:
            await self.journal.abandon_round()  # one that was found open and is not gone on with
        began, at_first = self.clock(), True
        code = ExitCode.DONE
        while (reason := self.progress.finished(self.newest.number)) is None:
            going_on = self.reopened is not None
            if not self.stopping and self._abandoned > self.settings.retries and not self._gives_up_hurry():
                reason = f"round {self.newest.number + 1} had too few answers {self._abandoned} times in a row"
                code = ExitCode.TOO_FEW_EDGES
                break
            if not going_on:
                await self._enough_edges(at_first=at_first)
            if self.stopping:
                reason = self.why_stopping
                break
            try:
                counted = await self._play_round(attempt=attempt)
            except Diverged as diverged:
                reason, code = str(diverged), ExitCode.FAILURE
                break
            if counted:
                attempt, self._abandoned, at_first = 1, 0, at_first and going_on
            else:
                attempt, self._abandoned = attempt + 1, self._abandoned + 1
        self.reason = reason
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

    def _gives_up_hurry(self) -> bool:
        """Go back to the deadline of the settings, if the operator chose a shorter one in which nobody can answer."""
        if self.deadline >= self.settings.deadline:
            return False
        self.deadline, self._abandoned = self.settings.deadline, 0
        self.feed.publish(
            Ordered(action="deadline", by="hub", round=self.newest.number, edge="", seconds=self.deadline)
        )
        return True

    @property
    def over(self) -> bool:
        """Whether the run has got where it should already."""
        return self.progress.finished(self.newest.number) is not None

    async def _enough_edges(self, *, at_first: bool) -> None:
        """Wait until enough edges are here: at first all that were wished for, then at least one trainer.

        And until the operator lets the run go on.
        """
        needed = self.settings.wait_for if at_first else 1

        def missing() -> bool:
            without_judge = at_first and self.evaluator_expected and not self.roster.count(Role.EVALUATOR)
            return not self.stopping and (without_judge or self.roster.count(Role.TRAINER) < needed)

        told = False
        while (lacks := missing()) or (self.paused and not self.stopping):
            if lacks and not told:
                self.feed.publish(WaitingForEdges(here=self.roster.count(Role.TRAINER), needed=needed))
            told = lacks
            self._note(await self.inbox.next())

    async def _play_round(self, *, attempt: int) -> bool:
        """Play one try at the next round; tell whether it counted."""
        reopened, self.reopened = self.reopened, None
        round, tally = await self._reopen(reopened) if reopened else await self._ask(attempt)
        del reopened  # its updates are added up again
        outcome = await self._listen(round, tally)
        if outcome is Outcome.TOO_FEW_ANSWERED:
            # A stop with too few answers leaves the round open where it can be gone on with: accepted means kept.
            if not (self.stopping and self.journal.round_is_open):
                await self.journal.abandon_round()
                self._abandon(round, tally)
                self._take_back(round)
            return False
        listened = self.clock()
        model, memory = await self._aside(self.gate.spec.nbytes, self._next_model, round, tally)
        averaged = self.clock()
        self.newest = await self.journal.commit(
            number=round.number, attempt=round.attempt, model=model, memory=memory, counted=round.answered
        )
        self.feed.publish(
            RoundCommitted(
                round=round.number,
                model=self.newest.sha256,
                listened=listened - tally.started,
                averaged=averaged - listened,
                saved=self.clock() - averaged,
            )
        )
        by, metrics = await self._evaluate()
        if metrics:
            await self.journal.evaluated(round.number, metrics)
        self._close(round, tally, outcome, by, metrics)
        return True

    async def _ask(self, attempt: int) -> tuple[Round, Tally]:
        """Choose a cohort, write down who it is, and send it the model."""
        number, chosen = self.newest.number + 1, self.clock()
        cohort, goal = select(
            self.roster.ids(Role.TRAINER),
            fraction=self.settings.fraction,
            over_selection=self.settings.over_selection,
            seed=self.settings.seed,
            round=number,
            attempt=attempt,
        )
        asked = tuple(sorted(cohort))
        opening = Opening(
            run=self.run,
            round=number,
            attempt=attempt,
            model=self.newest.sha256,
            cohort=asked,
            goal=goal,
            quorum=quorum_of(goal, share=self.settings.quorum),
            seconds=self.deadline,
            weight_cap=weight_cap([self.roster.examples(edge) for edge in asked], most=self.settings.max_examples),
            algorithm=self.algorithm.name,
            plan=self.plan,
            fleet=self.roster.count(Role.TRAINER),
            averaged=tuple(sorted(self.averaged)),
        )
        if self.settings.durability == "update":
            await self.journal.open_round(opening)
        round, tally = self._open(opening, seconds=opening.seconds, elapsed=0.0, chosen=chosen)
        self.feed.publish(
            RoundStarted(
                round=number,
                attempt=attempt,
                cohort=asked,
                goal=goal,
                quorum=opening.quorum,
                seconds=opening.seconds,
            )
        )
        for edge in asked:
            self.roster.offer(edge, tally.task)
        return round, tally

    async def _reopen(self, spooled: Spooled) -> tuple[Round, Tally]:
        """Go on with the round that was open: its cohort, its answers, and the time that was left after the last."""
        opening, elapsed, allowed = spooled.opening, 0.0, spooled.opening.seconds
        for kept, _ in spooled.updates:
            if kept.after >= elapsed:
                elapsed, allowed = kept.after, kept.allowed or opening.seconds
        seconds = max(0.0, allowed - elapsed)
        round, tally = self._open(opening, seconds=seconds, elapsed=elapsed, chosen=self.clock())
        for kept, message in spooled.updates:
            heard = decode(message, ToHub, max_tensors=len(self.gate.spec.tensors))
            if isinstance(await self._aside(heard.nbytes, self._add, kept.edge, heard, tally), int):
                round.answered.add(kept.edge)
                self._receipt(kept.edge, opening.round, opening.attempt)
        self.feed.publish(
            RoundReopened(
                round=opening.round,
                attempt=opening.attempt,
                cohort=opening.cohort,
                answered=tuple(sorted(round.answered)),
                goal=opening.goal,
                quorum=opening.quorum,
                seconds=seconds,
                elapsed=elapsed,
            )
        )
        for edge in sorted(round.awaited):
            self.roster.offer(edge, tally.task)
        return round, tally

    def _open(self, opening: Opening, *, seconds: float, elapsed: float, chosen: float) -> tuple[Round, Tally]:
        now = self.clock()
        self._refusals.clear()
        began = now - elapsed
        sent = wire(self.algorithm, self.newest, self.averaged)
        self.movements.begin(opening.round, opening.attempt, began)
        round = Round(
            number=opening.round,
            attempt=opening.attempt,
            cohort=frozenset(opening.cohort),
            goal=opening.goal,
            quorum=opening.quorum,
            deadline=now + seconds,
        )
        tally = Tally(
            opening=opening,
            sums=Adding(self.algorithm, self.gate, opening, self.newest),
            chosen=chosen,
            started=began,
            bytes_before=Traffic(self.traffic.sent, self.traffic.received),
            sent=sent,
            task=self._training(round, now, sent),
        )
        return round, tally

    def _training(self, round: Round, now: float, sent: Tensors) -> Broadcast:
        return _broadcast(
            Train(
                run=self.run,
                round=round.number,
                attempt=round.attempt,
                model=self.newest.sha256,
                seconds=max(0.0, round.deadline - now),
                plan=self.plan,
            ),
            sent,
        )

    async def _listen(self, round: Round, tally: Tally) -> Outcome:
        """Hear everything until the round is over. An item's time is when it arrived, not when it is read."""
        now = self.clock()
        while (outcome := round.outcome(now)) is None:
            if self.inbox.empty:
                await self._settle(tally)  # updates that come together share one sync
            item = await self.inbox.next(until=round.deadline)
            now = item.arrived if item else self.clock()
            match item:
                case None:
                    pass
                case Answered(edge, Decoded(Update()) as heard, arrived):
                    await self._examine(edge, heard, arrived, round, tally)
                case Answered():
                    pass  # an evaluation that nobody waits for any more
                case Left() | Joined() if now < tally.chosen:
                    pass  # before the cohort was chosen from who is here
                case Left(edge):
                    round.out.add(edge)
                case Joined(edge):
                    self._welcome_back(edge, round, tally)
                case Told():
                    if self._obey(item, round, tally) and item.order.action == "next":
                        outcome = Outcome.CUT_SHORT
                        break
                case Stop():
                    self.stopping = True
                    self.feed.publish(
                        StopRequested(round=round.number, answered=len(round.answered), asked=len(round.cohort))
                    )
                    outcome = Outcome.STOPPED if round.has_quorum else Outcome.TOO_FEW_ANSWERED
                    break
                case _:
                    assert_never(item)
        await self._settle(tally)
        self.movements.end()
        self.inbox.done()  # what comes now is the next model, and the memory of the last update may be its
        return outcome

    def _welcome_back(self, edge: str, round: Round, tally: Tally) -> None:
        """Await an edge of the cohort again that was gone for a while; if it still trains, it just goes on."""
        if edge in round.cohort - round.answered and edge not in tally.refused:
            round.out.discard(edge)
            self.roster.offer(edge, self._training(round, self.clock(), tally.sent))

    async def _examine(self, edge: str, heard: Decoded[Update], arrived: float, round: Round, tally: Tally) -> None:
        """Check an update, then add it, then count it; it is acknowledged when it is durable."""
        update = heard.message
        verdict = self.gate.standing(update, edge=edge, arrived=arrived, round=round, model=self.newest.sha256)
        if verdict is None:
            judged = await self._aside(heard.nbytes, self._add, edge, heard, tally)
            if isinstance(judged, int):
                round.answered.add(edge)
                after = arrived - tally.started
                await self.journal.keep(
                    Kept(edge=edge, after=after, allowed=round.deadline - tally.started), heard.data
                )
                accepted = UpdateAccepted(
                    round=round.number,
                    edge=edge,
                    examples=int(update.examples),
                    weight=judged,
                    loss=update.metrics["loss"],
                    seconds=after,
                    nbytes=heard.nbytes,
                )
                tally.unsettled.append((update, accepted))
                return
            verdict = judged
        if verdict.code is Code.DUPLICATE and tally.prints.get(edge) == fingerprint(heard.data):
            await self._settle(tally)
            self._receipt(edge, update.round, update.attempt)  # the same again: only its receipt was lost
            return
        if verdict.code in FINAL:
            round.out.add(edge)
            tally.refused[edge] = verdict.code
        self._refuse(edge, update, verdict, heard.nbytes, after=arrived - tally.started)

    def _add(self, edge: str, heard: Decoded[Update], tally: Tally) -> int | Refusal:
        """Look at the numbers and add them up: passes over the data, so in a thread. Give the update's weight."""
        weight = tally.sums.add(heard)
        if isinstance(weight, Refusal):
            return weight
        tally.prints[edge] = fingerprint(heard.data)
        tally.weight += weight
        tally.loss += weight * heard.message.metrics["loss"]
        return weight

    async def _aside(self, nbytes: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Work on so many bytes in a thread, unless that takes less time than going there (0.1 ms)."""
        return work(*args, **kwargs) if nbytes <= _LITTLE else await asyncio.to_thread(work, *args, **kwargs)

    async def _settle(self, tally: Tally) -> None:
        """Make the updates that count durable, and only then acknowledge them."""
        if tally.unsettled:
            await self.journal.settle()
            self.movements.flush()
        for update, accepted in tally.unsettled:
            self._receipt(accepted.edge, update.round, update.attempt)
            self.feed.publish(accepted)
        tally.unsettled.clear()

    def _refuse(self, edge: str, update: Update, refusal: Refusal, nbytes: int, *, after: float | None = None) -> None:
        """Tell the edge and everybody; an edge that goes on and on would fill the log and the disk, and is cut off."""
        self._refusals[edge] += 1
        if self._refusals[edge] > _MOST_REFUSALS:
            self.roster.cut(edge)
            return
        self._receipt(edge, update.round, update.attempt, refusal.code, refusal.reason)
        self.movements.flush()
        self.feed.publish(
            UpdateRefused(
                round=update.round,
                edge=edge,
                code=refusal.code,
                reason=refusal.reason,
                attempt=update.attempt,
                final=refusal.code in FINAL,
                seconds=after,
                nbytes=nbytes,
            )
        )

    def _receipt(self, edge: str, round: int, attempt: int, code: str = "", reason: str = "") -> None:
        """Tell an edge what became of its update; what it remembers depends on some of that."""
        receipt = Receipt(run=self.run, round=round, attempt=attempt, accepted=not code, code=code, reason=reason)
        tell = self.roster.impress if code in ("", ABANDONED) else self.roster.say
        tell(edge, receipt)

    def _next_model(self, round: Round, tally: Tally) -> tuple[Tensors, Tensors]:
        """Take the server step.

        Raises:
            Diverged: it led to numbers that are none.
        """
        model, memory = tally.sums.next_model(self.newest)
        for name, array in (*model.items(), *memory.items()):  # a memory of infinity would never move its model again
            if array.dtype.kind not in "biu" and not math.isfinite(magnitude(array)):
                raise Diverged(
                    f"round {round.number} of {self.algorithm.name} would make {name} infinite or NaN: training "
                    f"diverges, a smaller lr (or server_lr) may help. The model of round {self.newest.number} is saved"
                )
        return model, memory

    def _take_back(self, round: Round) -> None:
        """Tell those whose updates were accepted that they do not count after all: what they keep depends on it."""
        reason = f"too few answered round {round.number}; it is asked again"
        for edge in sorted(round.answered):
            self._receipt(edge, round.number, round.attempt, ABANDONED, reason)

    def _abandon(self, round: Round, tally: Tally) -> None:
        late, left = self._missing(round, tally)
        self.feed.publish(
            RoundAbandoned(
                round=round.number,
                attempt=round.attempt,
                asked=len(round.cohort),
                answered=len(round.answered),
                needed=round.quorum,
                again=not self.stopping
                and (self._abandoned < self.settings.retries or self.deadline < self.settings.deadline),
                seconds=self.clock() - tally.started,
                bytes_down=self.traffic.sent - tally.bytes_before.sent,
                bytes_up=self.traffic.received - tally.bytes_before.received,
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
                loss=tally.loss / tally.weight if tally.weight and math.isfinite(tally.loss) else None,
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
        gone = (round.cohort & round.out) - round.answered - set(tally.refused)
        return tuple(sorted(round.awaited)), tuple(sorted(gone))

    async def _evaluate(self) -> tuple[Literal["", "central", "federated"], dict[str, float]]:
        """Have the new model measured: by evaluators if any are here, else by edges on what they hold out."""
        number = self.newest.number
        if number % self.settings.evaluate_every and number != self.settings.rounds:
            return "", {}
        asked = [] if self.algorithm.personal else self.roster.ids(Role.EVALUATOR)
        by: Literal["central", "federated"] = "central"
        if not asked and self.plan.holdout > 0:
            asked, by = self.roster.ids(Role.TRAINER), "federated"
        if not asked:
            return "", {}
        deadline = self.clock() + self.settings.evaluation_deadline
        task = _broadcast(
            Evaluate(
                run=self.run,
                round=number,
                model=self.newest.sha256,
                seconds=self.settings.evaluation_deadline,
                plan=self.plan,
            ),
            wire(self.algorithm, self.newest, self.averaged),
        )
        for edge in asked:
            self.roster.offer(edge, task)
        awaited, answers = set(asked), dict[str, Evaluation]()
        while awaited and not self.stopping:
            item = await self.inbox.next(until=deadline)
            match item:
                case None:
                    break
                case Answered(edge, Decoded(Evaluation() as evaluation)) if evaluation.model == task.task.model:
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
            case Answered(edge, Decoded(Update() as update) as heard):
                reason = f"round {update.round} was over when the update arrived"
                self._refuse(edge, update, Refusal(Code.LATE, reason), heard.nbytes)
            case Told():
                self._obey(item)
            case Answered() | Joined() | Left() | None:
                pass
            case _:
                assert_never(item)

    def _obey(self, told: Told, round: Round | None = None, tally: Tally | None = None) -> bool:
        """Do what the operator wants, unless it cannot be done; tell which."""
        order, session = told.order, self.roster.get(told.order.edge)
        elapsed = self.clock() - tally.started if tally else 0.0
        if why_not := unable(order, round, here=session is not None, elapsed=elapsed):
            told.reply(Reply(done=False, reason=why_not))
            return False
        match order.action:
            case "pause" | "resume":
                self.paused = order.action == "pause"
            case "deadline":
                self.deadline = order.seconds
                if round and tally:
                    round.deadline = tally.started + order.seconds
            case "drop":
                assert session, "an order to drop nobody cannot be carried out"
                self.roster.send_away(session, Farewell.REFUSED, "the operator sent this edge away")
            case "stop":
                self.inbox.post(Stop(told.arrived))
            case "next":
                pass  # whoever listens to the round closes it
            case _:
                assert_never(order.action)
        self.feed.publish(
            Ordered(
                action=order.action,
                round=round.number if round else self.newest.number,
                edge=order.edge if order.action == "drop" else "",
                seconds=order.seconds if order.action == "deadline" else 0.0,
            )
        )
        told.reply(Reply(done=True, reason=""))
        return True


def _broadcast(task: Train | Evaluate, sent: Tensors) -> Broadcast:
    return Broadcast(task, full=encode(task, sent.values()), light=encode(task))


def fingerprint(message: memoryview) -> bytes:
    """Tell one update of an edge from another, by its head and its ends: two trainings differ everywhere.

    All of 6.65 MB would take 0.3 ms, and an edge that fakes this gains a receipt for what it has sent before.
    """
    return xxhash.xxh3_128_digest(bytes(message[:_ENDS]) + bytes(message[-_ENDS:]))


def weighted(evaluations: list[Evaluation]) -> dict[str, float]:
    """Give the mean of each metric that every evaluation has, weighted by examples; nonsense does not count.

    Nor does what is too large to be added: facts hold finite numbers.
    """
    sound = [
        one
        for one in evaluations
        if 0 < one.examples < 2**53 and all(value - value == 0 for value in one.metrics.values())
    ]
    if not sound:
        return {}
    total = sum(one.examples for one in sound)
    names = sorted(set.intersection(*(set(one.metrics) for one in sound)))
    means = {name: sum(one.examples * one.metrics[name] for one in sound) / total for name in names}
    return {name: mean for name, mean in means.items() if math.isfinite(mean)}
