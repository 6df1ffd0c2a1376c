"""A simulated device is as slow, unreliable and hostile as its profile says, and the same seed is the same fate."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from edge.learner import Holdings, Measured, Trained, WentAway
from edge.swarm.device import BUILT_IN, Profile, SimulatedDevice, assign, read_profiles
from shared.errors import ConfigError
from shared.messages import Evaluate, Train
from shared.tensors import Array, Tensors
from tests.support.federation import MODEL, Adder
from tests.support.tiny import plan


def task(round: int, attempt: int = 1) -> Train:
    return Train(run="r", round=round, attempt=attempt, model="0" * 64, seconds=9.0, plan=plan())


@dataclass
class Knows:
    """A learner that has learned just this, whatever it was given."""

    learned: Tensors

    async def train(self, task: Train, model: Tensors, *, share: float = 1.0) -> Trained:
        return Trained(self.learned, 7, {"loss": 0.5})


def device(profile: Profile, *, learner: Adder | Knows | None = None, seed: int = 0, index: int = 0) -> SimulatedDevice:
    return SimulatedDevice(learner or Adder(), profile, seed, index)


async def fate(profile: Profile, *, seed: int = 0, index: int = 0, rounds: int = 60) -> list[object]:
    """Play rounds; give what became of each: trained, or away for how many seconds."""
    one, fates = device(profile, seed=seed, index=index), []
    for number in range(rounds):
        try:
            fates.append((await one.train(task(number), MODEL)).examples)
        except WentAway as away:
            fates.append(away.seconds)
    return fates


# --- profiles ---


def test_the_profiles_inside_the_package_can_be_read_and_the_first_costs_nothing() -> None:
    profiles = read_profiles(BUILT_IN)
    assert {"instant", "laptop", "phone", "slow", "flaky"} <= set(profiles)
    assert profiles["instant"] == Profile()
    assert profiles["slow"].train > profiles["phone"].train > profiles["laptop"].train > 0
    assert {name: profile.pull for name, profile in profiles.items() if profile.pull != 1} == {
        "flipping": -1,
        "hostile": -4,
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[a]\ntrian = 1.0", "are wrong: Object contains unknown field `trian`"),
        ("[a]\nleave = 1.5", "are wrong: Expected `float` <= 1.0"),
        ("[a]\ntrain = -1", "are wrong: Expected `float` >= 0.0"),
        ("[a]\ntrain = 'long'", "are wrong: Expected `float`, got `str`"),
        ("[a\n", "are wrong: "),
        ("a = 3", "are wrong: Expected `object`, got `int`"),
    ],
)
def test_profiles_of_ones_own_that_are_wrong_are_answered_with_file_and_reason(
    tmp_path: Path, text: str, sentence: str
) -> None:
    file = tmp_path / "my.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_profiles(file)
    assert str(caught.value).startswith(f"the profiles in {file} {sentence}")


def test_a_file_of_profiles_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^cannot read the profiles in .*: No such file or directory"):
        read_profiles(tmp_path / "none.toml")


def test_a_mix_is_dealt_in_turn() -> None:
    profiles = read_profiles()
    names = [name for name, _ in assign("laptop:2, slow,flaky:1", profiles, 6)]
    assert names == ["laptop", "laptop", "slow", "flaky", "laptop", "laptop"]
    assert assign("phone", profiles, 3) == [("phone", profiles["phone"])] * 3


@pytest.mark.parametrize(
    ("mix", "sentence"),
    [
        ("phne", "there is no device profile 'phne'; there are instant, laptop, phone, slow, flaky"),
        ("", "there is no device profile ''; there are instant"),
        ("laptop:2,,slow", "there is no device profile ''; there are instant"),
        ("laptop:many", "'laptop:many' in --profile is not like laptop:3"),
        ("laptop:-1", "'laptop:-1' in --profile is not like laptop:3"),
        ("laptop:0", "--profile names no device; write it like phone or laptop:7,slow:2"),
    ],
)
def test_a_mix_that_cannot_be_is_answered_with_what_to_write(mix: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        assign(mix, read_profiles(), 3)
    assert str(caught.value).startswith(sentence)


# --- fates ---

UNRELIABLE = Profile(leave=0.3, away=2.0)


async def test_the_same_seed_is_the_same_fate_and_another_device_or_seed_has_another() -> None:
    first, again = await fate(UNRELIABLE, seed=1), await fate(UNRELIABLE, seed=1)
    assert first == again
    assert first != await fate(UNRELIABLE, seed=2)
    assert first != await fate(UNRELIABLE, seed=1, index=1)


async def test_a_fate_happens_as_often_as_the_profile_says() -> None:
    fates = await fate(UNRELIABLE, rounds=1000)
    away = [seconds for seconds in fates if isinstance(seconds, float)]
    assert 250 < len(away) < 350
    assert 1.6 < sum(away) / len(away) < 2.4


async def test_a_device_that_left_in_a_round_stays_when_it_is_back_in_the_same_try_but_not_for_ever() -> None:
    leaver = device(Profile(leave=1.0, away=0.0))
    with pytest.raises(WentAway):
        await leaver.train(task(1), MODEL)
    assert (await leaver.train(task(1), MODEL)).examples == 1
    for other in (task(1, attempt=2), task(2)):
        with pytest.raises(WentAway):
            await leaver.train(other, MODEL)


async def test_a_device_that_drops_out_says_nothing_until_it_is_told_to_stop() -> None:
    learner = Adder()
    silent = device(Profile(dropout=1.0), learner=learner)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(silent.train(task(1), MODEL), 0.05)
    assert learner.trained == []


async def test_a_device_takes_as_long_as_its_profile_says_over_training_and_its_line() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    nbytes = sum(array.nbytes for array in MODEL.values())
    await device(Profile(train=0.05, down=nbytes / 0.02, up=nbytes / 0.03)).train(task(1), MODEL)
    assert loop.time() - began >= 0.099


async def test_a_straggler_takes_as_many_times_as_long_and_jitter_stays_within_its_bounds() -> None:
    loop = asyncio.get_running_loop()
    for profile, least in ((Profile(train=0.02, straggle=1.0, straggle_by=4.0), 0.079), (Profile(train=0.05), 0.049)):
        began = loop.time()
        await device(profile).train(task(1), MODEL)
        assert loop.time() - began >= least
    began = loop.time()
    await device(Profile(train=0.1, jitter=0.5)).train(task(1), MODEL)
    assert loop.time() - began >= 0.049


@pytest.mark.parametrize("kind", ["float32", "float64", "float16", ml_dtypes.bfloat16])
@pytest.mark.parametrize("learned", [[1.5, -2.0, 0.0], 1.5, []])
async def test_a_hostile_device_sends_its_floats_times_its_pull_in_their_own_type(kind: str, learned: object) -> None:
    honest: Array = np.array(learned, kind)
    hostile = await device(Profile(pull=-4.0), learner=Knows({"w": honest})).train(task(1), {"w": honest})
    sent = hostile.tensors["w"]
    assert (sent.dtype, sent.shape) == (honest.dtype, honest.shape)
    assert (sent == np.array(learned, "float64") * -4.0).all()
    assert (hostile.examples, hostile.metrics) == (7, {"loss": 0.5})


async def test_a_hostile_device_leaves_integers_and_booleans_and_what_it_learned_alone() -> None:
    learned = {"steps": np.array(3), "seen": np.array([True, False]), "w": np.ones(2, "float32")}
    hostile = device(Profile(pull=-1.0), learner=Knows(learned))
    for _ in range(2):
        sent = (await hostile.train(task(1), learned)).tensors
        assert sent["steps"] == 3
        assert sent["seen"].tolist() == [True, False]
        assert sent["w"].tolist() == [-1, -1]


async def test_an_honest_device_sends_what_was_learned() -> None:
    learned = {"w": np.ones(2, "float32")}
    sent = await device(Profile(), learner=Knows(learned)).train(task(1), learned)
    assert sent.tensors is learned


async def test_a_device_prepares_and_measures_as_its_learner_does() -> None:
    welcome = object()
    one = device(Profile(leave=1.0), learner=Adder(examples=3, metrics=lambda model: {"accuracy": 1.0}))
    assert await one.prepare(welcome) == Holdings(3, 300)
    evaluate = Evaluate(run="r", round=1, model="0" * 64, seconds=1.0, plan=plan())
    assert await one.evaluate(evaluate, MODEL) == Measured(3, {"accuracy": 1.0})


# --- partial work ---


@dataclass
class Notes:
    """A learner that notes how much of the work it was to do."""

    shares: list[float]

    async def train(self, task: Train, model: Tensors, *, share: float = 1.0) -> Trained:
        self.shares.append(share)
        return Trained({}, 1, {"loss": 0.5})


@pytest.mark.parametrize(("partial", "share"), [(True, 0.2), (False, 1.0)])
async def test_a_slow_device_does_as_many_tenths_as_it_has_time_for_where_that_is_wanted(
    partial: bool, share: float
) -> None:
    # 0.8 of 0.25 s are 0.2 s, of the 0.9 s that it would take: two tenths.
    seen: list[float] = []
    slow = SimulatedDevice(Notes(seen), Profile(train=0.9), 0, 0)  # type: ignore[arg-type]
    how = plan(local="fedprox", settings={"mu": 0.1, "partial": partial})
    await slow.train(Train(run="r", round=1, attempt=1, model="0" * 64, seconds=0.25, plan=how), MODEL)
    assert seen == [share]
