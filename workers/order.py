"""What the jobs of a processor are kept in order by."""

from dataclasses import dataclass

from workers.event_key import EventKey, KeyedBy, key_of

WAIT, SKIP = "wait", "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How a processor's jobs are kept in order."""

    key: EventKey
    on_dead: str
    """`wait` or `skip`."""

    @property
    def ordered_by(self) -> str:
        """The fields or the function, for people."""
        return self.key.described


def order_of(ordered_by: KeyedBy | None, on_dead: str) -> Order | None:
    """Return the order that a declaration asks for; None: it asks for none.

    Raises:
        TypeError, ValueError: it makes no sense.
    """
    if on_dead not in (WAIT, SKIP):
        raise ValueError(f"on_dead is {WAIT!r} or {SKIP!r}, not {on_dead!r}")
    if ordered_by is None:
        if on_dead != WAIT:
            raise ValueError("on_dead needs ordered_by: without an order nothing is behind")
        return None
    return Order(key=key_of(ordered_by, option="ordered_by"), on_dead=on_dead)
