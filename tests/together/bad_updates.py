"""Everything that a bad edge can send: by the code of its refusal, what it changes in an honest update."""

import numpy as np

from tests.support.federation import MODEL

ONES = {name: np.ones_like(array) for name, array in MODEL.items()}
BAD = {
    "not-finite": {"tensors": ONES | {"weight": np.full((2, 3), np.nan, np.float32)}},
    "not-finite (infinity)": {"tensors": ONES | {"bias": np.array([1, np.inf, 1], np.float32)}},
    "not-finite (metric)": {"metrics": {"loss": float("nan")}},
    "bad-metrics (missing)": {"metrics": {}},
    "bad-metrics (extra)": {"metrics": {"loss": 1.0, "poison": 2.0}},
    "too-large": {"tensors": ONES | {"weight": np.full((2, 3), 1e30, np.float32)}},
    "bad-examples (huge)": {"examples": 1e12},
    "bad-examples (negative)": {"examples": -89},
    "bad-examples (none)": {"examples": 0},
    "bad-examples (NaN)": {"examples": float("nan")},
    "bad-examples (half)": {"examples": 1.5},
    "misshapen (shape)": {"tensors": ONES | {"bias": np.ones(1, np.float32)}},
    "misshapen (dtype)": {"tensors": ONES | {"bias": np.ones(3, np.float64)}},
    "misshapen (missing)": {"tensors": {"weight": ONES["weight"], "bias": ONES["bias"]}},
    "misshapen (complex)": {"tensors": ONES | {"bias": np.ones(3, np.complex64).view(np.float32)}},
    "misshapen (extra)": {"tensors": ONES | {"more": np.ones(2, np.float32)}},
    "misshapen (other spec)": {"spec": "0" * 16},
    "stale (model)": {"model": "0" * 64},
    "stale (round to come)": {"round": 7},
    "stale (attempt)": {"attempt": 9},
    "late": {"round": 0},
    "foreign": {"run": "another"},
}
