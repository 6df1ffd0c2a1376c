"""What an edge's part of an algorithm is: what to do with a round's work, and with a model that is to be measured."""

from typing import Protocol

from edge.learner import Trained
from edge.work import Work


class Local(Protocol):
    """A frozen dataclass whose fields are the plan's `settings`; the paper stands with the hub's part."""

    def train(self, work: Work) -> Trained:
        """Do a round's work."""
        ...

    def personalise(self, work: Work) -> bool:
        """Turn the model that came into this edge's own, to be measured; tell whether it has one."""
        return False
