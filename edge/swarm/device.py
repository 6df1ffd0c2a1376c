"""A simulated device: how slow and unreliable it is, all from one seed, and whether it spoils what it sends."""

import asyncio
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from edge.learner import IN_TIME, Holdings, Learner, Measured, Trained, WentAway
from shared.errors import ConfigError
from shared.messages import Evaluate, Train, Welcome
from shared.tensors import Array, ModelSpec, Tensors

BUILT_IN = Path(__file__).with_name("profiles.toml")

Probability = Annotated[float, Meta(ge=0, le=1)]
NotNegative = Annotated[float, Meta(ge=0)]


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of device; see `profiles.toml` for the meaning and unit of each value."""

    train: NotNegative = 0.0
    jitter: Probability = 0.0
    straggle: Probability = 0.0
    straggle_by: NotNegative = 1.0
    down: NotNegative = 0.0
    up: NotNegative = 0.0
    dropout: Probability = 0.0
    leave: Probability = 0.0
    away: NotNegative = 1.0
    pull: float = 1.0


def read_profiles(path: Path = BUILT_IN) -> dict[str, Profile]:
    """Read device profiles by name from a TOML file.

    Raises:
        ConfigError: the file cannot be read or says something impossible.
    """
    try:
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), dict[str, Profile])
    except OSError as error:
        raise ConfigError(f"cannot read the profiles in {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"the profiles in {path} are wrong: {error}") from None


def assign(mix: str, profiles: dict[str, Profile], count: int) -> list[tuple[str, Profile]]:
    """Give each of `count` devices a profile: `phone` for all, or `laptop:7,slow:2,flaky:1` in that order, repeated.

    Raises:
        ConfigError: the mix names no such profile, or a count is not a number.
    """
    pattern: list[str] = []
    for part in mix.split(","):
        name, _, number = part.strip().partition(":")
        if name not in profiles:
            raise ConfigError(f"there is no device profile {name!r}; there are {', '.join(profiles)}")
        if number and not number.isdecimal():
            raise ConfigError(f"{part!r} in --profile is not like {name}:3")
        pattern += [name] * int(number or 1)
    if not pattern:
        raise ConfigError("--profile names no device; write it like phone or laptop:7,slow:2")
    return [(name, profiles[name]) for name in (pattern[index % len(pattern)] for index in range(count))]


@dataclass
class SimulatedDevice:
    """A learner that is as slow, unreliable and hostile as its profile says.

    What happens in a round depends on the seed, the device's index and the round alone, so a run can be repeated.

    Args:
        learner: does the real work.
        profile: what kind of device it is.
        seed: of the swarm.
        index: of this device in it.
    """

    learner: Learner
    profile: Profile
    seed: int
    index: int
    _left_in: tuple[int, int] | None = None

    async def prepare(self, welcome: Welcome) -> Holdings:
        """Get ready, as the learner does."""
        return await self.learner.prepare(welcome)

    async def train(self, task: Train, model: Tensors, *, share: float = 1.0) -> Trained:
        """Train, and take as long as this device would; or go away, or say nothing.

        Where the plan takes partial work (FedProx), a device that would miss the deadline does as many tenths of it as
        it has time for.

        Raises:
            WentAway: the device loses its connection in this round.
        """
        device, dice = self.profile, np.random.default_rng([self.seed, self.index, task.round, task.attempt])
        seconds = device.train * (1.0 + device.jitter * dice.uniform(-1.0, 1.0))
        if dice.random() < device.straggle:
            seconds *= device.straggle_by
        size = ModelSpec.of(model).nbytes
        # Back in the same round it stays: the same dice would send it away again and again.
        if dice.random() < device.leave and (task.round, task.attempt) != self._left_in:
            self._left_in = (task.round, task.attempt)
            await asyncio.sleep(seconds * dice.random())
            raise WentAway(float(dice.exponential(device.away)))
        if dice.random() < device.dropout:
            await asyncio.Event().wait()  # until a newer task comes
        loop = asyncio.get_running_loop()
        began = loop.time()
        line = (size / device.down if device.down else 0.0) + (size / device.up if device.up else 0.0)
        left = max(0.0, IN_TIME * task.seconds - line)
        if task.plan.settings.get("partial") and seconds > left:
            share, seconds = max(1, int(10 * left / seconds)) / 10, left
        trained = await self.learner.train(task, model, share=share)
        if device.pull != 1.0:
            spoiled = {name: times(array, device.pull) for name, array in trained.tensors.items()}
            trained = replace(trained, tensors=spoiled)
        await asyncio.sleep(max(0.0, seconds - (loop.time() - began)) + line)
        return trained

    async def evaluate(self, task: Evaluate, model: Tensors) -> Measured:
        """Measure, as the learner does."""
        return await self.learner.evaluate(task, model)


def times(array: Array, factor: float) -> Array:
    """Multiply floats, in their own type; integers and booleans are given as they are."""
    return array if array.dtype.kind in "biu" else np.asarray(array * factor, array.dtype)
