"""What an edge is called when nobody gave it a name."""

import re
import secrets
import socket


def own_name() -> str:
    """Give the machine's name with a few random letters, so that two edges on one machine are two edges."""
    host = re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname().split(".")[0]).strip("-")[:40]
    return f"{host or 'edge'}-{secrets.token_hex(2)}"
