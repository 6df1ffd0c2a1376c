"""The algorithms by the names people write in a configuration."""

import difflib

from hub.aggregation.algorithm import Algorithm
from hub.aggregation.fedavg import fedavg
from hub.aggregation.fedsgd import fedsgd
from shared.errors import ConfigError

NAMES = ("fedavg", "fedsgd")


def algorithm(name: str, *, lr: float) -> Algorithm:
    """Make the algorithm called `name`.

    Args:
        name: as in `NAMES`.
        lr: learning rate, for algorithms whose step the hub takes.

    Raises:
        ConfigError: there is none of that name; the message suggests one.
    """
    match name:
        case "fedavg":
            return fedavg()
        case "fedsgd":
            return fedsgd(lr)
    close = difflib.get_close_matches(name.lower(), NAMES, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(NAMES)}"
    raise ConfigError(f"algorithm: {name!r} is not known; {hint}")
