"""Tiny Shakespeare by who speaks: what each role of the plays says is one edge's own text."""

from functools import cache
from pathlib import Path
from string import ascii_letters

import numpy as np
import numpy.typing as npt

from edge.datasets.folder import Owned, path_of, text_of
from shared.errors import ConfigError

SYMBOLS = "\n !$&',-.3:;?" + "".join(sorted(ascii_letters))
"""The 65 characters of the text; a character's number is its place here, on every edge."""

_FILE = "shakespeare/input.txt"
_SOURCE = "https://github.com/karpathy/char-rnn (data/tinyshakespeare)"
_HELD_OUT = 0.2  # share of a role's text, at its end


def load(root: str | Path = "", *, least: int = 2000, length: int = 80) -> tuple[Owned, Owned]:
    """Give (training, held-out) sequences of the roles that have at least `least` characters: 99 with 2,000.

    Each example is x int64 (length,), the numbers of `length` characters in a row, and y int64 (length,), those that
    follow them one further on; sequences do not overlap. The last fifth of what a role says is held out. `root` holds
    shakespeare/input.txt, and is `default_root()` unless given. McMahan et al. 2017, section 3, split the complete
    works by role likewise; the text is in the public domain.

    Raises:
        ConfigError: the file is not there, or is not that text.
    """
    return _load(path_of(_FILE, root, source=_SOURCE), least, length)


@cache
def _load(path: Path, least: int, length: int) -> tuple[Owned, Owned]:
    said = {role: text for role, text in sorted(_roles(text_of(path)).items()) if len(text) >= least}
    if not said:
        raise ConfigError(f"{path} has no role with {least:,} characters or more, so it is damaged; get it again")
    train: dict[str, npt.NDArray[np.int64]] = {}
    held_out: dict[str, npt.NDArray[np.int64]] = {}
    for role, text in said.items():
        if strange := set(text) - set(SYMBOLS):
            raise ConfigError(f"{path} is not Tiny Shakespeare: {role} says {min(strange)!r}; get it again")
        numbers = np.array([_NUMBER[symbol] for symbol in text], np.int64)
        cut = len(numbers) - int(_HELD_OUT * len(numbers))
        train[role], held_out[role] = numbers[:cut], numbers[cut:]
    return _sequences(train, length), _sequences(held_out, length)


_NUMBER = {symbol: number for number, symbol in enumerate(SYMBOLS)}


def _roles(text: str) -> dict[str, str]:
    """Collect what each role says: a speech is a line `ROLE:`, what is said, and an empty line."""
    speeches: dict[str, list[str]] = {}
    for block in text.split("\n\n"):
        role, _, speech = block.partition("\n")
        if role.endswith(":") and speech:
            speeches.setdefault(role[:-1], []).append(speech)
    return {role: "\n".join(said) for role, said in speeches.items()}


def _sequences(said: dict[str, npt.NDArray[np.int64]], length: int) -> Owned:
    """Cut each role's text into sequences; the rest at its end, shorter than that, is left out."""
    counts = [(len(numbers) - 1) // length for numbers in said.values()]
    pairs = list(zip(said.values(), counts, strict=True))
    return Owned(
        np.concatenate([numbers[: n * length].reshape(n, length) for numbers, n in pairs]),
        np.concatenate([numbers[1 : n * length + 1].reshape(n, length) for numbers, n in pairs]),
        np.repeat(np.array(list(said)), counts),
    )
