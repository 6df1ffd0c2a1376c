"""Ninety-nine roles of Shakespeare's plays learn together which character comes next; each keeps its own lines.

Each edge is a role (--edges 99); with fewer edges, roles are dealt to them in turn. A fifth of the roles learn
in a round, and the hub keeps momentum. Option: root=FOLDER, where shakespeare/input.txt is.
"""

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from edge import App, Edge
from edge.datasets import shakespeare
from edge.datasets.partition import by_key

app = App(algorithm="fedavgm(server_lr=0.5)", rounds=60, deadline=60.0, fraction=0.2, lr=3.0, batch=10, epochs=1)

Examples = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


class NextCharacter(nn.Module):
    """Characters (n, 80) in; for each of the 65 that could follow, logits (n, 65, 80) out."""

    def __init__(self) -> None:
        super().__init__()
        symbols = len(shakespeare.SYMBOLS)
        self.embed = nn.Embedding(symbols, 16)
        self.read = nn.LSTM(16, 128, batch_first=True)
        self.guess = nn.Linear(128, symbols)

    def forward(self, text: Tensor) -> Tensor:
        """Read the text from its beginning, and guess after every character."""
        known, _ = self.read(self.embed(text))
        guesses: Tensor = self.guess(known)
        return guesses.transpose(1, 2)


@app.model
def model() -> nn.Module:
    """What is learnt: to guess the next character."""
    return NextCharacter()


@app.data
def data(edge: Edge) -> Examples:
    """This edge's lines: the first four fifths of what its roles say, in sequences."""
    train, _ = shakespeare.load(edge.option("root", ""))
    mine = by_key(train.owner, edge.count, what="roles")[edge.index]
    return train.x[mine], train.y[mine]


@app.test
def test(edge: Edge) -> Examples:
    """The last fifth of what every role says."""
    _, held_out = shakespeare.load(edge.option("root", ""))
    return held_out.x, held_out.y
