"""Every setting with its default and its check, read once into one frozen object.

The file is over 400 lines because fields, reading and errors need each other. The class names the
functions that read files, they go through its fields, and its check of the sources words errors.
Two files would import each other.
"""

import json
import os
import re
from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from ingest import proxies, setting_values
from ingest.destinations import files as destinations
from ingest.encryption import keys as encryption
from ingest.encryption.keys import NO_KEYS, BodyKeys
from ingest.errors import BadAddress, SettingsError
from ingest.redis_address import DEFAULT_PREFIX, RedisAddress, parse_redis
from ingest.sources import registry
from ingest.sources.base import SourceSettings
from ingest.sources.described import files
from ingest.store import address
from ingest.store.address import SCHEMA, Database
from ingest.store.retention.ages import Ages

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

PREFIX = "INGEST_"
DEFAULT_DATA = Path(".ingest")
UP_FILE = "up.json"
"""The file in its data folder where a running `ingest up` writes how to reach it."""
OWN_SOURCES = "sources.toml"
"""The file in its data folder where `ingest up` describes the source that it starts with."""

MIB = 1024 * 1024
MOST_SECONDS = 10**9
"""Of any wait or time-out."""

_SOURCES = f"{PREFIX}SOURCES"
_SOURCE_FILES = "source_files"
_OF_A_SOURCE = "of_a_source"
"""The type of an error whose message is complete: it names the variable itself."""
_PROCESSES = re.compile(r"[1-9][0-9]{0,2}", re.ASCII)
_Positive = Annotated[int, Field(gt=0, lt=2**31)]
_Seconds = Annotated[float, Field(gt=0, le=MOST_SECONDS, allow_inf_nan=False)]
_Days = Annotated[int, Field(gt=0, le=36_500)]
_MetricsPort = Annotated[int | None, Field(ge=1, le=65535)]
_Names = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """The configuration of a process. A field is named as its variable, without `INGEST_`.

    The environment has precedence. Then comes the file that `INGEST_X_FILE` names; then, in a
    folder where `ingest up` runs, the file that it wrote; then the defaults here.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    data: Path = Field(DEFAULT_DATA, description="the folder that `ingest up` keeps its data in")
    database_url: SecretStr | None = Field(None, description="PostgreSQL, `postgresql://…`")
    migration_database_url: SecretStr | None = Field(
        None, description="where `ingest migrate` connects, past a pooler; unset: `database_url`"
    )
    database_schema: str = Field(
        SCHEMA, description="the schema that holds the pipeline's tables, and nothing else"
    )
    redis_url: SecretStr | None = Field(
        None, description="Redis, `redis://…`, `unix:///path` or `redis+sentinel://…`"
    )
    redis_prefix: str = Field(
        DEFAULT_PREFIX, description="what the names of all keys in Redis begin with"
    )

    host: str = Field("127.0.0.1", description="the receiver's address")
    port: int = Field(8000, ge=1, le=65535, description="the receiver's port")

    shutdown_delay_s: float = Field(
        0,
        ge=0,
        le=600,
        allow_inf_nan=False,
        description="a receiver that is told to end goes on receiving for this long and says that"
        " it is not ready, so that a proxy notices",
    )

    default_source: str = Field(
        "awalchat", description="the source that test events are sent as, unless another is named"
    )
    sources: Annotated[Mapping[str, SourceSettings], NoDecode] = Field(
        {}, description="the senders' settings by slug, each from variables of its own"
    )

    source_files: Annotated[tuple[Path, ...], NoDecode] = Field(
        (),
        description="TOML files that describe further senders and destinations, separated by"
        " commas",
    )

    receiver_url: str | None = Field(
        None, description="where the console posts test events; unset: `host` and `port`"
    )
    public_url: str | None = Field(
        None,
        description="the receiver's address as senders know it; unset: `receiver_url`",
    )

    console_host: str = Field("127.0.0.1", description="the console's address")
    console_port: int = Field(8001, ge=1, le=65535, description="the console's port")
    console_users: SecretStr | None = Field(
        None, description="who logs in to the console: lines of `ingest console create-user`"
    )
    console_tokens: SecretStr | None = Field(
        None,
        description="programs that use the console's API: lines of `ingest console create-token`",
    )
    console_allowed_hosts: _Names = Field(
        (), description="host names that the console accepts, separated by commas; unset: any"
    )
    console_tls_proxy: bool = Field(
        False, description="whether a proxy in front of the console terminates TLS"
    )
    console_mask_viewers: bool = Field(
        False, description="viewers see no phone numbers and no bodies"
    )
    console_url: str | None = Field(
        None,
        description="the console's address as browsers know it, for what an OIDC provider is sent;"
        " unset: the host that a browser asks for",
    )
    oidc_issuer: str | None = Field(
        None,
        description="the provider that people log in to the console with by OpenID Connect, an"
        " extra; `https://…`, as its own documents spell it",
    )
    oidc_title: str | None = Field(
        None, max_length=40, description="what the log-in page calls it; unset: its host name"
    )
    oidc_client_id: str | None = Field(None, description="what the provider knows the console by")
    oidc_client_secret: SecretStr | None = Field(
        None, description="the secret that the provider gave the console"
    )
    oidc_scopes: str = Field(
        "openid profile email",
        description="what the provider is asked for, with spaces between; `openid` among it",
    )
    oidc_role_claim: str = Field(
        "groups",
        min_length=1,
        description="the claim that gives the role; `realm_access.roles` looks into an object",
    )
    oidc_operators: _Names = Field(
        (), description="values of that claim that make an operator, separated by commas"
    )
    oidc_viewers: _Names = Field(
        (), description="values that make a viewer, likewise; nobody else gets in"
    )
    oidc_name_claim: str = Field(
        "name", min_length=1, description="the claim that gives the name that is shown"
    )
    oidc_session_s: float = Field(
        3_600,
        gt=0,
        le=43_200,
        allow_inf_nan=False,
        description="a session that the provider vouched for ends after this long, and the role is"
        " asked for again",
    )
    trusted_proxies: _Names = Field(
        (),
        description="addresses and networks of the proxies before the console and the receivers,"
        " separated by commas; their X-Forwarded-For is believed (by receivers: for the addresses"
        " of refused requests)",
    )

    max_body_bytes: _Positive = Field(1 * MIB, description="larger bodies are answered 413")
    max_inflight_body_bytes: _Positive = Field(
        64 * MIB,
        description="bytes of bodies on their way, together; the oldest beyond get 503; connections"
        " and their heads hold as much again, the oldest beyond are closed",
    )
    body_deadline_s: _Seconds = Field(10, description="a body that takes longer is answered 503")
    keep_alive_s: _Positive = Field(
        75, description="an idle connection is closed after this long; longer than senders keep one"
    )
    retry_after_s: _Positive = Field(5, description="`Retry-After` of a 503, seconds")

    flush_max_rows: _Positive = Field(500, description="deliveries in one group commit, at most")
    flush_max_bytes: _Positive = Field(8 * MIB, description="bytes in one group commit, at most")
    flush_timeout_s: _Seconds = Field(3, description="a group commit that takes longer is given up")
    backlog_max_rows: _Positive = Field(
        5_000, description="deliveries that may wait for a commit; one more is answered 503"
    )
    backlog_max_bytes: _Positive = Field(64 * MIB, description="bytes that may wait, likewise")

    processors: _Names = Field((), description="modules with processors, separated by commas")
    release: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        pattern=r"^[!-~]+$",
        description="which release of your application a worker runs, a version or a commit"
        " (`$GITHUB_SHA`): failures are told by it",
    )
    read_model: bool = Field(True, description="run the built-in read model's processors")
    concurrency: _Positive = Field(2, description="processes of one worker")
    worker_processes: Annotated[dict[tuple[str, ...], int], NoDecode] = Field(
        {},
        description="processes of queues of their own, `events=2,crm+erp=1`; unset: `concurrency`"
        " for the live queue, one for all queues that processors have for themselves",
    )
    task_budget_s: _Seconds = Field(
        2, description="a task hands the rest of its jobs back after this long"
    )
    worker_drain_s: _Seconds = Field(
        30,
        description="a worker that is told to end lets processors run for this long, then gives"
        " their jobs back",
    )
    lease_s: _Seconds = Field(60, description="a claim that is not renewed ends after this long")
    max_attempts: _Positive = Field(
        8, le=1_000, description="attempts of a job unless its processor says"
    )
    attempt_timeout_s: _Seconds = Field(
        30, description="time of one attempt unless its processor says"
    )
    retry_base_s: _Seconds = Field(
        5, description="longest wait before the second attempt; doubles with each further one"
    )
    retry_max_delay_s: _Seconds = Field(3600, description="longest wait before any attempt")

    relay_interval_s: _Seconds = Field(1, description="time between two sweeps of the relay")
    relay_batch: _Positive = Field(1_000, description="rows that one sweep dispatches, at most")
    relay_queue_limit: _Positive = Field(
        100, description="with so many of its messages waiting in a queue, the relay adds none"
    )
    dispatch_grace_s: _Seconds = Field(
        2, description="how long after the commit the relay takes a delivery's hint for lost"
    )
    redispatch_after_s: _Seconds = Field(
        10, description="how long after a dispatch the relay dispatches the same work again"
    )
    partition_days_ahead: _Days = Field(14, description="days of deliveries made in advance")

    body_keys: SecretStr | None = Field(
        None,
        description="keys that stored bodies are encrypted with, newest first: lines of"
        " `ingest encryption key`; unset: bodies are stored in clear",
    )
    body_retention_days: _Days | None = Field(
        None, description="the relay drops the bodies of days that are older; unset: never"
    )
    event_retention_days: _Days | None = Field(
        None,
        description="the relay removes finished events that are older, with their jobs and"
        " attempts; not less than `body_retention_days`; unset: never",
    )
    past_event_retention_days: _Days | None = Field(
        None,
        description="late duplicates of removed events are known for so many days after the event;"
        " more than `event_retention_days`; unset: for ever",
    )
    refusal_retention_days: _Days | None = Field(
        None, description="the relay removes samples and counts of refused requests that are older"
    )
    activity_retention_days: _Days | None = Field(
        None,
        ge=30,
        description="the relay removes counts that are older; 30 or more: key use is told for them",
    )
    audit_retention_days: _Days | None = Field(
        None, description="the relay removes operators' actions and ended bulk actions, likewise"
    )
    failure_retention_days: _Days | None = Field(
        None,
        description="the relay removes groups of failures that were not seen for so long and of"
        " which no job is dead, with their notes; unset: never",
    )
    heartbeat_file: Path | None = Field(
        None, description="touched every few seconds by a worker or relay that is well"
    )
    alerts: Path | None = Field(
        None,
        description="the TOML file that says which alerts are sent where; unset: they are shown in"
        " the console",
    )
    metrics_host: str = Field(
        "127.0.0.1", description="the address that metrics are served on, without a login"
    )
    receiver_metrics_port: _MetricsPort = Field(
        None, description="a receiver's port for metrics; unset: it serves none"
    )
    worker_metrics_port: _MetricsPort = Field(None, description="a worker's, likewise")
    relay_metrics_port: _MetricsPort = Field(
        None, description="a relay's, likewise; with it the relay measures backlog and jobs"
    )
    console_metrics_port: _MetricsPort = Field(None, description="the console's, likewise")
    traces: bool = Field(
        False,
        description="send traces by OpenTelemetry, an extra; its own variables, `OTEL_…`, say where"
        " and how many",
    )
    sentry_dsn: SecretStr | None = Field(
        None,
        description="the DSN of Sentry, an extra, or of what speaks as it does, that dead letters"
        " are told to",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="what is logged: `debug`, `info`, `warning`, `error`"
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto`: readable in a terminal, JSON elsewhere"
    )

    @field_validator("sources", mode="before")
    @classmethod
    def _of_each_source(cls, value: Mapping[str, Any]) -> Mapping[str, SourceSettings]:
        read, problems = _read_sources(value)
        if problems:
            raise PydanticCustomError(
                _OF_A_SOURCE, "{sentences}", {"sentences": " ".join(problems)}
            )
        return read

    @field_validator("default_source")
    @classmethod
    def _known_source(cls, value: str) -> str:
        if value not in registry.classes():
            raise ValueError(f"must be one of {', '.join(registry.classes())}")
        return value

    @field_validator(
        *("console_allowed_hosts", "processors", "trusted_proxies"),
        *("oidc_operators", "oidc_viewers"),
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return setting_values.split(value)
        return value

    @field_validator("port", "console_port", mode="before")
    @classmethod
    def _not_of_kubernetes(cls, value: object, info: ValidationInfo) -> object:
        if setting_values.is_of_kubernetes(value):
            return cls.model_fields[str(info.field_name)].default
        return value

    @field_validator("alerts", "heartbeat_file", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        """Take an empty name for none: as a path it would be the folder of the process."""
        return value or None

    @field_validator("worker_processes", mode="before")
    @classmethod
    def _shares(cls, value: object) -> object:
        return _parse_shares(value) if isinstance(value, str) else value

    @field_validator("event_retention_days")
    @classmethod
    def _bodies_first(cls, days: int | None, info: ValidationInfo) -> int | None:
        bodies = info.data.get("body_retention_days")
        if days is not None and (bodies is None or bodies > days):
            raise ValueError(
                "must not be less than INGEST_BODY_RETENTION_DAYS, which must be set: nothing shows"
                " the body of an event that is gone"
            )
        return days

    @field_validator("past_event_retention_days")
    @classmethod
    def _outlives_events(cls, days: int | None, info: ValidationInfo) -> int | None:
        events = info.data.get("event_retention_days")
        if days is not None and events is not None and days <= events:
            raise ValueError("must be more than INGEST_EVENT_RETENTION_DAYS")
        return days

    @field_validator("console_allowed_hosts")
    @classmethod
    def _hosts(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            setting_values.check_host(name)
        return names

    @field_validator("trusted_proxies")
    @classmethod
    def _addresses(cls, trusted: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in trusted:
            proxies.check(proxy)
        return trusted

    @field_validator("database_url", "migration_database_url")
    @classmethod
    def _readable_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            _or_value_error(lambda: address.parse(value.get_secret_value()))
        return value

    @field_validator("body_keys")
    @classmethod
    def _readable_keys(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            encryption.parse(value.get_secret_value())
        return value

    @field_validator("database_schema")
    @classmethod
    def _own_schema(cls, value: str) -> str:
        _or_value_error(lambda: address.check_schema(value))
        return value

    @field_validator("redis_url")
    @classmethod
    def _readable_redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            _or_value_error(lambda: parse_redis(value.get_secret_value()))
        return value

    @field_validator("redis_prefix")
    @classmethod
    def _plain_prefix(cls, value: str) -> str:
        _or_value_error(lambda: parse_redis("redis://", prefix=value))
        return value

    @field_validator("receiver_url", "public_url")
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        # A path is added to it.
        if not setting_values.is_web_address(value) or "?" in value or "#" in value:
            raise ValueError("must be an address of the form http://HOST:PORT or https://HOST")
        return value

    @field_validator("console_url")
    @classmethod
    def _origin(cls, value: str | None) -> str | None:
        if value is not None and not setting_values.is_origin(value):
            raise ValueError(
                "must be http://HOST:PORT or https://HOST: the console's pages lie at the root"
            )
        return value and value.rstrip("/")

    @field_validator("oidc_issuer")
    @classmethod
    def _issuer(cls, value: str | None) -> str | None:
        if value is not None and not setting_values.is_safe_address(value):
            raise ValueError(
                "must be https://HOST/PATH without a query; http:// on this machine alone"
            )
        return value

    @property
    def database(self) -> Database:
        """Return the database. Raises SettingsError when there is none."""
        if self.database_url is None:
            raise SettingsError(
                "No database: set INGEST_DATABASE_URL, or run `ingest up` in this folder.",
                reason="no_database",
            )
        parsed = address.parse(self.database_url.get_secret_value(), schema=self.database_schema)
        return replace(parsed, body_keys=self.keys_of_bodies)

    @property
    def keys_of_bodies(self) -> BodyKeys:
        """Return what bodies are encrypted with."""
        if self.body_keys is None:
            return NO_KEYS
        return BodyKeys(encryption.parse(self.body_keys.get_secret_value()))

    @property
    def migration_database(self) -> Database:
        """Return the database as migrations reach it. Raises SettingsError when there is none."""
        if self.migration_database_url is None:
            return self.database
        url = self.migration_database_url.get_secret_value()
        return address.parse(url, schema=self.database_schema)

    @property
    def redis(self) -> RedisAddress:
        """Return Redis's address. Raises SettingsError when there is none."""
        if self.redis_url is None:
            raise SettingsError(
                "No Redis: set INGEST_REDIS_URL, or run `ingest up` in this folder.",
                reason="no_redis",
            )
        return parse_redis(self.redis_url.get_secret_value(), prefix=self.redis_prefix)

    @property
    def ages(self) -> Ages:
        """Return how long each kind is kept, but for bodies, which go by the day."""
        return Ages(
            events=_span(self.event_retention_days),
            past_events=_span(self.past_event_retention_days),
            refusals=_span(self.refusal_retention_days),
            activity=_span(self.activity_retention_days),
            audit=_span(self.audit_retention_days),
            failures=_span(self.failure_retention_days),
        )

    def metrics_port(self, process: str) -> int | None:
        """Return the port on which a kind of process serves its metrics; None: none."""
        ports = {
            "receiver": self.receiver_metrics_port,
            "worker": self.worker_metrics_port,
            "relay": self.relay_metrics_port,
            "console": self.console_metrics_port,
        }
        return ports[process]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (
            init_settings,
            _Given(settings_cls, _of_sources),
            env_settings,
            _Given(settings_cls, _from_files),
            _Given(settings_cls, _from_running_up),
        )


def _span(days: int | None) -> timedelta | None:
    return None if days is None else timedelta(days=days)


class _Standalone(Settings):
    """The settings, read without the file of a running `ingest up`."""

    @classmethod
    def settings_customise_sources(
        cls, *args: Any, **sources: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return super().settings_customise_sources(*args, **sources)[:-1]


def variables() -> dict[str, FieldInfo]:
    """Return every setting by the name of its variable, without `INGEST_`."""
    fields = {name.upper(): field for name, field in Settings.model_fields.items()}
    fields["SOURCES"] = fields.pop(_SOURCE_FILES.upper())  # that of `sources` has no variable
    for source in registry.classes().values():
        for name, field in source.settings.model_fields.items():
            if source.variable(name).startswith(PREFIX):
                fields[source.variable(name).removeprefix(PREFIX)] = field
    return fields


def describe_sources(
    environ: Mapping[str, str], *, standalone: bool = False, data: Path | None = None
) -> tuple[Path, ...]:
    """Read the files of `INGEST_SOURCES`, or those of a running `ingest up` unless `standalone`,
    so that their sources are known to `registry`, and check their destinations. Return their paths.

    Sources of the data folder's own file are known too; one of the same name in `INGEST_SOURCES` is
    in its place.

    Args:
        environ: the environment.
        standalone: ignore the `ingest up` that runs in this folder.
        data: the data folder; None: the environment says it.

    Raises:
        SettingsError: a file or a description cannot be used.
    """
    written = environ.get(_SOURCES) or _text(f"{_SOURCES}_FILE", environ)
    if written is None and not standalone:
        written = _from_running_up(environ).get(_SOURCE_FILES)
    paths = tuple(Path(name) for name in setting_values.split(written or "") if name)
    own = (data or Path(environ.get(f"{PREFIX}DATA") or DEFAULT_DATA)) / OWN_SOURCES
    registry.use(files.read([own] if _is_file(own) else []) | files.read(paths))
    destinations.read(paths, registry.classes())
    return paths


def _read_sources(
    values: Mapping[str, Any],
) -> tuple[dict[str, SourceSettings], list[str]]:
    """Return the settings of each source, and a sentence for each problem."""
    read: dict[str, SourceSettings] = {}
    problems: list[str] = []
    for slug, source in registry.classes().items():
        try:
            read[slug] = source.settings.model_validate(values.get(slug, {}))
        except ValidationError as error:
            problems += _sentences(error, source.variable)
    return read, problems


def secret_files(environ: Mapping[str, str]) -> dict[str, Path]:
    """Return the files with the secrets of sources, by the slugs of those that have one."""
    files_by_slug = {
        slug: file_of(source.variable("secrets"), environ) or source.file("secrets")
        for slug, source in registry.classes().items()
        if not _is_set(source.variable("secrets"), environ)
    }
    return {slug: path for slug, path in files_by_slug.items() if path is not None}


def file_of(variable: str, environ: Mapping[str, str]) -> Path | None:
    """Return the file that holds a setting. None: it comes from elsewhere, or is unset."""
    path = environ.get(f"{variable}_FILE")
    return Path(path) if path and not _is_set(variable, environ) else None


def reload_secrets(
    sources: Mapping[str, SourceSettings], environ: Mapping[str, str]
) -> dict[str, SourceSettings]:
    """Return the settings of sources with the secrets that their files hold now.

    Raises:
        SettingsError: a file cannot be read, or holds what is no secret. No value is told.
    """
    read, problems = _read_sources(_of_sources(environ)["sources"])
    if problems:
        raise SettingsError(" ".join(problems), reason="bad_setting")
    return dict(sources) | {
        slug: sources[slug].model_copy(update={"secrets": read[slug].secrets})
        for slug in secret_files(environ)
    }


def reload_text(variable: str, environ: Mapping[str, str]) -> str | None:
    """Return the text that the file of a setting holds now; None: it comes from no file.

    Raises:
        SettingsError: the file cannot be read.
    """
    path = file_of(variable, environ)
    return None if path is None else _content(f"{variable}_FILE", str(path))


def _is_set(variable: str, environ: Mapping[str, str]) -> bool:
    return variable in {name.upper() for name in environ}


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # no file can have such a name
        return False


def _parse_shares(value: str) -> dict[tuple[str, ...], int]:
    """Read `events=2,crm+erp=1`: groups of queues and the number of processes of each."""
    shares: dict[tuple[str, ...], int] = {}
    for part in filter(None, (part.strip() for part in value.split(","))):
        names, _, number = part.rpartition("=")
        group = tuple(name.strip() for name in names.split("+"))
        known = {queue for other in shares for queue in other}
        if not all(group) or known & set(group) or not _PROCESSES.fullmatch(number.strip()):
            raise ValueError("must name each queue once with its processes: `events=2,crm+erp=1`")
        shares[group] = int(number)
    return shares


def _or_value_error(check: Callable[[], object]) -> None:
    """Run a check. Raise its BadAddress as a ValueError, which pydantic collects."""
    try:
        check()
    except BadAddress as error:
        raise ValueError(str(error)) from None


def load(*, standalone: bool = False, **overrides: Any) -> Settings:
    """Read the settings.

    Args:
        standalone: ignore the `ingest up` that runs in this folder.
        overrides: values from the command line, which have precedence. None: no value.

    Raises:
        SettingsError: has a sentence for each problem. It names the variables, never their values.
    """
    values = {name: value for name, value in overrides.items() if value is not None}
    values[_SOURCE_FILES] = describe_sources(
        os.environ, standalone=standalone, data=values.get("data")
    )
    return _load(_Standalone if standalone else Settings, values)


def load_undescribed() -> Settings:
    """Read the settings without the sources that files describe.

    Raises:
        SettingsError: as `load` does.
    """
    registry.use({})
    return _load(Settings, {_SOURCE_FILES: ()})


def _load(settings_class: type[Settings], values: dict[str, Any]) -> Settings:
    try:
        return settings_class(**values)
    except ValidationError as error:
        problems = _sentences(error, lambda name: f"{PREFIX}{name.upper()}", values)
        raise SettingsError(" ".join(problems), reason="bad_setting") from None


def _sentences(
    error: ValidationError, variable: Callable[[str], str], overrides: Container[str] = ()
) -> list[str]:
    """Return a sentence for each problem. It names the variable, never its value."""
    sentences = []
    for problem in error.errors(include_input=False, include_url=False):
        name = str(problem["loc"][0])
        if problem["type"] == _OF_A_SOURCE:
            sentences.append(problem["msg"])
        else:
            place = _place(variable(name), is_override=name in overrides)
            sentences.append(f"{place}: {_sentence(problem)}.")
    return sentences


def _place(variable: str, *, is_override: bool) -> str:
    """Return where a setting was written: its variable, or the file that its variable names."""
    path = os.environ.get(f"{variable}_FILE")
    is_elsewhere = is_override or variable in {name.upper() for name in os.environ}
    return variable if is_elsewhere or not path else f"{variable}_FILE: {path}"


_SENTENCES = {
    "bool_parsing": "must be true or false",
    "finite_number": "must be a finite number",
    "float_parsing": "must be a number",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be one of {expected}",
}


def _sentence(problem: "ErrorDetails") -> str:
    """Return our sentence for what is wrong with a value."""
    form = _SENTENCES.get(problem["type"])
    if form is not None:
        return form.format(**problem.get("ctx", {}))
    return problem["msg"].removeprefix("Value error, ")


def secret_variables() -> frozenset[str]:
    """Return the names of the variables that hold a secret, or name a file with one."""
    names = {
        f"{PREFIX}{name}"
        for name, field in variables().items()
        if SecretStr.__name__ in str(field.annotation)
    }
    names |= {
        source.variable(name)
        for source in registry.classes().values()
        for name, field in source.settings.model_fields.items()
        if SecretStr.__name__ in str(field.annotation)
    }
    return frozenset(names | {f"{name}_FILE" for name in names})


class _Given(PydanticBaseSettingsSource):
    """A source of settings for pydantic: a function that reads the environment or files."""

    def __init__(
        self, settings_cls: type[BaseSettings], read: Callable[[Mapping[str, str]], dict[str, Any]]
    ) -> None:
        super().__init__(settings_cls)
        self._read = read

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError("all fields are read at once")

    def __call__(self) -> dict[str, Any]:
        return self._read(os.environ)


def _from_files(environ: Mapping[str, str]) -> dict[str, str]:
    """Read the files that `INGEST_X_FILE` variables name, without the newline that editors add."""
    texts = {name: _text(f"{PREFIX}{name.upper()}_FILE", environ) for name in Settings.model_fields}
    return {name: text for name, text in texts.items() if text is not None}


def _of_sources(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings of each source, from its variables or from the files that they name."""
    settings: dict[str, dict[str, str]] = {}
    values = {name.upper(): value for name, value in environ.items()}
    for slug, source in registry.classes().items():
        for field in source.settings.model_fields:
            variable = source.variable(field)
            value = values.get(variable)
            place = variable
            if value is None:
                value = _text(f"{variable}_FILE", environ)
                place = f"{variable}_FILE: {environ.get(f'{variable}_FILE')}"
                file = source.file(field)
                if value is None and file is not None:
                    value, place = _content(variable, str(file)), f"{variable}: {file}"
            if value is not None and field == "secrets" and not value.strip():
                # Without secrets the source would not be received, which nobody would notice.
                raise SettingsError(f"{place}: it is empty.", reason="bad_setting")
            if value is not None:
                settings.setdefault(slug, {})[field] = value
    return {"sources": settings}


def _text(variable: str, environ: Mapping[str, str]) -> str | None:
    """Return the text of the file that a variable names."""
    path = environ.get(variable)
    return _content(variable, path) if path else None


def _content(variable: str, path: str) -> str:
    """Return the text of a file, which `variable` is about."""
    try:
        text = Path(path).read_bytes().decode().replace("\r\n", "\n").removesuffix("\n")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise SettingsError(f"{variable}: {path}: {why}.", reason="bad_setting") from None
    if text.startswith(setting_values.BOM):
        why = "it begins with a byte order mark; save it without one"
        raise SettingsError(f"{variable}: {path}: {why}.", reason="bad_setting")
    return text


def _from_running_up(environ: Mapping[str, str]) -> dict[str, Any]:
    data = Path(environ.get(f"{PREFIX}DATA") or DEFAULT_DATA)
    try:
        written = json.loads((data / UP_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return written if isinstance(written, dict) else {}
