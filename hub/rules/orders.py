"""Decides whether what an operator wants of a running hub can be done now; why not, in a sentence, if it cannot."""

from hub.rules.rounds import Round
from shared.messages import Order

_LONGEST_DEADLINE = 30 * 24 * 3600.0  # seconds, as in hub/config.py


def unable(order: Order, round: Round | None, *, here: bool, elapsed: float = 0.0) -> str:
    """Say why an order cannot be carried out; empty if it can.

    Args:
        order: what is wanted.
        round: the one that is open, if any.
        here: whether the edge that it names is here.
        elapsed: seconds since the open round's beginning.
    """
    if order.action == "next":
        if round is None:
            return "no round is open"
        if not round.has_quorum:
            return f"{len(round.answered)} answers are in, and round {round.number} needs {round.quorum} to count"
    if order.action == "deadline" and not 0 < order.seconds <= _LONGEST_DEADLINE:
        return f"{order.seconds:g} seconds are no deadline"
    if order.action == "deadline" and round and order.seconds <= elapsed and not round.has_quorum:
        return f"round {round.number} is {elapsed:.1f} s old, and too few have answered for it to be closed"
    if order.action == "drop" and not here:
        return "no edge of that name is here"
    return ""
