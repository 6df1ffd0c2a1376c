"""Large fleets on the virtual clock: many edges that come and go, and all of them at once when the hub is back."""

import asyncio
import gc
import random
from collections import Counter
from dataclasses import dataclass

from edge.agent import Agent, Patience
from edge.learner import Trained, WentAway
from edge.memory import Memory
from hub.events import EdgeJoined, RoundAbandoned
from shared.messages import Role, Train
from shared.tensors import Tensors
from tests.simulation.edges import PureLearner
from tests.simulation.world import Report, Scenario, World

_URL = "ws://127.0.0.1:8765"


@dataclass
class Leaver(PureLearner):
    """A phone that goes offline in the middle of some trainings.

    Args:
        leaves: the share of them.
    """

    dice: random.Random = random.Random(0)
    leaves: float = 0.0

    async def train(self, task: Train, model: Tensors) -> Trained:
        if self.dice.random() < self.leaves:
            await asyncio.sleep(self.dice.uniform(0.0, 2.0))
            self.incarnation += 1_000_000  # it gives its work up, so it may begin again
            raise WentAway(self.dice.uniform(0.5, 5.0))
        return await super().train(task, model)


class Fleet(World):
    """Many edges, no faults but those that are asked for.

    Args:
        seed: of everything.
        edges: how many.
        rounds: how many are played.
        leaves: share of trainings in which the edge goes offline.
        outage: seconds for which the hub is away after the second round; 0 for none.
        patience: of the edges.
    """

    def __init__(
        self,
        seed: int,
        *,
        edges: int,
        rounds: int = 100,
        leaves: float = 0.0,
        outage: float = 0.0,
        patience: Patience | None = None,
    ) -> None:
        settings = {"rounds": rounds, "deadline": 60.0, "wait_for": edges, "retries": 0}
        scenario = Scenario(edges, 0, settings, trouble=0.0, every=1.0, slow=0.0, delay=0.02, split=0.0, outage=outage)
        super().__init__(seed, scenario=scenario)
        self.at_peace = True
        self.abandoned = 0
        self.back: list[float] = []
        """When edges were here again after the outage, in seconds since the hub's return."""
        self.knocks: Counter[int] = Counter()
        """How many edges knocked in each second after the hub's return."""
        self._leaves = leaves
        self._patience = patience or Patience(first=1e9, again=1e9)

    async def story(self) -> None:
        """Play all rounds, or as far as the outage and a little beyond."""
        self.start_hub()
        self._expected_end = True
        await asyncio.sleep(1.0)
        for index in range(self.scenario.edges):
            self._start(f"edge-{index:04}", index)
        machine = self.machine
        assert machine is not None
        if not self.scenario.outage:
            await self._until(lambda: not machine.alive, within=1e6, what="the run did not end")
            return
        await self._until(lambda: self.judge.last >= 2, within=1e6, what="two rounds were not played")
        self._power_cut = False
        machine.die()
        await asyncio.sleep(self.scenario.outage)
        back = self.loop.time()
        self._hub_returns(machine)
        self._expected_end = True
        await asyncio.sleep(90.0)
        self.knocks.update(int(at - back) for at in self.network.connects if at > back)
        self.back = [at - back for at in self.back if at > back]

    def heard(self, fact: object) -> None:
        if isinstance(fact, EdgeJoined):
            self.back.append(self.loop.time())
        elif isinstance(fact, RoundAbandoned):
            self.abandoned += 1

    def _start(self, name: str, index: int) -> None:
        dice = random.Random(f"fleet {self.seed} {name}")
        memory = Memory()
        learner = Leaver(name, index, self.referee, lambda: dice.uniform(0.05, 3.0), memory, dice, self._leaves)
        agent = Agent(
            url=_URL,
            edge=name,
            role=Role.TRAINER,
            learner=learner,
            memory=memory,
            patience=self._patience,
            dice=dice,
            tell=lambda line: None,
        )
        self.start(self.new_machine(name), lambda: self._edge_life(agent))


def comings_and_goings(*, edges: int, rounds: int, leaves: float, seed: int = 0) -> tuple[Report, int]:
    """Play rounds in each of which a share of the edges leaves; give the report, and how many rounds were lost."""
    world = Fleet(seed, edges=edges, rounds=rounds, leaves=leaves)
    report = world.run()
    gc.collect()
    return report, world.abandoned


@dataclass(frozen=True)
class Storm:
    """What came of a hub's return.

    Args:
        peak: the largest share of the fleet that knocked within one second.
        back: seconds until 95 % of the fleet were here again.
    """

    peak: float
    back: float
    report: Report


def storm(*, edges: int, outage: float = 30.0, seed: int = 0, patience: Patience | None = None) -> Storm:
    """Take the hub away under a fleet and bring it back."""
    world = Fleet(seed, edges=edges, rounds=1000, outage=outage, patience=patience)
    report = world.run()
    gc.collect()
    enough = sorted(world.back)[: int(0.95 * edges)]
    back = enough[-1] if len(enough) == int(0.95 * edges) else float("inf")
    return Storm(max(world.knocks.values(), default=0) / edges, back, report)
