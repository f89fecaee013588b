"""What can be said of a sender in TOML. A description that contradicts itself is refused."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from ingest.sources.described import template
from ingest.sources.signatures import MAX_UNVERIFIED_BYTES

_HEADER = re.compile(r"[a-z0-9-]+(\|[a-z0-9-]+)*")


def _header(value: str) -> str:
    if not _HEADER.fullmatch(value):
        raise ValueError("a header's name is lower-case letters, digits and dashes, with no colon")
    return value


_Header = Annotated[str, Field(max_length=200), AfterValidator(_header)]
"""A header's lower-case name; `a|b`: the first of them that is there."""
_NAME = "[A-Za-z0-9_.-]+"
_HOOK = re.compile(rf"(repos/{_NAME}/{_NAME}|orgs/{_NAME})/hooks/[0-9]+|app/hook")
_VARIABLE = r"^[A-Z][A-Z0-9_]*$"
_Seconds = Annotated[int, Field(ge=0, lt=2**31)]


def _parsed(value: str) -> str:
    template.parse(value)
    return value


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Template = Annotated[str, Field(max_length=500)]
Templates = Annotated[tuple[Template, ...], BeforeValidator(_listed)]
"""Templates in their order; the first whose parts are all there counts."""


def _dotted(value: str) -> str:
    if "{" in value or "}" in value:
        raise ValueError("this is a field's path, a.b, and no template: take the braces away")
    return value


FieldPath = Annotated[str, AfterValidator(_dotted)]
Paths = Annotated[tuple[FieldPath, ...], BeforeValidator(_listed)]


_OF_A_TOKEN = frozenset({"scheme", "header", "query", "path", "prefix"})
"""The keys of `verify` that a token has."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Verify(_Frozen):
    """How a request proves where it comes from."""

    scheme: Literal["none", "token", "hmac-sha1", "hmac-sha256", "hmac-sha512", "ed25519"]
    """`token`: the request carries the secret itself. `ed25519`: the secrets are public keys."""
    header: _Header | None = None
    """The header that holds the signature or the token."""
    query: str | None = None
    """The query parameter that holds the token."""
    path: str | None = None
    """The body's field that holds the token."""
    prefix: str = Field("", max_length=50)
    """What stands before the whole value, `sha256=`, `Bearer `."""
    separator: str = Field("", max_length=5)
    """What separates the items of the header; empty: the whole value is one signature."""
    field: str = Field("", max_length=50)
    """The name of the items that are signatures, `v1`. Items of other names are skipped."""
    field_separator: str = Field("=", min_length=1, max_length=5)
    encoding: Literal["hex", "base64", "base64url"] = "hex"
    key: Literal["text", "hex", "base64"] = "text"
    """What the secret is: the key's text, or the key so encoded."""
    key_prefix: str = Field("", max_length=50)
    """What is taken away before a secret is decoded, `whsec_`."""
    public_key_prefix: str = Field("", max_length=50)
    """Of a sender with HMAC: what Ed25519 public keys among the secrets begin with, `whpk_`."""
    public_key_field: str = Field("", max_length=50)
    """The name of the items that are signatures of those, `v1a`."""
    signed: Template = "{body}"
    """The signed bytes."""

    @field_validator("signed")
    @classmethod
    def _readable(cls, value: str) -> str:
        return _parsed(value)

    @property
    def is_hmac(self) -> bool:
        """Return whether the scheme is an HMAC."""
        return self.scheme.startswith("hmac-")

    @property
    def is_signature(self) -> bool:
        """Return whether the request is signed, by whatever scheme."""
        return self.is_hmac or self.scheme == "ed25519"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        places = [place for place in (self.header, self.query, self.path) if place is not None]
        if self.scheme == "none" and self.model_fields_set != {"scheme"}:
            raise ValueError('scheme "none" takes no other key')
        if self.scheme == "token" and len(places) != 1:
            raise ValueError('scheme "token" needs one of header, query and path')
        if self.is_signature and (self.header is None or len(places) != 1):
            raise ValueError("a signature stands in a header: set header, not query or path")
        if bool(self.separator) != bool(self.field):
            raise ValueError("separator and field go together")
        if self.scheme == "token" and (unread := self.model_fields_set - _OF_A_TOKEN):
            raise ValueError(f"with a token nothing is signed: take {min(unread)} away")
        if self.prefix and self.scheme == "token" and self.header is None:
            raise ValueError("a prefix stands in a header: set header, not query or path")
        if self.scheme == "ed25519" and self.key == "text":
            raise ValueError('a public key is encoded: set key, "hex" or "base64"')
        if bool(self.public_key_prefix) != bool(self.public_key_field):
            raise ValueError("public_key_prefix and public_key_field go together")
        if self.public_key_prefix and not (self.is_hmac and self.separator):
            raise ValueError("public_key_prefix needs an HMAC, and a header of several items")
        if self.key_prefix and self.key == "text":
            raise ValueError('key_prefix is taken away before decoding: set key, "base64" or "hex"')
        kinds = {part.kind for part in template.parse(self.signed)}
        if kinds & {"path", "key", "content"}:
            raise ValueError("signed has parts header, field, body and url only")
        if "field" in kinds and not self.separator:
            raise ValueError("signed has a field of the header, which has no separator")
        return self


class Time(_Frozen):
    """When the request was signed."""

    header: _Header | None = None
    field: str | None = None
    """An item of the signature header."""
    path: str | None = None
    unit: Literal["s", "ms"] = "s"
    past_s: _Seconds = 300
    """How old a request may be."""
    future_s: _Seconds | Literal["any"] = 300
    """How far ahead of now it may be signed."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(place is not None for place in (self.header, self.field, self.path)) != 1:
            raise ValueError("a time needs one of header, field and path")
        return self


class Challenge(_Frozen):
    """The challenge at set-up."""

    method: Literal["POST", "GET"] = "POST"
    match_field: str
    """The field of the JSON body, or the query parameter, that tells a challenge."""
    match_value: str
    echo: str
    """The field or parameter that is sent back: a POST's as JSON, a GET's as text."""
    token: str | None = None
    """GET: the parameter that must equal the verify token."""
    verify_token_env: str | None = Field(None, pattern=_VARIABLE)
    """The variable that holds the verify token, instead of `INGEST_{SLUG}_VERIFY_TOKEN`."""
    verify_token_file: Path | None = None
    """The file that holds the verify token."""
    signed: bool = False
    """POST: whether the challenge is signed as events are."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.method == "GET" and (self.token is None or self.signed):
            raise ValueError("a challenge by GET has a token and no signature")
        if self.verify_token_env and self.verify_token_file:
            raise ValueError("verify_token_env and verify_token_file contradict each other")
        if self.method == "POST" and (
            self.token or self.verify_token_env or self.verify_token_file
        ):
            raise ValueError("a challenge by POST has no token")
        return self


class Split(_Frozen):
    """How a body of many events is taken apart."""

    path: str
    """The field that holds the list."""
    element: Literal["item", "envelope"] = "item"
    """An event's body: the item alone, or the whole body with the item alone in its list."""
    if_field: str | None = None
    """Only bodies in which this field is true are taken apart."""


class SuccessAnswer(_Frozen):
    """The answer to a delivery that is stored."""

    body: str = '{"received": true}'
    content_type: str = "application/json"


class RetryPolicy(_Frozen):
    """When the sender sends again, for the simulator and for people."""

    waits_s: tuple[Annotated[float, Field(ge=0, le=10**8, allow_inf_nan=False)], ...] = ()
    final: tuple[Annotated[str, Field(pattern=r"^[1-5]([0-9]{2}|xx)$")], ...] = ("2xx",)
    timeout_s: float | None = Field(None, gt=0, le=10**8, allow_inf_nan=False)
    recovery: str = ""
    """How missed events can be fetched, in a sentence."""


class Recover(_Frozen):
    """Where deliveries that the sender gave up are asked for again."""

    api: Literal["github"]
    url: str = Field("https://api.github.com", pattern=r"^https?://[^\s?#]+$", max_length=2000)
    """Of the API."""
    hooks: Paths = ()
    """The webhooks that send here, as the paths of GitHub's API name them."""
    token_env: str | None = Field(None, pattern=r"^[A-Z][A-Z0-9_]*$")
    """The variable that holds the token."""
    token_file: Path | None = None
    """The file that holds it, and has precedence."""
    app: str | None = Field(None, pattern=r"^[A-Za-z0-9._-]+$", max_length=100)
    """The client id of a GitHub app: then its private key is what stands in place of the token."""

    @field_validator("hooks")
    @classmethod
    def _named(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if not all(_HOOK.fullmatch(value) for value in values):
            raise ValueError("a hook is repos/OWNER/NAME/hooks/ID, orgs/NAME/hooks/ID or app/hook")
        return values


class Sample(_Frozen):
    """A body to try a pipeline with. `<id>`, `<number>`, `<time>` and `<seconds>` in it are new for
    each event."""

    type: str
    body: str
    headers: Mapping[str, str] = Field({})
    content_type: str = "application/json"


class Page(_Frozen):
    """What people read about the sender."""

    setup: str = ""
    notes: tuple[str, ...] = ()
    documentation: str = ""


class Description(_Frozen):
    """A sender."""

    title: str = Field(min_length=1, max_length=100)
    verify: Verify
    time: Time | None = None
    challenge: Challenge | None = None
    decode: Literal["json", "form", "any"] = "json"
    """`any`: a body that begins as JSON is JSON, another is a form. The Content-Type is not signed,
    and is not asked."""
    form_field: str | None = None
    """The field of a form that holds JSON, where the form has it."""
    split: Split | None = None
    id: Templates
    type: Templates
    data: FieldPath | None = None
    """The field that processors get as `event.data`; unset, or no object: the whole body."""
    occurred_at: Paths = ()
    ignore: tuple[str, ...] = ()
    """Top-level fields that differ between two deliveries of one event."""
    entities: Mapping[str, Paths] = Field({})
    persons: tuple[FieldPath, ...] = ()
    titles: Mapping[str, Templates] = Field({})
    """By type or pattern of types: what happened, in a few words."""
    kept_headers: tuple[_Header, ...] = ()
    body_limit: int | None = Field(None, gt=0, lt=2**31)
    success: SuccessAnswer = SuccessAnswer()
    retries: RetryPolicy | None = None
    recover: Recover | None = None
    samples: tuple[Sample, ...] = Field(min_length=1)
    page: Page = Page()
    url: str | None = Field(None, max_length=2000)
    """The address of this source as the sender has it, where the sender signs it."""
    secrets_env: str | None = Field(None, pattern=_VARIABLE)
    """The variable that holds the secrets, instead of `INGEST_{SLUG}_SECRETS`."""
    secrets_file: Path | None = None
    """The file that holds the secrets."""

    @field_validator("id", "type")
    @classmethod
    def _readable(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if {part.kind for part in template.parse(value)} & {"body", "url", "field"}:
                raise ValueError("a name has parts header, path, key and content only")
        if not values:
            raise ValueError("one template at least is needed")
        return values

    @field_validator("titles")
    @classmethod
    def _titled(cls, values: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
        for line in (line for lines in values.values() for line in lines):
            template.parse_title(line)
        return values

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.time and self.time.field and not self.verify.separator:
            raise ValueError("time is a field of the signature header, which has no separator")
        if self.time and not self.verify.is_signature:
            raise ValueError("a time that is not signed proves nothing: take time away")
        parts = template.parse(self.verify.signed)
        if any(part.kind == "url" for part in parts) and not self.url:
            raise ValueError("the sender signs its address: set url to it, as the sender has it")
        is_open = self.verify.path is not None
        if is_open and not (self.body_limit and self.body_limit <= MAX_UNVERIFIED_BYTES):
            raise ValueError(
                f"a token in the body needs a body_limit of {MAX_UNVERIFIED_BYTES} or less"
            )
        if self.secrets_env and self.secrets_file:
            raise ValueError("secrets_env and secrets_file contradict each other")
        if any(part.kind == "content" for line in self.type for part in template.parse(line)):
            raise ValueError("a type is not named by its content")
        return self
