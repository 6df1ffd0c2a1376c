"""The robust rules give what an independent implementation gives: byzfl 0.0.11, asked by golden/make.py."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hub.aggregation.robust.bulyan import Bulyan
from hub.aggregation.robust.centred_clipping import CentredClipping
from hub.aggregation.robust.geometric_median import GeometricMedian
from hub.aggregation.robust.krum import Krum, MultiKrum
from hub.aggregation.robust.median import CoordinateMedian
from hub.aggregation.robust.nearest_neighbours import NearestNeighbourMixing
from hub.aggregation.robust.norm_clipping import NormClipping
from hub.aggregation.robust.rule import Rule
from hub.aggregation.robust.trimmed_mean import TrimmedMean
from shared.tensors import Array
from tests.support.hostile import of_rows

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "golden" / "byzfl.json").read_text())["cases"]


def rules(f: int, rows: Array) -> dict[str, Rule]:
    return {
        "median": CoordinateMedian(),
        "trimmed mean": TrimmedMean(f),
        "krum": Krum(f),
        "multi-krum": MultiKrum(f, m=len(rows) - f - 1),
        "geometric median": GeometricMedian(steps=5000),
        "centred clipping": CentredClipping(tau=float(np.median(np.linalg.norm(rows, axis=1))) / 2),
        "norm clipping": NormClipping(),
        "nnm + trimmed mean": NearestNeighbourMixing(f),
        "nnm + median": NearestNeighbourMixing(f, rule=CoordinateMedian()),
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['f']} of {case['n']}")
@pytest.mark.parametrize("name", CASES[0]["expected"])
def test_the_result_is_that_of_byzfl(name: str, case: dict[str, Any]) -> None:
    rows, expected = np.array(case["rows"]), np.array(case["expected"][name])
    found = of_rows(rules(case["f"], rows)[name], rows)
    assert found.dtype == np.float64
    assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected)
    assert np.allclose(found, expected, rtol=1e-6, atol=1e-9 * np.abs(expected).max())


def bulyan(rows: Array, f: int) -> Array:
    """El Mhamdi et al. 2018 word by word: byzfl does not have it."""
    remaining, selected = list(rows), []
    while len(selected) < len(rows) - 2 * f:
        near = max(2, len(remaining) - f - 2)
        scores = [sum(sorted(float(((x - y) ** 2).sum()) for y in remaining)[1 : near + 1]) for x in remaining]
        selected.append(remaining.pop(int(np.argmin(scores))))
    chosen, beta = np.array(selected), len(selected) - 2 * f
    closest = np.argsort(np.abs(chosen - np.median(chosen, axis=0)), axis=0, kind="stable")[:beta]
    return np.take_along_axis(chosen, closest, axis=0).mean(axis=0)


@pytest.mark.parametrize(("n", "f", "seed"), [(n, f, s) for (n, f), s in itertools.product(
    [(3, 0), (4, 0), (7, 1), (8, 1), (11, 2), (14, 2), (23, 5)], range(3))])  # fmt: skip
def test_bulyan_is_the_papers(n: int, f: int, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(n, 30))
    rows[:f] *= 1e4
    assert np.allclose(of_rows(Bulyan(f), rows), bulyan(rows, f), rtol=1e-12, atol=1e-12)
