"""Says in words what a description means."""

from collections.abc import Iterator, Sequence

from ingest.sources.described import template
from ingest.sources.described.description import Challenge, Description, Time, Verify
from ingest.sources.described.source import DescribedSource
from ingest.sources.described.template import Part


def explain(source: type[DescribedSource], *, max_body_bytes: int) -> Iterator[str]:
    """Yield what is done with the requests of a described source, in sentences.

    Args:
        source: the class.
        max_body_bytes: the limit of bodies that have none of their own.
    """
    description = source.description
    yield f"It receives `POST /webhooks/{source.slug}`."
    yield from _verification(source, description.verify)
    yield _time(description)
    if description.challenge is not None:
        yield _challenge(source, description.challenge)
    yield _decoding(description)
    if description.split is not None:
        condition = (
            f" if `{description.split.if_field}` is true" if description.split.if_field else ""
        )
        yield f"Each element of `{description.split.path}` is an event of its own{condition}."
    yield f"An event's type is {_names(description.type)}."
    yield (
        f"An event's id is its type with {_names(description.id)}: a further delivery under the"
        " same id is a duplicate."
    )
    unsigned = _unsigned(description)
    if unsigned and description.verify.is_signature:
        yield (
            f"{_and(unsigned)} not signed: a captured request can be sent again with others, so"
            " they may grant nothing."
        )
    if description.occurred_at:
        yield f"When it occurred is said by {_either(description.occurred_at)}."
    yield f"A body has up to {description.body_limit or max_body_bytes:,} bytes."
    yield _retries(description)
    if description.recover is not None:
        yield f"`ingest recover {source.slug}` asks for what was missed."


def _verification(source: type[DescribedSource], verify: Verify) -> Iterator[str]:
    if verify.scheme == "none":
        yield "Nothing proves where a request comes from: everybody may send one."
        return
    if verify.scheme == "token":
        yield f"A request carries the secret itself, in {_token_place(verify)}; it proves no body."
    else:
        scheme = f"HMAC with {verify.scheme.removeprefix('hmac-').upper()}"
        yield (
            f"A request is signed: {scheme if verify.is_hmac else 'Ed25519'} of"
            f" {_pieces(verify.signed)}, in {verify.encoding}, in {_header(verify.header or '')}"
            f"{_grammar(verify)}."
        )
        if not any(part.kind == "body" for part in template.parse(verify.signed)):
            yield "The body is not signed: a captured request can be sent again with any other."
    if verify.public_key_prefix:
        yield (
            f"A secret that begins with `{verify.public_key_prefix}` is an Ed25519 public key."
            f" Its signatures are the items `{verify.public_key_field}`."
        )
    where = _place(source, "secrets")
    yield f"{_key(verify)}Secrets are read from {where}; several may be live at once."


def _place(source: type[DescribedSource], field: str) -> str:
    file = source.file(field)
    return f"the file {file}" if file else f"`{source.variable(field)}`"


def _key(verify: Verify) -> str:
    """Return what a secret is, as a sentence with a space behind it."""
    if verify.scheme == "token":
        return ""
    key = "public key" if verify.scheme == "ed25519" else "key"
    after = f" after `{verify.key_prefix}`" if verify.key_prefix else ""
    if verify.key == "text":
        return "The secret's text is the key. "
    return f"The secret is the {key} in {verify.key}{after}. "


def _token_place(verify: Verify) -> str:
    if verify.header is not None:
        return f"{_header(verify.header)}{_grammar(verify)}"
    if verify.query is not None:
        return f"the query parameter `{verify.query}`"
    return f"the body's field `{verify.path}`"


def _grammar(verify: Verify) -> str:
    if verify.separator:
        item = f"{verify.field}{verify.field_separator}…"
        return f", as items `{item}` separated by {_spelled(verify.separator)}; others are skipped"
    return f" after `{verify.prefix}`" if verify.prefix else ""


def _time(description: Description) -> str:
    time = description.time
    if time is None:
        return (
            "No time is signed: a captured request can be sent again, and makes no second event as"
            " long as its id is the same."
        )
    future = "as far as it likes" if time.future_s == "any" else f"up to {time.future_s} s"
    return (
        f"The time of signing is in {_time_place(time)}: up to {time.past_s} s ago,"
        f" or {future} ahead of now."
    )


def _time_place(time: Time) -> str:
    if time.header is not None:
        return _header(time.header)
    if time.field is not None:
        return f"the item `{time.field}` of the signature header"
    return f"the body's field `{time.path}`"


def _challenge(source: type[DescribedSource], challenge: Challenge) -> str:
    if challenge.method == "GET":
        return (
            f"A `GET` with `{challenge.match_field}={challenge.match_value}` is a challenge: it is"
            f" answered with `{challenge.echo}` if `{challenge.token}` is the verify token, which"
            f" is read from {_place(source, 'verify_token')}."
        )
    signed = "a signed" if challenge.signed else "an unsigned"
    return (
        f"A body whose `{challenge.match_field}` is `{challenge.match_value}` is {signed}"
        f" challenge: it is answered with its `{challenge.echo}`."
    )


def _decoding(description: Description) -> str:
    form = "A body is a form"
    if description.form_field:
        form += f", whose field `{description.form_field}` holds JSON if it is there"
    texts = {
        "json": "A body is a JSON object.",
        "form": f"{form}.",
        "any": f"A body is a JSON object, or {form.removeprefix('A body is ')}.",
    }
    return texts[description.decode]


def _retries(description: Description) -> str:
    policy = description.retries
    if policy is None:
        return "When the sender sends again is not said."
    if not policy.waits_s:
        told = "The sender never sends again: a request that is answered 503 may be lost"
        return f"{told}. {policy.recovery}".strip() if policy.recovery else f"{told}."
    waits = ", ".join(_duration(wait) for wait in policy.waits_s)
    return (
        f"The sender sends again after {waits}, until it is answered {' or '.join(policy.final)}."
    )


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def _names(templates: Sequence[str]) -> str:
    return ", otherwise ".join(_pieces(line) for line in templates)


def _pieces(line: str) -> str:
    return " + ".join(_piece(part) for part in template.parse(line))


def _piece(part: Part) -> str:
    if part.kind == "literal":
        return _spelled(part.names[0])
    if part.kind == "header":
        return _header("|".join(part.names))
    fixed = {"body": "the body", "url": "the address", "content": "a digest of the content"}
    if part.kind in fixed:
        return fixed[part.kind]
    if part.kind == "field":
        return f"the item `{part.names[0]}` of the signature header"
    if part.kind == "key":
        return f"the name of the field that is there, {_either(part.names)}"
    return f"the field {_either(part.names)}"


def _unsigned(description: Description) -> list[str]:
    """Return the headers that name an event and are not signed."""
    signed = _headers_of([description.verify.signed])
    return [
        name for name in _headers_of([*description.id, *description.type]) if name not in signed
    ]


def _headers_of(templates: Sequence[str]) -> list[str]:
    parts = [part for line in templates for part in template.parse(line)]
    return list(dict.fromkeys(n for part in parts if part.kind == "header" for n in part.names))


def _and(names: Sequence[str]) -> str:
    listed = " and ".join(f"`{name}`" for name in names)
    return f"The header {listed} is" if len(names) == 1 else f"The headers {listed} are"


def _header(names: str) -> str:
    return f"the header {_either(names.split('|'))}"


def _either(names: Sequence[str]) -> str:
    return " or ".join(f"`{name}`" for name in names)


def _spelled(text: str) -> str:
    return {" ": "a space", ",": "a comma"}.get(text, f"`{text}`")
