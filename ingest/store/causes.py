"""Why the database failed: a slug for programs and one sentence for people.

The texts of libpq, of the server and of a pooler are matched and never passed on: they can quote
the user, the address or a value. A refusal during the login has no SQLSTATE, and its text is in the
server's language. A text that matches no pattern still gets a sentence.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolExhausted

from ingest.errors import IngestError
from ingest.store.address import Database
from ingest.store.engine import UnfitDatabase


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why something failed."""

    reason: str
    """A slug: `internal` if the database is not to blame, `sqlstate_…` if that state has no
    sentence of its own yet."""
    sentence: str
    """For people; without user, password or data."""

    @property
    def is_known(self) -> bool:
        """Return whether the sentence suffices; otherwise a log needs the exception too."""
        return self.reason != "internal" and not self.reason.startswith("sqlstate_")


def explain(error: BaseException, database: Database | None = None) -> Cause:
    """Return the cause of an error of psycopg, SQLAlchemy, the network or our own.

    Args:
        error: the exception as raised.
        database: named in the sentence, as `str(database)` gives it.
    """
    where = "the database" if database is None else f"the database {database}"
    for origin in _origins(error):
        if isinstance(origin, UnfitDatabase | IngestError):
            return Cause(reason=origin.reason, sentence=str(origin))
        if isinstance(origin, PoolExhausted):
            return Cause(reason="busy", sentence="All connections of this process are in use.")
        if isinstance(origin, psycopg.errors.ConnectionTimeout | TimeoutError):
            return _TIMEOUT(where, "")
        if isinstance(origin, psycopg.Error):
            return _of_postgres(origin, where)
        if isinstance(origin, OSError):
            return _matching(str(origin), where) or _UNREACHABLE(where, "")
    return Cause(reason="internal", sentence=f"A bug: {type(error).__name__}.")


def _origins(error: BaseException) -> Iterator[BaseException]:
    """Yield the error that SQLAlchemy wraps, if any, then the error itself."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        yield error.orig
    yield error


def _of_postgres(error: psycopg.Error, where: str) -> Cause:
    text, state = str(error), error.sqlstate
    if state is None:
        fallback = _REFUSED if "FATAL:" in text else _UNREACHABLE
    elif state.startswith("08"):  # a connection's; poolers use it for everything that they say
        fallback = _LOST
    elif state in _BY_STATE:
        return _BY_STATE[state](where, text)
    else:
        return _cause(f"sqlstate_{state}", f"{where} refused: SQLSTATE {state}.")
    return _matching(text, where) or fallback(where, text)


def _matching(text: str, where: str) -> Cause | None:
    return next((tell(where, text) for pattern, tell in _BY_TEXT if pattern.search(text)), None)


Tell = Callable[[str, str], Cause]
"""Makes a cause from the database's name and an error's text."""


def _cause(reason: str, sentence: str) -> Cause:
    return Cause(reason=reason, sentence=sentence[0].upper() + sentence[1:])


def _tell(reason: str, sentence: str) -> Tell:
    """Return a function that makes the sentence; `{where}` is the database's name."""
    return lambda where, _text: _cause(reason, sentence.format(where=where))


def _tell_limit(where: str, text: str) -> Cause:
    if re.search(r"for role", text):
        which = "that of the role (ALTER ROLE … CONNECTION LIMIT)"
    elif re.search(r"for database", text):
        which = "that of the database (ALTER DATABASE … CONNECTION LIMIT)"
    elif re.search(r"max_client_conn|no more connections allowed", text):
        which = "that of the pooler (max_client_conn)"
    else:
        which = "that of the server (max_connections)"
    return _cause(
        "too_many_connections", f"too many connections: {where} has reached its limit, {which}."
    )


def _tell_unavailable(where: str, text: str) -> Cause:
    """Say why a server takes no connections now: it stops, recovers or starts."""
    if "shutting down" in text or "terminating connection" in text:
        return _cause("database_stopping", f"{where} shuts down, or is restarted.")
    if "recovery" in text or "accepting connections" in text or "hot standby" in text.lower():
        return _cause("database_recovering", f"{where} recovers, or is a standby.")
    return _cause("database_starting", f"{where} starts up.")


_LACKING = re.compile(r"permission denied for (\w+) ([\w.]+)")
_OWNER = re.compile(r"must be owner of (\w+) ([\w.]+)")


def _tell_privilege(where: str, text: str) -> Cause:
    denied, owner = _LACKING.search(text), _OWNER.search(text)
    if denied is not None:
        lacks = f"lacks a privilege on the {denied[1]} {denied[2]}"
    elif owner is not None:
        lacks = f"is not the owner of the {owner[1]} {owner[2]}"
    else:
        lacks = "lacks a privilege"
    return _cause("privilege_missing", f"{where}: the role {lacks}.")


def privileges_missing(lacks: Sequence[str], database: Database) -> Cause:
    """Return the cause that names what a role lacks, as reported by `ingest.store.privileges`."""
    return _cause("privilege_missing", f"the database {database}: the role {'; '.join(lacks)}.")


_REFUSED_PARAMETER = re.compile(r"unsupported startup parameter(?: in options)?: (\w+)")


def _tell_parameter(where: str, text: str) -> Cause:
    match = _REFUSED_PARAMETER.search(text)
    name = match[1] if match else "options"
    return _cause(
        "pooler_parameter",
        f"{where} is behind a pooler that refuses the start-up parameter {name}:"
        f" set PgBouncer's ignore_startup_parameters = {name}, or take it out of the address.",
    )


_UNREACHABLE = _tell("database_unreachable", "{where} does not answer.")
_REFUSED = _tell("login_refused", "{where} answers and refuses the login.")
_TIMEOUT = _tell("database_timeout", "{where} does not answer in time.")
_DENIED = _tell(
    "access_denied", "{where} does not let the user in: the password, the role or pg_hba.conf."
)
_READ_ONLY = _tell(
    "read_only",
    "{where} is read-only: default_transaction_read_only is on, or it is a standby.",
)
_NOT_MIGRATED = _tell("not_migrated", "{where} is not migrated: run `ingest migrate`.")
_NO_DATABASE = _tell("no_such_database", "{where} does not exist: createdb makes one.")
_PREPARED = _tell(
    "pooler_prepared",
    "{where} is behind a pooler that loses prepared statements: set PgBouncer's"
    " max_prepared_statements.",
)
_LOST = _tell("connection_lost", "the connection to {where} was lost.")
_TLS = "{where}: TLS fails: "

_BY_STATE: dict[str, Tell] = {
    "28000": _DENIED,
    "28P01": _DENIED,
    "3D000": _NO_DATABASE,
    "3F000": _NOT_MIGRATED,
    "42P01": _NOT_MIGRATED,
    "53300": _tell_limit,
    "53100": _tell("disk_full", "{where} has no space left on its disk."),
    "53200": _tell("out_of_memory", "{where} is out of memory."),
    "57P01": _tell_unavailable,
    "57P02": _tell_unavailable,
    "57P03": _tell_unavailable,
    "25006": _READ_ONLY,
    "42501": _tell_privilege,
    "55P03": _tell("lock_not_available", "{where}: somebody else holds a lock that this needs."),
    "40P01": _tell("deadlock", "{where}: this and something else waited for each other."),
    "57014": _tell("took_too_long", "{where}: this took too long and was stopped."),
    "25P03": _tell("idle_too_long", "{where} ended a transaction that was idle for too long."),
    "25P04": _tell("took_too_long", "{where} ended a transaction that took too long."),
    "57P05": _LOST,
    "26000": _PREPARED,
    "42P05": _PREPARED,
    "58030": _tell("disk_fails", "{where} cannot read or write its disk."),
}


def _patterns(*pairs: tuple[str, Tell]) -> tuple[tuple[re.Pattern[str], Tell], ...]:
    return tuple((re.compile(pattern, re.IGNORECASE), tell) for pattern, tell in pairs)


# Texts of servers and poolers come before those of the network: an address with several hosts gives
# one text with the errors of all.
_BY_TEXT = _patterns(
    (r"too many clients|too many connections for|remaining connection slots", _tell_limit),
    (r"max_client_conn|no more connections allowed", _tell_limit),
    (
        r"database system is (starting up|shutting down|not accepting|in recovery)",
        _tell_unavailable,
    ),
    (
        r"database system is not yet accepting|terminating connection due to admin",
        _tell_unavailable,
    ),
    (r"read-only|hot standby mode|read-only transaction", _READ_ONLY),
    (r"unsupported startup parameter", _tell_parameter),
    (
        (
            r"query_wait_timeout|client_login_timeout|server_login_retry"
            r"|server login (has been )?fail|server_connect_timeout"
            r"|cannot connect to server|pgbouncer .*server conn"
        ),
        _tell(
            "pooler_without_server",
            "{where} is behind a pooler that gets no connection to its server.",
        ),
    ),
    (r'prepared statement ".*" (does not exist|already exists)', _PREPARED),
    (r"no such database|database \".*\" does not exist", _NO_DATABASE),
    (
        r"no pg_hba.conf entry .*no encryption",
        _tell(
            "access_denied",
            "{where} does not let the user in without TLS (pg_hba.conf): add ?sslmode=require.",
        ),
    ),
    (
        r"requires a valid client certificate|client certificate",
        _tell("tls_failed", _TLS + "the server asks for a client certificate (sslcert, sslkey)."),
    ),
    (
        r"server does not support SSL",
        _tell("tls_failed", _TLS + "the address asks for it and the server does not offer it."),
    ),
    (
        (
            r"root certificate file|certificate verify failed|server certificate for"
            r"|self.signed certificate"
        ),
        _tell("tls_failed", _TLS + "the server's certificate is not trusted (sslrootcert)."),
    ),
    (
        r"SSL error|could not (load|read|open) .*certificate|private key file",
        _tell("tls_failed", _TLS + "certificates, keys or versions do not fit."),
    ),
    (
        (
            r"password authentication failed|no password supplied|no pg_hba.conf entry"
            r"|authentication failed|role \".*\" does not exist|not permitted to log in"
            r"|pg_hba.conf rejects|no such user|auth failed|authentication method"
        ),
        _DENIED,
    ),
    (r"permission denied for database", _tell_privilege),
    (
        (
            r"could not translate host name|failed to resolve host|Name or service not known"
            r"|name resolution|No address associated with hostname|nodename nor servname"
        ),
        _tell("host_not_found", "{where}: the host name does not resolve."),
    ),
    (r"timeout expired|timed out", _TIMEOUT),
    (
        r"Connection refused|No such file or directory",
        _tell(
            "connection_refused",
            "nothing listens at the address of {where}: is it running? (`ingest up` starts one.)",
        ),
    ),
    (
        r"No route to host|Network is unreachable",
        _tell("host_unreachable", "{where}: there is no way to the host."),
    ),
    (
        (
            r"closed the connection|Connection reset|Broken pipe|connection is (closed|lost)"
            r"|consuming input failed|server conn crashed|SSL connection has"
        ),
        _LOST,
    ),
)
