"""What federating was worth is measured against training alone and on all data in one place."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from edge.app import App, Edge
from edge.compare import compare
from shared.errors import ConfigError
from tests.support.tiny import X, Y, plan, tiny_app


def halves(edge: Edge) -> tuple[torch.Tensor, torch.Tensor]:
    """Two edges, each of which knows one class only."""
    mine = torch.eq(Y, edge.index)
    return X[mine], Y[mine]


def compared(app: App, *, edges: int = 2, rounds: int = 30, metric: str = "accuracy") -> tuple[float, float]:
    found = compare(app, Edge(count=edges), plan=plan(lr=0.5, holdout=0.5), rounds=rounds, metric=metric, device="cpu")
    assert found.metric == metric
    return found.alone, found.centralised


def test_edges_that_know_half_the_classes_do_worse_alone_than_all_data_in_one_place() -> None:
    alone, centralised = compared(tiny_app(data=halves, test=lambda: (X, Y)))
    assert alone == pytest.approx(0.5)
    assert centralised > 0.8


def test_one_edge_alone_is_the_same_as_all_data_in_one_place() -> None:
    for data in (lambda: (X, Y), lambda: DataLoader(TensorDataset(X, Y), batch_size=6)):
        alone, centralised = compared(tiny_app(data=data, test=lambda: (X, Y)), edges=1, metric="loss")
        assert alone == pytest.approx(centralised)


def test_of_many_edges_ten_train_alone() -> None:
    trained: list[int] = []

    def noting(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if output.requires_grad:
            trained.append(len(target))
        return nn.functional.cross_entropy(output, target)

    compared(tiny_app(loss=noting, test=lambda: (X, Y)), edges=25, rounds=1)
    assert trained == [6] * 10 + [6 * 25]


def test_a_batch_norms_counter_counts_steps_and_does_not_double_every_round() -> None:
    counters: set[int] = set()

    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.out = nn.BatchNorm1d(2), nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            counters.add(int(self.norm.num_batches_tracked))
            result: torch.Tensor = self.out(self.norm(x))
            return result

    compared(tiny_app(model=Normalised, test=lambda: (X, Y)), edges=1, rounds=70)
    assert counters == set(range(71))


def test_an_app_without_held_out_data_cannot_be_compared() -> None:
    with pytest.raises(ConfigError, match=r"tiny\.py has no @app\.test function; write one:"):
        compared(tiny_app())


def test_a_metric_that_the_app_does_not_measure_is_answered_with_those_it_does() -> None:
    app = tiny_app(test=lambda: (X, Y))
    with pytest.raises(
        ConfigError, match=r"^tiny\.py does not measure 'f1' but loss, accuracy; choose one as the metric$"
    ):
        compared(app, metric="f1")


def test_an_app_that_fails_is_answered_with_a_sentence() -> None:
    app = tiny_app(data=lambda: (X.numpy().astype(np.float64), Y), test=lambda: (X, Y))
    with pytest.raises(ConfigError, match=r"^training of tiny\.py failed: RuntimeError: "):
        compared(app)
