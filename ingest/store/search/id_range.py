"""Parts of the list of all events, which is in the order of their ids."""

from dataclasses import dataclass, replace
from uuid import UUID

_LOWEST = UUID(int=0)
_HIGHEST = UUID(int=2**128 - 1)


def next_id(identity: UUID) -> UUID:
    """Return the bound just above an id."""
    return UUID(int=min(identity.int + 1, _HIGHEST.int))


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Ids from `low` on, below `high`; read upwards if `newer`."""

    low: UUID = _LOWEST
    high: UUID = _HIGHEST
    newer: bool = False

    @property
    def order(self) -> str:
        """Return the direction in SQL."""
        return "ASC" if self.newer else "DESC"

    @property
    def opposite(self) -> str:
        """Return the other direction."""
        return "DESC" if self.newer else "ASC"

    def past(self, reached: UUID) -> "Span":
        """Return what is left once `reached` has been read."""
        if self.newer:
            return replace(self, low=next_id(reached))
        return replace(self, high=reached)

    def upto(self, edge: UUID | None) -> "Span":
        """Return the part that ends with `edge`; all of it if that is None."""
        if edge is None:
            return self
        if self.newer:
            return replace(self, high=next_id(edge))
        return replace(self, low=edge)
