"""How the views write names and numbers, so that the log and the summary look alike."""

from collections.abc import Sequence


def names(edges: Sequence[str], *, shown: int = 3) -> str:
    """List the first few names, and how many more there are."""
    more = len(edges) - shown
    return ", ".join(edges[:shown]) + (f" +{more}" if more > 0 else "")


def short(metric: str) -> str:
    """Give a metric's name for a narrow column."""
    return {"accuracy": "acc"}.get(metric, metric)


def number(metric: str, value: float) -> str:
    """Write a metric's value: accuracies in per cent, everything else with four digits."""
    return f"{100 * value:.1f}%" if metric.startswith("acc") else f"{value:.4g}"
