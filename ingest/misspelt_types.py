"""Types of events that a processor names and that look like a misspelt one of a sender's."""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches

from ingest.declared import DeclaredProcessor
from ingest.sources import registry

_ALIKE = 0.9
"""Of 1: a letter more or less, or two that changed places, in a name of twelve. WhatsApp's
`statuses.deleted`, which no sample has, is like `statuses.delivered` by 0.88."""


def sentences(processors: Iterable[DeclaredProcessor]) -> Iterator[str]:
    """Yield a sentence for each type that no sender is known to send and that is like one.

    A sender may send more types than its documentation shows, so others say nothing.
    """
    known = sorted(
        {name for source in registry.classes().values() for name in source.samples.types}
    )
    for processor in processors:
        for event_type in processor.types:
            if "*" in event_type or event_type in known:
                continue
            for similar in get_close_matches(event_type, known, n=1, cutoff=_ALIKE):
                yield (
                    f"{processor.name} takes {event_type}, which no sender is known to send;"
                    f" perhaps {similar} was meant."
                )
