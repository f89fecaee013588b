"""The file that `INGEST_ALERTS` names: channels, thresholds, quiet hours. TOML, read at the start.

No secret stands in it. A secret is read from its variable or file each time it is used, so it can
be changed without a restart.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, time
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Self, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from ingest import setting_values
from ingest.alerts.catalogue import RULES, Rule
from ingest.errors import SettingsError
from ingest.secret_references import Reference

_ADDRESS = re.compile(r"[^@\s<>,;]+@[^@\s<>,;]+")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,49}")
_Variable = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]
_Seconds = Annotated[float, Field(ge=0, le=10**8, allow_inf_nan=False)]
_Span = Annotated[float, Field(gt=0, le=10**8, allow_inf_nan=False)]
_Model = TypeVar("_Model", bound=BaseModel)
_SECRETS = ("password", "secret", "token", "url")


def _address(value: str) -> str:
    if not value.isprintable() or not _ADDRESS.fullmatch(value):
        raise ValueError("must be an e-mail address, name@example.com")
    return value


def _web_address(value: str) -> str:
    if not setting_values.is_web_address(value):
        raise ValueError("must be an address of the form https://HOST/PATH")
    return value


_WebAddress = Annotated[str, Field(max_length=2000), AfterValidator(_web_address)]
_Address = Annotated[str, Field(max_length=254), AfterValidator(_address)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class _Channel(_Frozen):
    rules: tuple[str, ...] = ()
    """The rules that it is told; none: all."""
    urgent_only: bool = False

    @field_validator("rules")
    @classmethod
    def _known(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if value not in RULES:
                raise ValueError(f"there is no rule {value!r}{_perhaps(value, RULES)}")
        return values

    def takes(self, slug: str, *, urgent: bool) -> bool:
        """Return whether it is told a rule."""
        return (not self.rules or slug in self.rules) and (urgent or not self.urgent_only)


class _ByAddress(_Channel):
    """A channel whose address is a secret."""

    url_env: _Variable | None = None
    url_file: Path | None = None

    @property
    def url_reference(self) -> Reference:
        """Return where its address is."""
        return Reference(self.url_env, self.url_file)

    @model_validator(mode="after")
    def _has_address(self) -> Self:
        _one_of(self, "url_env", "url_file")
        return self


class Slack(_ByAddress):
    """An incoming webhook of Slack."""

    kind: Literal["slack"]


class Apprise(_ByAddress):
    """Whatever the library apprise speaks."""

    kind: Literal["apprise"]


class Email(_Channel):
    """An SMTP server, and who gets mail through it."""

    kind: Literal["email"]
    host: str = Field(min_length=1, max_length=253)
    port: int | None = Field(None, ge=1, le=65535)
    tls: Literal["starttls", "tls", "none"] = "starttls"
    sender: _Address = Field(alias="from")
    to: tuple[_Address, ...] = Field(min_length=1, max_length=50)
    username: str | None = None
    password_env: _Variable | None = None
    password_file: Path | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.username is not None:
            _one_of(self, "password_env", "password_file")
        elif self.password_env or self.password_file:
            raise ValueError("a password needs a username")
        if self.username is not None and self.tls == "none":
            raise ValueError('a password is not sent without TLS: set tls, "starttls" or "tls"')
        return self

    @property
    def password_reference(self) -> Reference:
        """Return where the password is."""
        return Reference(self.password_env, self.password_file)

    @property
    def server_port(self) -> int:
        """Return the port, by default the usual one."""
        return self.port or {"starttls": 587, "tls": 465, "none": 25}[self.tls]


class Webhook(_Channel):
    """An HTTP address that is posted to, signed as Standard Webhooks says."""

    kind: Literal["webhook"]
    url: _WebAddress | None = None
    url_env: _Variable | None = None
    url_file: Path | None = None
    secret_env: _Variable | None = None
    secret_file: Path | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        _one_of(self, "url", "url_env", "url_file")
        _one_of(self, "secret_env", "secret_file")
        return self

    @property
    def url_reference(self) -> Reference:
        """Return where its address is."""
        return Reference(self.url_env, self.url_file, self.url)

    @property
    def secret_reference(self) -> Reference:
        """Return where the secret is, `whsec_` and base64."""
        return Reference(self.secret_env, self.secret_file)


Channel = Slack | Email | Webhook | Apprise


class QuietHours(_Frozen):
    """When only what is urgent is told. The hours may go past midnight."""

    begin: time = Field(alias="from")
    end: time = Field(alias="to")
    zone: str
    """Of the IANA database, `Asia/Riyadh`."""

    @field_validator("zone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("must be a time zone such as Asia/Riyadh or Europe/Berlin") from None
        return value

    @model_validator(mode="after")
    def _last(self) -> Self:
        if self.begin == self.end:
            raise ValueError("from and to are the same time")
        return self

    def include(self, moment: datetime) -> bool:
        """Return whether a moment is in them, by the clock of their zone."""
        clock = moment.astimezone(ZoneInfo(self.zone)).time()
        if self.begin < self.end:
            return self.begin <= clock < self.end
        return clock >= self.begin or clock < self.end


class Heartbeat(_Frozen):
    """An address that is asked after evaluations. Whoever watches it tells when that ends."""

    url: _WebAddress | None = None
    url_env: _Variable | None = None
    url_file: Path | None = None
    every_s: _Span = 60

    @model_validator(mode="after")
    def _has_address(self) -> Self:
        _one_of(self, "url", "url_env", "url_file")
        return self

    @property
    def url_reference(self) -> Reference:
        """Return where the address is."""
        return Reference(self.url_env, self.url_file, self.url)


class RuleSettings(_Frozen):
    """What is said of one rule. Thresholds are further keys, checked against the catalogue."""

    enabled: bool = True
    urgent: bool | None = None
    for_s: _Seconds | None = None
    recover_for_s: _Seconds | None = None
    thresholds: Mapping[str, _Seconds] = Field({})


class _File(_Frozen):
    interval_s: _Span = 15
    throttle_s: _Seconds = 900
    remind_s: _Seconds = 14_400
    grouping: Literal["rule", "all", "none"] = "rule"
    console: _WebAddress | None = None
    runbooks: _WebAddress | None = None
    channels: Mapping[str, Annotated[Channel, Field(discriminator="kind")]] = Field({})
    quiet: QuietHours | None = None
    heartbeat: Heartbeat | None = None
    rules: Mapping[str, RuleSettings] = Field({})

    @field_validator("channels")
    @classmethod
    def _names(cls, values: Mapping[str, Channel]) -> Mapping[str, Channel]:
        for name in values:
            if not _NAME.fullmatch(name):
                raise ValueError("a name is lower-case letters, digits, dashes and underscores")
        return values


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What holds for one rule: the catalogue's defaults, or what the file says."""

    rule: Rule
    enabled: bool
    urgent: bool
    for_s: float
    recover_for_s: float
    thresholds: Mapping[str, float]

    def __getitem__(self, name: str) -> float:
        """Return a threshold."""
        return self.thresholds[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Everything that the file says, or the defaults."""

    policies: Mapping[str, Policy]
    interval_s: float = 15
    throttle_s: float = 900
    """Not more than one message about a rule and subject in that time; recoveries are extra."""
    remind_s: float = 14_400
    """What still fires, and nobody has acknowledged, is told again after that; 0: never."""
    grouping: Literal["rule", "all", "none"] = "rule"
    console: str | None = None
    """The console's address, for links."""
    runbooks: str | None = None
    """The address of the page of runbooks, for links."""
    channels: Mapping[str, Channel] = field(default_factory=dict)
    quiet: QuietHours | None = None
    heartbeat: Heartbeat | None = None


def read(path: Path | None) -> Configuration:
    """Return what the file says; None: the defaults, and no channels.

    Raises:
        SettingsError: it cannot be read or used. The sentence names file and field, and no value.
    """
    if path is None:
        return Configuration(policies=_policies({}))
    table = _parsed(path)
    rules = table.pop("rules", {})
    table["rules"] = _rules(path, rules)
    try:
        file = _File.model_validate(table)
    except ValidationError as error:
        _refuse_first(path, error)
    channels = {name: _beside(path, channel) for name, channel in file.channels.items()}
    return Configuration(
        policies=_policies(file.rules),
        interval_s=file.interval_s,
        throttle_s=file.throttle_s,
        remind_s=file.remind_s,
        grouping=file.grouping,
        console=file.console,
        runbooks=file.runbooks,
        channels=channels,
        quiet=file.quiet,
        heartbeat=file.heartbeat and _beside(path, file.heartbeat),
    )


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        _refuse(path, error.strerror or "it cannot be read")
    except UnicodeDecodeError:
        _refuse(path, "this is not UTF-8 text")
    except tomllib.TOMLDecodeError as error:
        why = str(error).rstrip(".")
        _refuse(path, f"this is not TOML: {why[:1].lower()}{why[1:]}")


def _rules(path: Path, tables: object) -> dict[str, dict[str, Any]]:
    """Return the tables of rules, with thresholds apart from the fields that all rules have."""
    if not isinstance(tables, dict):
        _refuse(path, "rules: this must be tables, [rules.NAME]")
    separated: dict[str, dict[str, Any]] = {}
    for slug, table in tables.items():
        rule = RULES.get(slug)
        if rule is None:
            _refuse(path, f"rules.{slug}: there is no such rule{_perhaps(slug, RULES)}")
        if not isinstance(table, dict):
            _refuse(path, f"rules.{slug}: this must be a table, [rules.{slug}]")
        common = {name for name in RuleSettings.model_fields if name != "thresholds"}
        names = {threshold.name for threshold in rule.thresholds}
        for key in table:
            if key not in common | names:
                known = _perhaps(key, [*common, *names])
                _refuse(path, f"rules.{slug}.{key}: there is no such key{known}")
        own = {key: value for key, value in table.items() if key in common}
        thresholds = {key: value for key, value in table.items() if key in names}
        separated[slug] = own | {"thresholds": thresholds}
    return separated


def _policies(settings: Mapping[str, RuleSettings]) -> dict[str, Policy]:
    return {
        slug: _policy(rule, settings.get(slug) or RuleSettings(thresholds={}))
        for slug, rule in RULES.items()
    }


def _policy(rule: Rule, settings: RuleSettings) -> Policy:
    defaults = {threshold.name: threshold.default for threshold in rule.thresholds}
    values: dict[str, float | None] = defaults | dict(settings.thresholds)
    return Policy(
        rule=rule,
        enabled=settings.enabled and None not in values.values(),
        urgent=rule.urgent if settings.urgent is None else settings.urgent,
        for_s=rule.for_s if settings.for_s is None else settings.for_s,
        recover_for_s=(
            rule.recover_for_s if settings.recover_for_s is None else settings.recover_for_s
        ),
        thresholds={name: value for name, value in values.items() if value is not None},
    )


def _beside(path: Path, model: _Model) -> _Model:
    """Return a model whose files are looked for beside the configuration."""
    files = {
        name: path.parent / value
        for name in type(model).model_fields
        if isinstance(value := getattr(model, name), Path)
    }
    return model.model_copy(update=files)


def _one_of(model: BaseModel, *names: str) -> None:
    if sum(getattr(model, name) is not None for name in names) != 1:
        raise ValueError(f"one of {', '.join(names)} is needed")


_CLAUSES = {
    "extra_forbidden": "there is no such key",
    "missing": "this key is missing",
    "tuple_type": "this must be a list",
    "bool_type": "this must be true or false",
    "bool_parsing": "this must be true or false",
    "dict_type": "this must be a table",
    "mapping_type": "this must be a table",
    "model_type": "this must be a table",
    "model_attributes_type": "this must be a table",
    "string_type": "this must be a text in quotes",
    "string_pattern_mismatch": "this must be the name of a variable, UPPER_CASE",
    "float_type": "this must be a number",
    "float_parsing": "this must be a number",
    "int_type": "this must be a whole number",
    "int_parsing": "this must be a whole number",
    "time_type": 'this must be a time, "22:00"',
    "time_parsing": 'this must be a time, "22:00"',
    "union_tag_invalid": "this must be one of slack, email, webhook, apprise",
    "union_tag_not_found": "this key is missing: one of slack, email, webhook, apprise",
}


def _refuse_first(path: Path, error: ValidationError) -> NoReturn:
    problems = error.errors(include_input=False, include_url=False)
    problem = min(problems, key=lambda problem: problem["type"] != "extra_forbidden")
    place = [str(step) for step in problem["loc"]]
    if place[:1] == ["channels"] and len(place) > 2:
        del place[2]  # pydantic names the kind here
    if place[:1] == ["rules"] and "thresholds" in place:
        place.remove("thresholds")
    if problem["type"].startswith("union_tag"):
        place.append("kind")
    clause = _CLAUSES.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    if problem["type"] == "extra_forbidden" and place[-1] in _SECRETS:
        clause = f"a secret does not stand in this file; use {place[-1]}_env or {place[-1]}_file"
    _refuse(path, f"{'.'.join(place) or 'the file'}: {clause[:1].lower()}{clause[1:]}")


def _perhaps(name: str, known: Iterable[str]) -> str:
    similar = get_close_matches(name, list(known), n=1)
    return f"; perhaps {similar[0]} was meant" if similar else ""


def _refuse(path: Path, why: str) -> NoReturn:
    raise SettingsError(f"{path}: {why}.", reason="bad_alerts")
