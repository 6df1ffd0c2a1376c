"""What an edge is called when nobody gave it a name."""

import re
import secrets
import socket

import msgspec

from shared.errors import ConfigError
from shared.messages import EdgeId


def own_name() -> str:
    """Give the machine's name with a few random letters, so that two edges on one machine are two edges."""
    host = re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname().split(".")[0]).strip("-")[:40]
    return f"{host or 'edge'}-{secrets.token_hex(2)}"


def check_name(name: str) -> None:
    """See that hubs accept `name`.

    Raises:
        ConfigError: they do not.
    """
    try:
        msgspec.convert(name, EdgeId)
    except msgspec.ValidationError:
        raise ConfigError(
            f"an edge cannot be called {name!r}; write up to 64 letters, digits, dots, dashes and underscores"
        ) from None
