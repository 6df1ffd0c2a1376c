"""Algorithms are found by the names people write, and a name that is almost right is answered with the right one."""

import pytest

from hub.aggregation.catalogue import NAMES, algorithm
from shared.errors import ConfigError


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_the_catalogue_is_an_algorithm(name: str) -> None:
    assert algorithm(name, lr=0.1).name == name


def test_the_learning_rate_is_that_of_the_hubs_step_where_the_hub_takes_one() -> None:
    assert algorithm("fedsgd", lr=0.1) != algorithm("fedsgd", lr=0.2)
    assert algorithm("fedavg", lr=0.1) == algorithm("fedavg", lr=0.2)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("FedAvg", "algorithm: 'FedAvg' is not known; did you mean 'fedavg'?"),
        ("fedsdg", "algorithm: 'fedsdg' is not known; did you mean 'fedsgd'?"),
        ("magic", "algorithm: 'magic' is not known; there are fedavg, fedsgd"),
    ],
)
def test_any_other_name_is_answered_with_those_there_are(name: str, answer: str) -> None:
    with pytest.raises(ConfigError) as error:
        algorithm(name, lr=0.1)
    assert str(error.value) == answer
