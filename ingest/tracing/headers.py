"""The W3C trace context among the stored headers of a delivery: https://www.w3.org/TR/trace-context/.

Whatever works on a delivery later finds there to which trace it belongs. A delivery that is not
traced has none, and costs nothing.
"""

import json
from collections.abc import Mapping

from ingest.text import storable

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
NAMES = frozenset({TRACEPARENT.encode(), TRACESTATE.encode()})
"""What a receiver keeps of each request, whatever its source keeps."""
_LIMIT = 512
_PRESENT = tuple(f'["{name}", ' for name in (TRACEPARENT, TRACESTATE))
"""How a stored header of the name begins: a quote in a value is escaped."""


def carried(headers: str) -> dict[str, str]:
    """Return the trace context among stored headers; empty: there is none."""
    if not any(present in headers for present in _PRESENT):
        return {}
    return context_of(json.loads(headers))


def context_of(headers: list[list[str]]) -> dict[str, str]:
    """Return the trace context among headers. Of a `traceparent` that comes twice none counts."""
    pairs = [(name, value) for name, value in headers if name in (TRACEPARENT, TRACESTATE)]
    parents = [value for name, value in pairs if name == TRACEPARENT]
    if len(parents) != 1:
        return {}
    states = ",".join(value for name, value in pairs if name == TRACESTATE)
    return {TRACEPARENT: parents[0]} | ({TRACESTATE: states} if states else {})


def replaced(headers: str, context: Mapping[str, str]) -> str:
    """Return stored headers with this trace context, in place of whichever they have."""
    kept = [header for header in json.loads(headers) if header[0] not in (TRACEPARENT, TRACESTATE)]
    added = [[name, storable(value, limit=_LIMIT)] for name, value in context.items()]
    return json.dumps(kept + added)
