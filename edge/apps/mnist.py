"""The classic experiment: MNIST's handwritten digits on many edges, of which a tenth learn in each round.

The settings are those of McMahan et al. 2017. Options: net=linear, 2nn or cnn; partition=iid, shards:2 and so
on (see datasets/partition.py); root=FOLDER, where MNIST/raw is.
"""

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
    train, _ = vision.mnist(edge.option("root", ""))
    return share(train, edge)


@app.test
def test(edge: Edge) -> tuple[Tensor, Tensor]:
    """The 10,000 test pictures."""
    _, held_out = vision.mnist(edge.option("root", ""))
    return held_out


def share(examples: tuple[Tensor, Tensor], edge: Edge) -> tuple[Tensor, Tensor]:
    """This edge's part of (x, y): all edges deal with the same seed, so that no two parts overlap."""
    x, y = examples
    mine = partition(edge.option("partition", "iid"), y.numpy(), edge.count, seed=edge.seed)[edge.index]
    return x[mine], y[mine]
