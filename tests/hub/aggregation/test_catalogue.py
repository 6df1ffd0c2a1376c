"""Algorithms are found by the names people write, and a name that is almost right is answered with the right one."""

from dataclasses import fields

import pytest

from hub.aggregation.catalogue import CATALOGUE, algorithm
from hub.aggregation.fedadam import FedAdam
from hub.aggregation.fedavgm import FedAvgM
from hub.config import Settings
from shared.errors import ConfigError
from tests.hub.aggregation.quadratic import chosen
from tests.support.algorithms import WRITTEN
from tests.support.examples import PLAN


@pytest.mark.parametrize("written", WRITTEN)
def test_every_algorithm_is_called_as_it_is_written(written: str) -> None:
    assert chosen(written).name == written


def test_there_is_an_example_of_each() -> None:
    assert {name.partition("(")[0] for name in WRITTEN} == set(CATALOGUE)


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_algorithm_says_what_it_and_its_settings_are(name: str) -> None:
    assert CATALOGUE[name].__doc__
    assert all(one.metadata["help"] for one in fields(CATALOGUE[name]))  # type: ignore[arg-type]  # dataclasses all


def test_settings_are_those_that_were_said_and_else_the_papers() -> None:
    assert chosen("fedadam(server_lr=0.03, tau=1e-4)").step == FedAdam(server_lr=0.03, tau=1e-4)
    assert chosen("fedadam").step == FedAdam(beta1=0.9, beta2=0.99, tau=1e-3)
    assert chosen("fedavgm").step == FedAvgM(server_lr=1.0, beta=0.9)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("fedadam()", "fedadam"),
        (" fedadam ( server_lr = 3e-2,tau=1E-4 ) ", "fedadam(server_lr=0.03, tau=0.0001)"),
        ("fedadam(tau=0.00001, server_lr=1,)", "fedadam(server_lr=1.0, tau=1e-05)"),
        ("fedadam(beta1=0.9)", "fedadam"),
    ],
)
def test_the_record_shows_the_exact_algorithm_and_leads_to_the_same_one(written: str, name: str) -> None:
    assert chosen(written).name == name
    assert chosen(name) == chosen(written)


def test_the_learning_rate_is_that_of_the_hubs_step_where_the_hub_takes_one() -> None:
    assert chosen("fedsgd", lr=0.1) != chosen("fedsgd", lr=0.2)
    assert chosen("fedavg", lr=0.1) == chosen("fedavg", lr=0.2)


def test_a_plan_leads_to_the_same_algorithm_as_the_settings_it_was_made_of() -> None:
    settings = Settings(epochs=PLAN.epochs, batch=PLAN.batch, lr=PLAN.lr)
    for name in WRITTEN:
        assert algorithm(name, PLAN) == algorithm(name, settings)


NAMES = ", ".join(CATALOGUE)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("FedAvg", "'FedAvg' is not known; did you mean 'fedavg'?"),
        ("fedsdg", "'fedsdg' is not known; did you mean 'fedsgd'?"),
        ("fedadm(tau=1)", "'fedadm' is not known; did you mean 'fedadam'?"),
        ("magic", f"'magic' is not known; there are {NAMES}"),
        ("fedadam(tua=1)", "fedadam has no setting 'tua'; did you mean 'tau'?"),
        ("fedadam(epsilon=1)", "fedadam has no setting 'epsilon'; there are server_lr, beta1, beta2, tau"),
        ("fedavg(lr=1)", "fedavg has no settings, and so no 'lr'"),
        ("fedadam(server_lr=-1)", "fedadam's server_lr = '-1' is impossible: expected a number > 0.0"),
        ("fedadam(server_lr=0)", "fedadam's server_lr = '0' is impossible: expected a number > 0.0"),
        ("fedavgm(server_lr=1e999)", "fedavgm's server_lr = '1e999' is impossible: "),
        ("fedavgm(server_lr=nan)", "fedavgm's server_lr = 'nan' is impossible: "),
        ("fedavgm(server_lr=fast)", "fedavgm's server_lr = 'fast' is impossible: expected a number"),
        ("fedavgm(beta=1)", "fedavgm's beta = '1' is impossible: expected a number < 1.0"),
        ("fedadam(beta2=-0.1)", "fedadam's beta2 = '-0.1' is impossible: expected a number >= 0.0"),
        ("fedyogi(tau=0)", "fedyogi's tau = '0' is impossible: expected a number > 0.0"),
        ("fedyogi(tau=fedavgm(beta=0))", "fedyogi's tau is a plain value, and fedavgm(...) is none"),
    ],
)
def test_what_cannot_be_is_answered_with_the_setting_and_what_can(text: str, answer: str) -> None:
    with pytest.raises(ConfigError) as error:
        chosen(text)
    assert str(error.value).startswith(f"algorithm: {answer}")
