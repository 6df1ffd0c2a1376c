"""The three nets of the paper that began federated learning, so that results can be held against its figures.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", 2017, section 3.
Each takes images float32 (n, 1, 28, 28) and returns logits float32 (n, 10): the softmax is part of the loss.
"""

from torch import nn

from shared.errors import ConfigError


def named(name: str) -> nn.Module:
    """Make the net of a name that a user writes: linear, 2nn or cnn. Raises ConfigError for another."""
    nets = {"linear": linear, "2nn": two_nn, "cnn": cnn}
    if name not in nets:
        raise ConfigError(f"there is no net {name!r}; choose one of {', '.join(nets)}")
    return nets[name]()


def linear() -> nn.Sequential:
    """Make softmax regression, 784-10: 7,850 parameters."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


def two_nn() -> nn.Sequential:
    """Make the paper's 2NN, a perceptron 784-200-200-10 with ReLU: 199,210 parameters."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 200),
        nn.ReLU(),
        nn.Linear(200, 200),
        nn.ReLU(),
        nn.Linear(200, 10),
    )


def cnn() -> nn.Sequential:
    """Make the paper's CNN, two 5x5 convolutions with 2x2 max pooling, then 512 units: 1,663,370 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 32, kernel_size=5, padding=2),  # (n, 32, 28, 28)
        nn.ReLU(),
        nn.MaxPool2d(2),  # (n, 32, 14, 14)
        nn.Conv2d(32, 64, kernel_size=5, padding=2),  # (n, 64, 14, 14)
        nn.ReLU(),
        nn.MaxPool2d(2),  # (n, 64, 7, 7)
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )
