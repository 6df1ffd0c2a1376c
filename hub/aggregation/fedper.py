"""FedPer: some layers, mostly the last, stay on each edge; the others are learnt together."""

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from hub.aggregation.algorithm import NEEDED, Algorithm, Recipe, Terms, setting
from hub.aggregation.fedavg import FedAvg
from hub.aggregation.servers import SERVERS
from shared.errors import ConfigError
from shared.exchange import Exchange


@dataclass(frozen=True)
class FedPer:
    """Base layers are averaged, personalisation layers never leave their edge; both are trained side by side.

    Arivazhagan et al. 2019, "Federated Learning with Personalization Layers", Algorithms 1 and 2.
    """

    own: str = setting(NEEDED, "pattern of the tensors that stay, like 4.* or head.*; several with | between")
    server: Recipe = setting(FedAvg(), "what the hub does with the updates", among=SERVERS)

    def make(self, name: str, terms: Terms) -> Algorithm:
        """Have edges take local steps, and keep those layers."""
        return replace(self.server.make(name, terms), narrow=Matching(self.own), personal=True)


@dataclass(frozen=True)
class Matching:
    """Leaves the tensors that match a pattern on the edges."""

    own: str

    def __call__(self, exchange: Exchange) -> Exchange:
        """Give what is exchanged then.

        Raises:
            ConfigError: that is nothing, or a tensor would stay under one of its names and not under the other.
        """
        for pattern in self.own.split("|"):
            if not any(fnmatchcase(name, pattern) for name in (*exchange.rules, *exchange.tied)):
                exchange.with_own([], why=f"fedper keeps {pattern} on the edges")
        names = [name for name in exchange.rules if self._matches(name)]
        for also, name in exchange.tied.items():
            if self._matches(also) and name not in names and exchange.rules[name] != "frozen":
                raise ConfigError(
                    f"fedper keeps {self.own} on the edges, but {also} is another name of {name} in this model; "
                    "let the pattern match both or neither"
                )
        return exchange.with_own(names, why=f"fedper keeps {self.own} on the edges")

    def _matches(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.own.split("|"))
