"""Makes the golden vectors with byzfl, an independent implementation; used once, and never by the tests.

    python -m venv /tmp/byz && /tmp/byz/bin/pip install --no-deps byzfl==0.0.11 && /tmp/byz/bin/pip install numpy scipy
    /tmp/byz/bin/python tests/hub/aggregation/golden/make.py > tests/hub/aggregation/golden/byzfl.json

byzfl imports torch for tensors of that kind; for numpy's it needs the name only, so an empty module stands in for it.
"""

import importlib.machinery
import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np

torch = types.ModuleType("torch")
torch.Tensor = type("Tensor", (), {})
torch.linalg = types.ModuleType("torch.linalg")
sys.modules |= {"torch": torch, "torch.linalg": torch.linalg}
package = types.ModuleType("byzfl")  # without its __init__, which imports its training loops
package.__path__ = [str(Path(importlib.machinery.PathFinder.find_spec("byzfl").origin).parent)]
sys.modules["byzfl"] = package
aggregators = importlib.import_module("byzfl.aggregators.aggregators")
mixers = importlib.import_module("byzfl.aggregators.preaggregators")


def cases() -> list[dict]:
    """Honest updates around a direction, and hostile ones of several kinds; numbers of many sizes in each."""
    found = []
    for seed, (n, f, size) in enumerate([(5, 1, 3), (10, 2, 17), (10, 3, 40), (15, 3, 25), (23, 5, 30), (12, 0, 9)]):
        dice = np.random.default_rng(seed)
        scale = 10.0 ** dice.integers(-3, 2, size)
        direction = dice.normal(size=size) * scale
        rows = direction + dice.normal(size=(n, size)) * scale * 0.5
        for hostile in range(f):
            rows[hostile] = [-4.0 * direction, rows[hostile] * 1e6, direction + 3.0 * scale][(seed + hostile) % 3]
        rows = dice.permutation(rows)
        found.append({"n": n, "f": f, "rows": rows.tolist(), "expected": expected(rows, f)})
    return found


def expected(rows: np.ndarray, f: int) -> dict[str, list[float]]:
    """What byzfl makes of them.

    Its Krum sums over the n - f - 1 nearest others, Blanchard's over n - f - 2: so f + 1 there has the scores of f
    here, and its Multi-Krum then averages n - f - 1.
    """
    radius = float(np.median(np.linalg.norm(rows, axis=1)))
    answers = {
        "median": aggregators.Median()(rows),
        "trimmed mean": aggregators.TrMean(f)(rows),
        "krum": aggregators.Krum(f + 1)(rows),
        "multi-krum": aggregators.MultiKrum(f + 1)(rows),
        "geometric median": aggregators.GeometricMedian(nu=1e-6, T=5000)(rows),
        "centred clipping": aggregators.CenteredClipping(L=3, tau=radius / 2)(rows),
        "norm clipping": mixers.Clipping(radius)(rows.copy()).mean(axis=0),
        "nnm + trimmed mean": aggregators.TrMean(f)(mixers.NNM(f)(rows)),
        "nnm + median": aggregators.Median()(mixers.NNM(f)(rows)),
    }
    return {name: answer.tolist() for name, answer in answers.items()}


print(json.dumps({"byzfl": "0.0.11", "numpy": np.__version__, "cases": cases()}))
