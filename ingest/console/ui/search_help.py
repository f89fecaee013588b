"""What can be typed into the search field, with examples; and a search with its problems marked."""

from collections.abc import Sequence
from dataclasses import dataclass

from ingest.query import FILTERS, Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A search that means something, and what."""

    q: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """Examples of one kind."""

    title: str
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A piece of a search's text."""

    text: str
    is_problem: bool


_EXAMPLES = {
    "What, from whom, and how far": {
        "type:order.*": "types; several are alternatives, `*` stands for anything",
        "state:dead": "or pending, running, retrying, succeeded, unhandled, discarded",
        "source:shop": FILTERS["source"],
        "processor:my_app.orders state:dead": FILTERS["processor"],
        "error:ValueError": FILTERS["error"],
        'raised:"/app/orders.py"': FILTERS["raised"],
        "is:duplicate": "delivered more than once",
        "is:conflict": "delivered again with another content",
        "deliveries:>2": "how often it was delivered",
        "replay:12 state:dead": FILTERS["replay"],
        "taken_back:12": FILTERS["taken_back"],
        "key:0123abcd": FILTERS["key"],
        "id:order.created:790": FILTERS["id"],
        "delivery:01890a5d-ac96-774b-bcce-b302099a8057": FILTERS["delivery"],
    },
    "When": {
        "since:2h": "received in the last two hours; also 15m, 7d",
        "since:yesterday until:today": "yesterday in UTC",
        "since:2026-01-31 until:2026-02-01": "that day in UTC; a time may follow: 2026-01-31T12:00",
    },
    "Whom or what it is about": {
        "order:790": FILTERS["order"],
        "conversation:123": FILTERS["conversation"],
        "contact:55": FILTERS["contact"],
        "message:ABC": FILTERS["message"],
        "phone:966500000000": FILTERS["phone"],
    },
    "What the body holds": {
        '"where is my order"': "a text, in the body or the event id",
        "data.order_id:55": "the value of a field; `*` at its end stands for anything",
        "data.coupon:*": "the field is there and not null, whatever it holds",
        ".event:order.created": "a field outside of `data`",
        "data.items.0.sku:A-7": "the first of a list",
        "data.total:>1000": "more than a number, also where it is sent as text; >= < <= likewise",
        "data.created_at:>=2026-01-31": "later than a time, or that time",
    },
    "Not": {
        "-type:message.*": "all but these",
        "-state:succeeded -source:shop": "each part by itself",
        '-"test order"': "the text is nowhere in it",
        "-data.vip:true": "the value is not there: also what lacks `data.vip`, or was erased",
        "-data.total:>1000": "not more than that: also what lacks a total",
    },
}
TOPICS = tuple(
    Topic(title=title, examples=tuple(Example(q=q, meaning=text) for q, text in examples.items()))
    for title, examples in _EXAMPLES.items()
)


def marked(text: str, problems: Sequence[Problem]) -> tuple[Piece, ...]:
    """Return a search in pieces, those that were not understood marked."""
    pieces, position = [], 0
    for problem in sorted(problems, key=lambda problem: problem.position):
        if problem.position < position:
            continue
        end = problem.position + len(problem.text)
        pieces.append(Piece(text=text[position : problem.position], is_problem=False))
        pieces.append(Piece(text=text[problem.position : end], is_problem=True))
        position = end
    pieces.append(Piece(text=text[position:], is_problem=False))
    return tuple(piece for piece in pieces if piece.text)
