"""What can be said of a destination in TOML. A description that contradicts itself is refused."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from ingest import queues, rates, setting_values
from ingest.ordered_by import MOST_FIELDS, is_field
from ingest.public_addresses import is_address, is_public
from ingest.secret_references import Reference

MOST_THREADS = 100
"""Of one worker process: as many as a processor may have."""
_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_TYPE = re.compile(r"[^\s\[\]?]+")
_HEADER = re.compile(r"[a-z0-9][a-z0-9-]*")
_VALUE = re.compile(r"[\x20-\x7e]*")
_OURS = frozenset(
    {"connection", "content-length", "content-type", "expect", "host", "te", "trailer"}
    | {"accept-encoding", "keep-alive", "transfer-encoding", "upgrade"}
)
"""Headers that say how a request is sent, or what its body is."""
_SECRET_HEADERS = frozenset(
    {"authorization", "cookie", "proxy-authorization", "x-api-key", "x-auth-token"}
)
_Variable = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]
_Text = Annotated[str, Field(max_length=2000)]
_Rate = Annotated[str, AfterValidator(lambda value: str(rates.parse(value)))]
_Seconds = Annotated[float, Field(gt=0, le=10**8, allow_inf_nan=False)]


class BreakerRules(BaseModel):
    """When a destination is down, so that its events wait: it gave no answer, or a 5xx."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    after: int = Field(10, ge=1, le=1_000_000)
    """So many requests in a row."""
    probe_every_s: float = Field(30, gt=0, le=86_400, allow_inf_nan=False)
    """Meanwhile, from one probe to the next."""


class Destination(BaseModel):
    """An HTTP endpoint, and which events it gets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(max_length=50)
    """The processor's name: it identifies the jobs, and is a part of each message's id."""
    url: _Text | None = None
    url_env: _Variable | None = None
    url_file: Path | None = None
    types: tuple[str, ...] = Field(min_length=1)
    """Event types, or patterns as in searches."""
    sources: tuple[str, ...] = ()
    """Only events of these; none: of all."""
    ordered_by: tuple[str, ...] = ()
    """Fields of the events' data. Events of one key are forwarded one after another, as received;
    none: there is no order."""
    on_dead: Literal["wait", "skip"] = "wait"
    """What becomes of the events behind a dead letter."""
    body: Literal["json", "raw"] = "json"
    """`raw`: the stored body, as the sender sent it."""
    secrets_env: _Variable | None = None
    secrets_file: Path | None = None
    headers: Mapping[str, _Text] = Field({})
    headers_env: Mapping[str, _Variable] = Field({})
    headers_file: Mapping[str, Path] = Field({})
    allow_http: bool = False
    allow_private: bool = False
    """Whether it may be in a private network, or on this machine."""
    ca_file: Path | None = None
    """Certificates that are trusted instead of the system's."""
    timeout_s: float = Field(15, gt=0, le=300, allow_inf_nan=False)
    """Of one request, from resolving the name to reading the answer."""
    threads: int = Field(10, ge=1, le=MOST_THREADS)
    """How many requests a worker process makes at once."""
    concurrency: int | None = Field(None, ge=1, le=rates.MOST_AT_ONCE)
    """How many requests all workers make at once; None: as many as their threads."""
    rate: _Rate | None = None
    """How many requests begin in any window of time, likewise."""
    limit_by: tuple[str, ...] = ()
    """Fields of the events' data, whose values get equal shares of that."""
    key_concurrency: int | None = Field(None, ge=1, le=rates.MOST_AT_ONCE)
    key_rate: _Rate | None = None
    queue: str = Field("destinations", pattern=r"^[A-Za-z0-9_.-]+$", max_length=100)
    max_attempts: int | None = Field(None, ge=1, le=1_000)
    retry_base_s: _Seconds | None = None
    retry_max_delay_s: _Seconds | None = None
    breaker: BreakerRules | None = None
    """None: each event spends its attempts, whether it is down or not."""

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("a name is lower-case letters, digits and dashes")
        return value

    @field_validator("types")
    @classmethod
    def _are_types(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if not all(_TYPE.fullmatch(value) for value in values):
            raise ValueError("name event types (order.created) or patterns (order.*)")
        return values

    @field_validator("ordered_by", "limit_by", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("ordered_by", "limit_by")
    @classmethod
    def _are_fields(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if len(values) > MOST_FIELDS or not all(map(is_field, values)):
            raise ValueError(
                f"name a field of the data (order_id, order.id), or up to {MOST_FIELDS} of them"
            )
        return values

    @field_validator("url")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None:
            check_url(value)
        return value

    @field_validator("queue")
    @classmethod
    def _for_itself(cls, value: str) -> str:
        if value == queues.REPLAY:
            raise ValueError(f"the queue {queues.REPLAY} is for replays")
        return value

    @field_validator("headers", "headers_env", "headers_file")
    @classmethod
    def _are_headers(cls, values: Mapping[str, object]) -> Mapping[str, object]:
        for name in values:
            if not _HEADER.fullmatch(name):
                raise ValueError("a header's name is lower-case letters, digits and dashes")
            if name in _OURS or name.startswith("webhook-"):
                raise ValueError(f"the header {name} is set by us")
        return values

    @field_validator("headers")
    @classmethod
    def _hold_no_secret(cls, values: Mapping[str, str]) -> Mapping[str, str]:
        for name, value in values.items():
            if name in _SECRET_HEADERS:
                raise ValueError(
                    f"a secret does not stand in this file: put {name} into headers_env or"
                    " headers_file"
                )
            check_header(value)
        return values

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if sum(place is not None for place in (self.url, self.url_env, self.url_file)) != 1:
            raise ValueError("one of url, url_env, url_file is needed")
        if (self.secrets_env is None) == (self.secrets_file is None):
            raise ValueError("one of secrets_env, secrets_file is needed: requests are signed")
        named = [*self.headers, *self.headers_env, *self.headers_file]
        if len(named) != len(set(named)):
            raise ValueError("a header is given twice")
        if self.on_dead == "skip" and not self.ordered_by:
            raise ValueError("on_dead needs ordered_by: without an order nothing is behind")
        if not self.limit_by and (self.key_concurrency or self.key_rate):
            raise ValueError("key_concurrency and key_rate need limit_by: what is the key?")
        if self.url is not None:
            check_rules(self.url, allow_http=self.allow_http, allow_private=self.allow_private)
        return self

    @property
    def address(self) -> Reference:
        """Return where its address is."""
        return Reference(self.url_env, self.url_file, self.url)

    @property
    def secrets(self) -> Reference:
        """Return where its secrets are."""
        return Reference(self.secrets_env, self.secrets_file)


def check_url(url: str) -> None:
    """Check an address. Raise ValueError, with a clause that does not quote it."""
    if not setting_values.is_web_address(url) or "#" in url:
        raise ValueError("this must be an address of the form https://HOST/PATH")
    if "@" in urlsplit(url).netloc:
        raise ValueError("a password does not stand in an address: use headers_env")


def check_rules(url: str, *, allow_http: bool, allow_private: bool) -> None:
    """Check that an address is one that may be sent to, as far as it can be seen before its name is
    resolved. Raise ValueError, likewise."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "http" and not allow_http:
        raise ValueError("http is not encrypted: use https, or set allow_http = true")
    is_private = host == "localhost" or (is_address(host) and not is_public(host))
    if is_private and not allow_private:
        raise ValueError("a private address needs allow_private = true")


def check_header(value: str) -> None:
    """Check the value of a header. Raise ValueError, likewise."""
    if not _VALUE.fullmatch(value):
        raise ValueError("a header's value is one line of ASCII")
