"""The MNIST experiment with clothes, which are harder than digits: the same nets, options and settings."""

from torch import Tensor

from edge import App, Edge
from edge.apps import mnist
from edge.datasets import vision

app = App(rounds=100, deadline=30.0, fraction=0.1, lr=0.1, batch=10, epochs=1)

app.model(mnist.model)


@app.data
def data(edge: Edge) -> tuple[Tensor, Tensor]:
    """This edge's part of the 60,000 training pictures."""
    train, _ = vision.fashion_mnist(edge.option("root", ""))
    return mnist.share(train, edge)


@app.test
def test(edge: Edge) -> tuple[Tensor, Tensor]:
    """The 10,000 test pictures."""
    _, held_out = vision.fashion_mnist(edge.option("root", ""))
    return held_out
