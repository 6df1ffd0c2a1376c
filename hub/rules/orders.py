"""Decides whether what an operator wants of a running hub can be done now; why not, in a sentence, if it cannot."""

from hub.rules.rounds import Round
from shared.messages import Order

_LONGEST_DEADLINE = 30 * 24 * 3600.0  # seconds, as in hub/config.py


def unable(order: Order, round: Round | None, *, here: bool) -> str:
    """Say why an order cannot be carried out; empty if it can.

    Args:
        order: what is wanted.
        round: the one that is open, if any.
        here: whether the edge that it names is here.
    """
    if order.action == "next":
        if round is None:
            return "no round is open"
        if not round.has_quorum:
            return f"{len(round.answered)} answers are in, and round {round.number} needs {round.quorum} to count"
    if order.action == "deadline" and not 0 < order.seconds <= _LONGEST_DEADLINE:
        return f"{order.seconds:g} seconds are no deadline"
    if order.action == "drop" and not here:
        return "no edge of that name is here"
    return ""
