"""Runs a swarm: an agent for each phone, all in one event loop, with one import of torch and one thread to train."""

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from edge.agent import Agent, Patience
from edge.app import App
from edge.memory import Memory
from edge.swarm.device import Profile, SimulatedDevice
from edge.torch_learner import TorchLearner, Workshop
from shared.errors import TurnedAway
from shared.messages import Role

_LAST_ORDERS = 1.0  # seconds that phones have to hear the goodbye that one of them has heard

Life = asyncio.Task[None]


@dataclass(frozen=True)
class Swarm:
    """A swarm of phones, and perhaps an evaluator among them.

    Args:
        url: of the hub.
        app: what to train.
        devices: name and profile of each phone's device.
        prefix: phones are called `prefix-01`, `prefix-02`, ...
        seed: of the devices' dice.
        evaluator: whether one more edge holds the app's test data.
        device: where torch computes.
        options: text options for the app.
        patience: how long to try to reach the hub.
        keep: folder in which phones keep what they remember from round to round, if it is to outlive this process.
        tell: takes a line for the log.
    """

    url: str
    app: App
    devices: list[tuple[str, Profile]]
    prefix: str
    seed: int
    evaluator: bool
    device: str
    options: dict[str, str]
    patience: Patience
    tell: Callable[[str], None]
    keep: Path | None = None

    async def live(self) -> None:
        """Serve the hub with all phones until it is done; what ends one phone for good ends the swarm.

        Raises:
            Unreachable, TurnedAway, ConfigError: as an agent does.
        """
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="training") as executor:
            workshop = Workshop(self.app, device=self.device, executor=executor)
            agents = [self._phone(index, workshop) for index in range(len(self.devices))]
            if self.evaluator:
                judge = self._learner("", Role.EVALUATOR, 0, workshop)
                agents.append(self._agent(f"{self.prefix}-evaluator", judge, "evaluator", judge.memory))
            lives = [asyncio.create_task(agent.live()) for agent in agents]
            try:
                ended, others = await self._first_to_end(set(lives))
                for life in ended:
                    life.result()
                if others:  # one that is away when the hub says that the run is over would wait for it in vain
                    ended, _ = await asyncio.wait(others, timeout=_LAST_ORDERS)
                    for life in ended:
                        life.result()
            finally:
                for life in lives:
                    life.cancel()
                await asyncio.gather(*lives, return_exceptions=True)

    async def _first_to_end(self, lives: set[Life]) -> tuple[set[Life], set[Life]]:
        """Wait for the first phone whose life ends; give it, and those that go on.

        One that the hub sends away is no reason for the others to end, unless all are.
        """
        while True:
            ended, lives = await asyncio.wait(lives, return_when=asyncio.FIRST_COMPLETED)
            reasons = [life.exception() for life in ended]
            if not (lives and all(isinstance(reason, TurnedAway) for reason in reasons)):
                return ended, lives
            for reason in reasons:
                self.tell(str(reason))

    def _phone(self, index: int, workshop: Workshop) -> Agent:
        width = max(2, len(str(len(self.devices))))
        name = f"{self.prefix}-{index + 1:0{width}d}"
        kind, profile = self.devices[index]
        learner = self._learner(name, Role.TRAINER, index, workshop)
        return self._agent(name, SimulatedDevice(learner, profile, self.seed, index), kind, learner.memory)

    def _learner(self, name: str, role: Role, index: int, workshop: Workshop) -> TorchLearner:
        memory = Memory(self.keep, name)
        return TorchLearner(workshop, name, role, index, len(self.devices), self.options, memory)

    def _agent(self, name: str, learner: TorchLearner | SimulatedDevice, kind: str, memory: Memory) -> Agent:
        role = Role.TRAINER if isinstance(learner, SimulatedDevice) else learner.role
        dice = random.Random(f"{self.seed} {name}")
        return Agent(
            url=self.url,
            edge=name,
            role=role,
            learner=learner,
            patience=self.patience,
            dice=dice,
            tell=lambda line: self.tell(f"{name}: {line}"),
            kind=kind,
            memory=memory,
        )
