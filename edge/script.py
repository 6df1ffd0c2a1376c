"""Lends rounds to a training script that exists already: `for task in join(url): ... task.reply(...)`."""

import asyncio
import queue
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from edge.agent import Agent, Patience
from edge.learner import Holdings, Measured, Trained
from edge.names import own_name
from shared.console import say
from shared.errors import ConfigError
from shared.messages import Evaluate, Plan, Role, Train, Welcome
from shared.tensors import Array, ModelSpec, Tensors

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Task:
    """One round's work: train from `state_dict()`, then `reply`.

    Args:
        round: number of the round.
        plan: what the operator wants: epochs, batch, learning rate (a script may have its own mind).
        seconds: time left until the round's deadline when the task was made.
    """

    round: int
    plan: Plan
    seconds: float
    _model: Tensors
    _averaged: frozenset[str]
    _answer: "asyncio.Future[Trained]"
    _loop: asyncio.AbstractEventLoop

    def state_dict(self) -> "dict[str, torch.Tensor]":
        """Give the hub's model as tensors of your own, for `load_state_dict`.

        What is not sent (frozen layers, second names of tied ones) is not in it: load it with `strict=False` then.
        """
        from edge.arrays import to_torch

        return {name: to_torch(array) for name, array in self._model.items()}

    def reply(self, state_dict: "Mapping[str, torch.Tensor]", *, examples: int, loss: float) -> None:
        """Hand in the trained model; with FedSGD the hub gets the gradient that one step of `plan.lr` would have had.

        Args:
            state_dict: the model after training, as `module.state_dict()` gives it.
            examples: how many examples it was trained on: its weight in the mean.
            loss: the mean training loss, for the log.

        Raises:
            ConfigError: the state dict is not of the hub's model.
        """
        from edge.arrays import moved, to_numpy

        whole = set(self._model) <= set(state_dict)  # there may be more, which is frozen or has a second name
        after = {name: to_numpy(state_dict[name]) for name in (self._model if whole else state_dict)}
        difference = ModelSpec.of(self._model).difference(ModelSpec.of(after))
        if difference:
            raise ConfigError(f"the replied state dict is not of the hub's model: it has {difference}")
        descended = frozenset(self._model) - self._averaged if self.plan.local == "gradient" else frozenset[str]()
        tensors = {
            name: moved(after[name], before, -1.0 / self.plan.lr if name in descended else 1.0)
            for name, before in self._model.items()
        }
        trained = Trained(tensors, int(examples), {"loss": float(loss)})
        with suppress(RuntimeError):  # the hub was done while the script trained, and the loop is closed
            self._loop.call_soon_threadsafe(self._hand_in, trained)

    def _hand_in(self, trained: Trained) -> None:
        if not self._answer.done():  # a task that a newer one replaced has nobody waiting
            self._answer.set_result(trained)


class _Lent:
    """A learner whose work is done elsewhere: tasks go into a queue, answers come back as futures."""

    def __init__(self, tasks: "queue.Queue[Task | BaseException | None]", examples: int) -> None:
        self._tasks = tasks
        self._examples = examples
        self._averaged = frozenset[str]()

    async def prepare(self, welcome: Welcome) -> Holdings:
        if welcome.plan.local not in ("sgd", "gradient", "finetune") or welcome.own:
            raise ConfigError(
                f"{welcome.algorithm} has edges do more than train, which a script cannot do for it: "
                "join with an app (fededge join), or have the hub take fedavg or another algorithm of the hub alone"
            )
        self._averaged = frozenset(welcome.spec[place].name for place in welcome.averaged)
        return Holdings(self._examples, 0)

    async def train(self, task: Train, model: Tensors, *, share: float = 1.0) -> Trained:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Trained] = loop.create_future()
        self._tasks.put(Task(task.round, task.plan, task.seconds, model, self._averaged, answer, loop))
        return await answer

    async def evaluate(self, task: Evaluate, model: Mapping[str, Array]) -> Measured:
        return Measured(0, {})


def join(
    url: str, *, name: str | None = None, examples: int = 0, patience: float = 600.0, quiet: bool = False
) -> Iterator[Task]:
    """Join the hub at `url` and give its tasks, one at a time, until it is done.

    The connection lives in a thread of its own, so the hub's pings are answered while the script trains. If the script
    is slower than the rounds, it gets the newest task next. A script that breaks off its loop leaves the hub.

    Args:
        url: such as `ws://192.168.1.20:8765`.
        name: what this edge is called; by default the machine's name and a few random letters.
        examples: how many examples there are here, for the hub's log.
        patience: seconds to wait for a hub that went away.
        quiet: say nothing on stderr; else what `fededge join` says, refusals above all.

    Raises:
        Unreachable, TurnedAway, ConfigError: as `fededge join` does.
    """
    tasks: queue.Queue[Task | BaseException | None] = queue.Queue()
    edge = name or own_name()
    agent = Agent(
        url=url,
        edge=edge,
        role=Role.TRAINER,
        learner=_Lent(tasks, examples),
        patience=Patience(again=patience),
        dice=random.Random(),
        tell=(lambda line: None) if quiet else (lambda line: say(f"{edge}  {line}")),
    )

    leave: Future[Callable[[], object]] = Future()

    async def life() -> None:
        living = asyncio.create_task(agent.live())
        leave.set_result(partial(asyncio.get_running_loop().call_soon_threadsafe, living.cancel))
        await asyncio.wait([living])
        if not living.cancelled():
            living.result()

    def live() -> None:
        try:
            asyncio.run(life())
        except BaseException as error:  # noqa: BLE001  # raised again where the script can see it
            tasks.put(error)
        finally:
            tasks.put(None)

    thread = threading.Thread(target=live, name="fedhub edge", daemon=True)
    thread.start()
    try:
        while (task := tasks.get()) is not None:
            while isinstance(task, Task) and not tasks.empty():
                newer = tasks.get()
                if newer is None:
                    return
                task = newer
            if isinstance(task, BaseException):
                raise task
            yield task
    finally:
        with suppress(RuntimeError):  # the loop is closed already
            leave.result()()
        thread.join()
