"""Which events the built-in read models are made of."""

from collections.abc import Sequence

from ingest.sources import registry
from workers.event import Event

SHOP = "shop"
"""The model of messages, conversations, orders and contacts."""


def of_model(events: Sequence[Event], model: str) -> list[Event]:
    """Return those of `events` whose source feeds a read model. Other senders have events of the
    same types, with other fields."""
    classes = registry.classes()
    feeding = {
        slug
        for slug in {event.source for event in events}
        if slug in classes and classes[slug].read_model == model
    }
    return [event for event in events if event.source in feeding]
