"""Decides which edge holds which examples: the less alike the edges, the harder it is to learn together.

Every partitioner is a pure function and returns one int64 array of example numbers per edge. Each example
belongs to exactly one edge, and no edge is left without any; where that cannot be, ConfigError is raised.
"""

from collections.abc import Callable
from difflib import get_close_matches
from math import inf
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from shared.errors import ConfigError

Partition = list[npt.NDArray[np.int64]]


def iid(n: int, edges: int, *, seed: int) -> Partition:
    """Shuffle `n` examples and deal them evenly: the sizes differ by one at most."""
    _check(n, edges)
    return np.array_split(np.random.default_rng(seed).permutation(n), edges)


def shards(labels: npt.ArrayLike, edges: int, *, per_edge: int = 2, seed: int) -> Partition:
    """Sort by label, cut into `edges * per_edge` equal shards and deal `per_edge` of them to every edge.

    With 2 shards most edges know two labels: the "pathological non-IID" of McMahan et al. 2017, section 3.
    """
    labels = np.asarray(labels)
    if per_edge < 1:
        raise ConfigError(f"an edge cannot hold {per_edge} shards; write 1 or more")
    _check(len(labels), edges, each=per_edge)
    pieces = np.array_split(np.argsort(labels, kind="stable"), edges * per_edge)
    hands = np.random.default_rng(seed).permutation(len(pieces)).reshape(edges, per_edge)
    return [np.concatenate([pieces[piece] for piece in hand]) for hand in hands]


def dirichlet(labels: npt.ArrayLike, edges: int, *, alpha: float, seed: int) -> Partition:
    """Cut each label's examples among the edges, in shares drawn from Dirichlet(alpha, ..., alpha).

    At alpha 100 the edges are nearly alike; at 0.1 most see a few labels only and the sizes differ widely.
    Drawing over edges within a label is Yurochkin et al. 2019; Hsu et al. 2019 draw over labels
    within an edge.
    """
    labels = np.asarray(labels)
    _check(len(labels), edges)
    rng = np.random.default_rng(seed)
    hands: list[Partition] = [[] for _ in range(edges)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        cuts = _cuts(len(members), edges, alpha=alpha, rng=rng)
        for hand, part in zip(hands, np.split(members, cuts), strict=True):
            hand.append(part)
    return _feed_the_empty([np.concatenate(hand) for hand in hands])


def quantity(n: int, edges: int, *, alpha: float, seed: int) -> Partition:
    """Deal `n` shuffled examples in unequal shares, drawn from Dirichlet(alpha, ..., alpha)."""
    _check(n, edges)
    rng = np.random.default_rng(seed)
    return _feed_the_empty(np.split(rng.permutation(n), _cuts(n, edges, alpha=alpha, rng=rng)))


def by_key(keys: npt.ArrayLike, edges: int | None = None, *, what: str = "different keys") -> Partition:
    """Keep together what has one key: `keys` (n,) names, for example, each picture's writer.

    One edge per distinct key, in sorted order; where `edges` is given, the keys are dealt to so many in turn.
    `what` says in an error what the keys are.
    """
    names, key = np.unique(np.asarray(keys), return_inverse=True)
    edges = len(names) if edges is None else edges
    _check(len(names), edges, what=what)
    edge = key % edges
    return np.split(np.argsort(edge, kind="stable"), np.cumsum(np.bincount(edge, minlength=edges))[:-1])


def partition(
    spec: str, labels: npt.ArrayLike, edges: int, *, seed: int, **keys: Callable[[], npt.ArrayLike]
) -> Partition:
    """Partition as a text says: `iid`, `shards`, `shards:3`, `dirichlet:0.3`, `quantity:0.5` or the name of a key.

    Args:
        spec: the text.
        labels: the examples' labels (n,).
        edges: how many edges there are.
        seed: of all that is drawn.
        keys: what examples can be kept together by, such as `writer=`; called for the keys (n,) if the text says so.

    Raises:
        ConfigError: it cannot be dealt so, or the text is another; says what to write instead.
    """
    labels = np.asarray(labels)
    name, colon, number = spec.strip().lower().partition(":")
    match name:
        case "iid" if not colon:
            return iid(len(labels), edges, seed=seed)
        case "shards":
            per_edge = _read(number, int, like="shards:2") if colon else 2
            return shards(labels, edges, per_edge=per_edge, seed=seed)
        case "dirichlet":
            return dirichlet(labels, edges, alpha=_read(number, float, like="dirichlet:0.3"), seed=seed)
        case "quantity":
            return quantity(len(labels), edges, alpha=_read(number, float, like="quantity:0.5"), seed=seed)
        case _ if name in keys and not colon:
            return by_key(keys[name](), edges, what=f"{name}s")
        case _:
            close = get_close_matches(name, ["iid", "shards", "dirichlet", "quantity", *keys], n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            *others, last = "iid", "shards:2", "dirichlet:0.3", "quantity:0.5", *keys
            raise ConfigError(f"there is no partition {spec!r}; {hint}write for example {', '.join(others)} or {last}")


_Number = TypeVar("_Number", int, float)


def _read(number: str, kind: type[_Number], *, like: str) -> _Number:
    """Give the number that stands after the colon."""
    try:
        return kind(number)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise ConfigError(f"a partition like {like} needs {wanted} after the colon, not {number!r}") from None


def _check(n: int, edges: int, *, each: int = 1, what: str = "examples") -> None:
    """Refuse what no dealer can do: at least `each` of `n` things to every edge."""
    if edges < 1:
        raise ConfigError(f"data cannot be dealt to {edges} edges; there must be 1 or more")
    if n < edges * each:
        raise ConfigError(f"{n} {what} are too few for {edges} edges, {each} each; take fewer edges")


def _cuts(n: int, edges: int, *, alpha: float, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Tell where to cut `n` things so that the edges' shares are one draw from Dirichlet(alpha, ..., alpha)."""
    if not 0 < alpha < inf:
        raise ConfigError(f"a Dirichlet alpha is above 0 (0.1 very uneven, 100 nearly even), not {alpha}")
    shares = rng.dirichlet(np.full(edges, alpha))
    return np.rint(np.cumsum(shares[:-1]) * n).astype(np.int64)


def _feed_the_empty(hands: Partition) -> Partition:
    """Move one example from the fullest hand to each empty one, so this ends, whatever was drawn.

    The fullest holds two or more, as examples are no fewer than hands. Drawing again until nobody is
    empty, as is often done, may never end: at alpha 0.001, ten labels reach some 20 of 100 edges.
    """
    for poor in [edge for edge, hand in enumerate(hands) if len(hand) == 0]:
        rich = max(range(len(hands)), key=lambda edge: len(hands[edge]))
        hands[poor], hands[rich] = hands[rich][-1:], hands[rich][:-1]
    return hands
