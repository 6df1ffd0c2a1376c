"""Ten edges learn together to read small handwritten digits: the shortest whole app, made to be copied.

With ten edges, 20 rounds read 97 % of the held-out digits rightly; what one edge learns alone, some 70 %.
"""

from torch import nn

from edge import App, Edge
from edge.datasets import digits
from edge.datasets.partition import partition

app = App(rounds=20, deadline=10.0, lr=0.3, batch=10, epochs=5)


@app.model
def model() -> nn.Module:
    """What is learnt: 8x8 pixels in, ten digits out."""
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


@app.data
def data(edge: Edge) -> digits.Examples:
    """What this edge learns from, and keeps to itself: its part of the training digits."""
    (x, y), _ = digits.split()
    mine = partition(edge.option("partition", "dirichlet:0.5"), y, edge.count, seed=edge.seed)[edge.index]
    return x[mine], y[mine]


@app.test
def test() -> digits.Examples:
    """What the joint model is tested with: digits that no edge has seen."""
    _, held_out = digits.split()
    return held_out
