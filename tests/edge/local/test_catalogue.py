"""Edges know all that the hub's algorithms ask of them, and say in a sentence what they do not know."""

import pytest

from edge.local.catalogue import LOCALS, local_of
from edge.local.fedprox import FedProx
from edge.local.sgd import SGD
from shared.errors import ConfigError
from tests.hub.aggregation.quadratic import chosen
from tests.support.algorithms import WRITTEN
from tests.support.tiny import plan


@pytest.mark.parametrize("written", WRITTEN)
def test_whatever_an_algorithm_of_the_hub_asks_is_known_with_all_its_settings(written: str) -> None:
    algorithm = chosen(written)
    assert isinstance(local_of(plan(local=algorithm.local, settings=dict(algorithm.settings))), LOCALS[algorithm.local])


def test_settings_are_the_hubs() -> None:
    assert local_of(plan()) == SGD()
    assert local_of(plan(local="fedprox", settings={"mu": 0.5, "partial": False})) == FedProx(mu=0.5, partial=False)
    assert local_of(plan(local="fedprox", settings={"mu": 1, "partial": True})) == FedProx(mu=1.0, partial=True)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"local": "magic"},
            "the hub wants edges to compute 'magic', which this edge does not know; install the hub's",
        ),
        ({"local": "fedprox"}, "the hub's settings for fedprox are not those that this edge knows (Object missing "),
        ({"local": "ditto", "settings": {"lam": "much"}}, "the hub's settings for ditto are not those that this edge"),
    ],
)
def test_a_hub_of_another_release_is_answered_with_a_sentence(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        local_of(plan(**changes))
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)
