"""The classic experiment: MNIST's handwritten digits on many edges, of which a tenth learn in each round.

The settings are those of McMahan et al. 2017. Options: net=linear, 2nn or cnn; partition=iid, shards:2 and so
on (see datasets/partition.py), or writer, by which an edge's digits are those of one or more of 539 people;
root=FOLDER, where MNIST/raw is, and for writers QMNIST/raw.
"""

from collections.abc import Callable

import numpy.typing as npt
from torch import Tensor, nn

from edge import App, Edge, models
from edge.datasets import vision
from edge.datasets.partition import partition

app = App(rounds=100, deadline=30.0, fraction=0.1, lr=0.1, batch=10, epochs=1)


@app.model
def model(edge: Edge) -> nn.Module:
    """One of the paper's three nets."""
    return models.named(edge.option("net", "2nn"))


@app.data
def data(edge: Edge) -> tuple[Tensor, Tensor]:
    """This edge's part of the 60,000 training pictures."""
    root = edge.option("root", "")
    train, _ = vision.mnist(root)
    return share(train, edge, writer=lambda: vision.writers(root))


@app.test
def test(edge: Edge) -> tuple[Tensor, Tensor]:
    """The 10,000 test pictures."""
    _, held_out = vision.mnist(edge.option("root", ""))
    return held_out


def share(examples: tuple[Tensor, Tensor], edge: Edge, **keys: Callable[[], npt.ArrayLike]) -> tuple[Tensor, Tensor]:
    """This edge's part of (x, y): all edges deal with the same seed, so that no two parts overlap."""
    x, y = examples
    how = edge.option("partition", "iid")
    mine = partition(how, y.numpy(), edge.count, seed=edge.seed, **keys)[edge.index]
    return x[mine], y[mine]
