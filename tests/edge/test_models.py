"""The nets are those of the paper, to the last parameter."""

import pytest
import torch
from torch import nn

from edge import models
from shared.errors import ConfigError


@pytest.mark.parametrize(("name", "parameters"), [("linear", 7_850), ("2nn", 199_210), ("cnn", 1_663_370)])
def test_each_net_has_the_papers_number_of_parameters_and_gives_ten_logits(name: str, parameters: int) -> None:
    net = models.named(name)
    assert sum(tensor.numel() for tensor in net.parameters()) == parameters
    assert net(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_no_net_ends_in_a_softmax_because_the_loss_has_it() -> None:
    assert all(isinstance(net[-1], nn.Linear) for net in (models.linear(), models.two_nn(), models.cnn()))


def test_a_net_that_does_not_exist_is_answered_with_those_that_do() -> None:
    with pytest.raises(ConfigError, match="there is no net 'resnet'; choose one of linear, 2nn, cnn"):
        models.named("resnet")
