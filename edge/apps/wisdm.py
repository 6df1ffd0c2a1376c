"""Thirty-six phones learn together what their owners are doing: walking, jogging, on stairs, sitting or standing.

Each edge is a phone's owner (--edges 36); with fewer edges, owners are dealt to them in turn. A third of the owners
learn in a round, and people move differently, so the hub keeps momentum. Options: partition=owner, or iid,
dirichlet:0.3 and so on (see datasets/partition.py); norm=batch for batch normalisation, which is what FedBN is about;
root=FOLDER, where wisdm/WISDM_ar_v1.1_transformed.arff is.
"""

import numpy as np
import numpy.typing as npt
from torch import nn

from edge import App, Edge
from edge.datasets import wisdm
from edge.datasets.partition import partition

app = App(algorithm="fedavgm(server_lr=0.5)", rounds=100, deadline=30.0, fraction=0.3, lr=0.1, batch=10, epochs=1)

Examples = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


@app.model
def model(edge: Edge) -> nn.Module:
    """What is learnt: 43 features of 10 s in, six activities out."""
    norm = nn.BatchNorm1d if edge.option("norm", "") == "batch" else nn.Identity
    first = (nn.Linear(43, 64), norm(64), nn.ReLU())
    second = (nn.Linear(64, 64), norm(64), nn.ReLU())
    return nn.Sequential(*first, *second, nn.Linear(64, 6))


@app.data
def data(edge: Edge) -> Examples:
    """This edge's part of the training windows: those of its owners."""
    train, _ = wisdm.load(edge.option("root", ""))
    how = edge.option("partition", "owner")
    mine = partition(how, train.y, edge.count, seed=edge.seed, owner=lambda: train.owner)[edge.index]
    return train.x[mine], train.y[mine]


@app.test
def test(edge: Edge) -> Examples:
    """The windows of all owners that no edge learns from."""
    _, held_out = wisdm.load(edge.option("root", ""))
    return held_out.x, held_out.y
