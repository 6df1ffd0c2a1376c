"""Counts what each edge of an app holds: its examples and, where targets are classes, how many there are of each."""

import json
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt

from edge.app import App, Edge, users_code
from edge.examples import Examples
from shared.errors import ConfigError

_CHUNK = 4096  # examples at a time


@dataclass(frozen=True)
class Census:
    """How many examples each edge holds."""

    app: str
    partition: str
    """What the option of that name said; empty where it was left to the app."""
    sizes: npt.NDArray[np.int64]
    """Examples (edges,)."""
    labels: tuple[int, ...]
    """All labels there are, in ascending order; none where targets are not one whole number each."""
    counts: npt.NDArray[np.int64]
    """Examples of each label (edges, labels)."""

    @property
    def labels_each(self) -> float:
        """How many labels an edge knows, on average."""
        return float(np.count_nonzero(self.counts, axis=1).mean())

    @property
    def headline(self) -> str:
        """Whose data, on how many edges."""
        return f"{self.app} on {len(self.sizes):,} edge{'' if len(self.sizes) == 1 else 's'}"

    @property
    def in_short(self) -> str:
        """What it comes to, on a line."""
        smallest, largest = self.sizes.min(), self.sizes.max()
        held = f"smallest {smallest:,} · median {median(self.sizes):,.10g} · largest {largest:,}"
        known = f" · {self.labels_each:.1f} of {len(self.labels)} labels on average" if self.labels else ""
        return f"{self.sizes.sum():,} examples · edges: {held}{known}"


def take(app: App, *, edges: int, seed: int, options: dict[str, str]) -> Census:
    """Ask `app` for the data of each of `edges` edges, and count.

    Raises:
        ConfigError: it has no data for one of them, as where there are fewer owners than edges.
    """
    if edges < 1:
        raise ConfigError(f"-n {edges}: a federation has at least one edge")
    where = f"data() of {app.name}"
    found = []
    for index in range(edges):
        examples = Examples.of(app.find_data("data", Edge(index, edges, seed, options)), where=where)
        with users_code(where):
            found.append((examples.count, _labels(examples)))
    classes = [labels for _, labels in found if labels is not None]
    seen = sorted(set().union(*classes)) if len(classes) == edges else []
    return Census(
        app=app.name.removesuffix(".py"),
        partition=options.get("partition", ""),
        sizes=np.array([count for count, _ in found]),
        labels=tuple(seen),
        counts=np.array([[labels.get(label, 0) for label in seen] for labels in classes if seen], np.int64).reshape(
            edges, len(seen)
        ),
    )


def to_json(census: Census) -> str:
    """Give all of it as one line; `labels` and `counts` are null where targets are not classes."""
    told = {
        "app": census.app,
        "partition": census.partition or None,
        "edges": len(census.sizes),
        "examples": int(census.sizes.sum()),
        "smallest": int(census.sizes.min()),
        "median": float(median(census.sizes)),
        "largest": int(census.sizes.max()),
        "labels": census.labels or None,
        "labels_per_edge": census.labels_each if census.labels else None,
        "sizes": census.sizes.tolist(),
        "counts": census.counts.tolist() if census.labels else None,
    }
    return json.dumps(told)


def _labels(examples: Examples) -> dict[int, int] | None:
    """Count each label; None where a target is not one whole number."""
    counted: dict[int, int] = {}
    for _, y in examples.batches(_CHUNK):
        if y.ndim != 1 or y.is_floating_point() or y.is_complex():
            return None
        for label, count in zip(*np.unique(y.numpy().astype(np.int64), return_counts=True), strict=True):
            counted[int(label)] = counted.get(int(label), 0) + int(count)
    return counted
