"""`ingest doctor` on a set-up that is well, and on those that are broken, each in one way."""

import json
import re
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from typer.testing import CliRunner

from ingest import __version__, declared
from ingest.cli import doctor, main
from ingest.doctor import alerts, configuration, disk, examination, processors
from ingest.doctor.examination import STEPS, Step
from ingest.doctor.findings import Finding, Severity, note
from ingest.doctor.setup import Setup
from ingest.ids import delivery_id
from ingest.local import postgres
from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from ingest.store.pipeline import processors as registered
from ingest.store.pipeline.processors import Registered
from ingest.store.reports import heartbeats, refused_requests
from ingest.store.reports.heartbeats import ProcessIdentity
from ingest.store.reports.refused_requests import Refusal
from tests.support.deliver import deliver, order
from tests.support.ports import free_port
from tests.support.redis_client import connect
from tests.support.servers import Running, Servers, as_role, debian, pgbouncer
from tests.support.servers.setups import POOLED, POOLERS_ROLE, installed
from tests.support.signing import SECRET

NOW = datetime.now(UTC)
PASSWORD = "hunter2-of-the-database"
OF_OUR_CERTIFICATES = "certificate_expires"
"""Those of the tests are made for two days."""
SECRETS = (SECRET, PASSWORD, debian.PASSWORD, quote(debian.PASSWORD, safe=""), "of-a-role")

Examine = Callable[..., list[Finding]]


def is_quick(step: Step) -> bool:
    """Importing the processors takes seconds; one test does it."""
    return step.check is not processors.check


@pytest.fixture
def environment(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., None]:
    """Sets the variables of a set-up that is well, and others by name."""
    monkeypatch.chdir(tmp_path)

    def put(**variables: str) -> None:
        well = {
            "database_url": database_url,
            "redis_url": redis_url,
            "awalchat_secrets": SECRET,
            "partition_days_ahead": "2",
        }
        for name, value in (well | variables).items():
            monkeypatch.setenv(f"INGEST_{name.upper()}", value)

    return put


@pytest.fixture
def examine(environment: Callable[..., None]) -> Examine:
    """Examines a set-up that differs by variables; checks that no secret is said."""

    def examine(
        *,
        steps: Sequence[Step] = tuple(filter(is_quick, STEPS)),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        **variables: str,
    ) -> list[Finding]:
        environment(**variables)
        settings, findings = configuration.load()
        if settings is not None:
            setup = Setup(settings=settings, clock=clock)
            findings += examination.examine(setup, steps, bound_s=BOUND_S)
        said = doctor.report(findings) + repr(findings)
        assert not [secret for secret in SECRETS if secret in said]
        assert all(len(line) <= 80 or " " not in line.strip() for line in said.splitlines()[:-1])
        return findings

    return examine


BOUND_S = 250.0
"""Ten times what a person waits: this machine may be busy."""


def slugs(findings: list[Finding], *, of: Sequence[Severity] = (Severity.ERROR,)) -> list[str]:
    return [finding.slug for finding in findings if finding.severity in of]


def one(findings: list[Finding], slug: str) -> Finding:
    (finding,) = (finding for finding in findings if finding.slug == slug)
    return finding


WORKER = ProcessIdentity(
    id="b:2:0",
    kind="worker",
    host="b",
    pid=2,
    version=__version__,
    queues=("events", "replay"),
    processors=("orders", "crm.push"),
)
PROCESSES = (
    replace(WORKER, id="a:1:0", kind="receiver", queues=None, processors=None),
    WORKER,
    replace(WORKER, id="c:3:0", kind="relay", queues=None, processors=None),
)


def begin(database_url: str, processes: Sequence[ProcessIdentity] = PROCESSES) -> None:
    """Let processes report themselves."""
    engine = create_engine(parse(database_url), role=Role.OPERATOR)
    with engine.begin() as connection:
        for process in processes:
            heartbeats.upsert(connection, process)
    engine.dispose()


def register(database_url: str, name: str, queue: str) -> None:
    """Register a processor, as a worker does."""
    engine = create_engine(parse(database_url), role=Role.OPERATOR)
    processor = Registered(
        name=name,
        types=("order.created",),
        queue=queue,
        batch=False,
        threads=1,
        max_attempts=1,
        timeout_s=1,
    )
    with engine.begin() as connection:
        registered.register(connection, [processor])
    engine.dispose()


def test_a_set_up_that_is_well_has_no_error_and_no_warning(
    database_url: str, examine: Examine
) -> None:
    begin(database_url)
    findings = examine()
    said = slugs(findings, of=(Severity.ERROR, Severity.WARNING))
    assert set(said) <= {OF_OUR_CERTIFICATES}
    assert {"database_version", "redis_version", "schema_revision"} <= {
        finding.slug for finding in findings
    }


def test_the_processes_that_are_needed_are_missed(examine: Examine) -> None:
    assert slugs(examine()) == ["no_receiver", "no_worker", "no_relay"]


def test_a_host_that_does_not_resolve_is_said_and_the_others_are_asked(examine: Examine) -> None:
    findings = examine(database_url=f"postgresql://u:{PASSWORD}@db.invalid/shop")
    assert slugs(findings) == ["host_not_found"]
    assert "db.invalid" in one(findings, "host_not_found").sentence
    assert "redis_version" in slugs(findings, of=(Severity.NOTE,))


def test_a_server_that_does_not_listen_is_said(examine: Examine) -> None:
    findings = examine(database_url=f"postgresql://u:{PASSWORD}@127.0.0.1:1/shop")
    assert slugs(findings) == ["connection_refused"]


def test_a_database_that_is_not_there_is_said(servers: Servers, examine: Examine) -> None:
    findings = examine(database_url=servers.database_url("nowhere"))
    assert slugs(findings) == ["no_such_database"]


def test_a_database_without_our_tables_is_said(
    make_database: Callable[..., str], examine: Examine
) -> None:
    findings = examine(database_url=make_database())
    assert slugs(findings) == ["not_migrated"]


def test_a_schema_of_an_earlier_release_is_said(database_url: str, examine: Examine) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE ingest.alembic_version SET version_num = '0009'")
    finding = one(examine(), "not_migrated")
    assert "is at 0009" in finding.sentence
    assert finding.advice == "Run `ingest migrate`."


def test_a_schema_that_this_code_does_not_run_on_is_said(
    database_url: str, examine: Examine
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE ingest.alembic_version SET version_num = '9999'")
    assert "9999" in one(examine(), "schema_newer").sentence


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_of_another_encoding_is_said(
    make_database: Callable[..., str], examine: Examine, encoding: str
) -> None:
    findings = examine(database_url=make_database(encoding=encoding))
    assert encoding in one(findings, "database_not_utf8").sentence


@pytest.mark.not_on(*POOLED, reason=POOLERS_ROLE)
def test_a_privilege_that_is_missing_is_named(
    servers: Servers, database_url: str, examine: Examine
) -> None:
    database = parse(database_url).parameters["dbname"]
    with servers.role(used_in=database_url) as role:
        for statement in (
            f"GRANT USAGE ON SCHEMA ingest TO {role}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ingest TO {role}",
            f"REVOKE INSERT ON ingest.attempts FROM {role}",
            f"ALTER ROLE {role} SET synchronous_commit = off",
        ):
            servers.execute(statement, database=database)
        findings = examine(database_url=as_role(database_url, role))
    missing = [finding for finding in findings if finding.slug == "privilege_missing"]
    assert missing[0].sentence == (
        "The database role lacks INSERT on ingest.attempts. Needed by: worker, relay and console."
    )
    assert "is not the owner of ingest.deliveries" in missing[1].sentence
    assert len(missing) == 2
    assert "synchronous_commit_off" in slugs(findings, of=(Severity.WARNING,))


def test_what_a_running_process_lacks_is_taken_from_its_own_report(
    database_url: str, examine: Examine
) -> None:
    begin(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE ingest.processes SET lacks = '{lacks SELECT on ingest.jobs}'"
            " WHERE kind = 'worker'"
        )
    sentence = one(examine(), "privilege_missing").sentence
    assert sentence == "The database role lacks SELECT on ingest.jobs. Needed by: worker."


def test_a_redis_that_evicts_is_said(redis_url: str, examine: Examine) -> None:
    with connect(redis_url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            findings = examine()
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    assert "allkeys-lru" in one(findings, "redis_evicts").sentence


def test_a_redis_that_is_down_is_said(examine: Examine) -> None:
    findings = examine(redis_url=f"redis://:{PASSWORD}@127.0.0.1:1/0")
    assert "redis_unreachable" in slugs(findings)
    assert "database_version" in slugs(findings, of=(Severity.NOTE,))


def test_keys_of_others_under_our_prefix_are_said(redis_url: str, examine: Examine) -> None:
    with connect(redis_url) as client:
        client.set("ingest:events", "not a list")
        client.set("ingest:basket:7", "another application's")
        findings = examine()
        client.delete("ingest:events", "ingest:basket:7")
    assert "events" in one(findings, "redis_foreign_key").sentence
    assert "ingest:basket:7" in one(findings, "redis_foreign_data").sentence


def test_a_module_of_processors_that_fails_is_said(
    examine: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processors, "_TIMEOUT_S", BOUND_S)
    (tmp_path / "shop_broken.py").write_text("print('hello')\nimport no_such_module\n")
    step = Step("the processors", processors.check)
    findings = examine(steps=[step], processors="shop_broken")
    sentence = one(findings, "processors_not_imported").sentence
    assert "shop_broken.py, line 2: ModuleNotFoundError" in sentence
    (tmp_path / "shop_broken.py").write_text("print('hello')\n")
    assert slugs(examine(steps=[step], processors="shop_broken")) == []


def test_a_type_that_looks_misspelt_is_said(
    examine: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processors, "_TIMEOUT_S", BOUND_S)
    (tmp_path / "shop_types.py").write_text(
        "from workers import processor\n\n\n"
        "@processor('order.craeted', 'order.*', 'order.created', 'parcel.lost', name='shop')\n"
        "def work(event, db): ...\n"
    )
    findings = examine(steps=[Step("the processors", processors.check)], processors="shop_types")
    assert one(findings, "type_misspelt").sentence == (
        "shop takes order.craeted, which no sender is known to send; perhaps order.created was"
        " meant."
    )


def test_a_queue_that_nobody_consumes_is_said(database_url: str, examine: Examine) -> None:
    begin(database_url)
    register(database_url, "crm.push", "crm")
    register(database_url, "of_code_that_is_gone", "old")
    sentence = one(examine(), "queue_unconsumed").sentence
    assert sentence == "No worker consumes the queue crm, which crm.push uses."


def test_a_clock_that_differs_from_the_databases_is_said(examine: Examine) -> None:
    ahead = examine(clock=lambda: datetime.now(UTC) + timedelta(seconds=20))
    assert re.search(r"(1[5-9]|2[0-5])\.\d s ahead of", one(ahead, "clock_differs").sentence)
    behind = examine(clock=lambda: datetime.now(UTC) - timedelta(minutes=10))
    assert "10 min behind" in one(behind, "clock_wrong").sentence


def test_clocks_are_judged_by_what_is_stored(database_url: str, examine: Examine) -> None:
    (delivery,) = deliver(database_url, [order(1)])
    later = datetime.now(UTC) + timedelta(minutes=3)
    engine = create_engine(parse(database_url), role=Role.OPERATOR)
    refusal = Refusal(
        reason="timestamp_outside_window",
        at=datetime.now(UTC),
        source="awalchat",
        client="192.0.2.1",
        detail={"x-awal-webhook-timestamp": str(int(time.time()) - 3600)},
    )
    with engine.begin() as connection:
        refused_requests.keep(connection, [refusal])
    engine.dispose()
    with psycopg.connect(database_url) as driver:
        driver.execute(
            "UPDATE ingest.deliveries SET id = %s WHERE id = %s",
            (delivery_id(int(later.timestamp() * 1000), bytes(10)), delivery),
        )
    findings = examine()
    assert "60 min behind our clock" in one(findings, "timestamps_refused").sentence
    assert "3 min after now" in one(findings, "deliveries_in_the_future").sentence


def test_a_partition_that_is_missing_is_said(database_url: str, examine: Examine) -> None:
    findings = examine(partition_days_ahead="9")
    assert "days more" in one(findings, "partition_missing").sentence
    later = examine(clock=lambda: datetime.now(UTC) + timedelta(days=400), body_retention_days="30")
    assert "are older than 30 days" in one(later, "partition_overdue").sentence


def test_a_description_that_is_broken_is_said_and_the_others_are_asked(
    examine: Examine, tmp_path: Path
) -> None:
    (tmp_path / "senders.toml").write_text('[parcel]\npreset = "stripe"\nsecret = "x"\n')
    findings = examine(sources="senders.toml")
    assert "senders.toml:3: parcel.secret" in one(findings, "bad_description").sentence
    assert "database_version" in slugs(findings, of=(Severity.NOTE,))
    (tmp_path / "senders.toml").write_text('[parcel]\npreset = "stripe"\n')
    findings = examine(sources="senders.toml")
    assert "INGEST_PARCEL_SECRETS" in one(findings, "source_without_secret").sentence


def test_a_destination_without_its_secret_is_said(
    examine: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "senders.toml").write_text(
        '[[destination]]\nname = "crm"\nurl = "https://crm.example.com/hooks"\n'
        'types = ["*"]\nsecrets_env = "CRM_SECRETS"\n'
    )
    findings = examine(sources="senders.toml")
    unusable = one(findings, "destination_unusable")
    assert unusable.sentence == "The destination crm: CRM_SECRETS: it is not set."
    assert one(findings, "destinations").sentence == "Events are forwarded to crm.example.com."
    monkeypatch.setenv("CRM_SECRETS", f"whsec_{'A' * 32}")
    assert "destination_unusable" not in slugs(examine(sources="senders.toml"))
    (tmp_path / "senders.toml").write_text('[[destination]]\nname = "crm"\n')
    findings = examine(sources="senders.toml")
    assert "senders.toml:1: destination.0.types" in one(findings, "bad_description").sentence


def alerts_file(folder: Path, text: str) -> str:
    (folder / "alerts.toml").write_text(text)
    return "alerts.toml"


def test_a_file_of_alerts_that_is_broken_is_said_and_the_others_are_asked(
    examine: Examine, tmp_path: Path
) -> None:
    assert "alerts_told_nobody" in slugs(examine(), of=(Severity.NOTE,))
    said = examine(alerts=alerts_file(tmp_path, "[rules.no_workr]\nenabled = false\n"))
    assert one(said, "bad_alerts").sentence == (
        "alerts.toml: rules.no_workr: there is no such rule; perhaps no_worker was meant."
    )
    assert "database_version" in slugs(said, of=(Severity.NOTE,))


CHANNELS = """
[channels.team]
kind = "slack"
url_env = "TEAM_URL"
[channels.hook]
kind = "webhook"
url = "http://127.0.0.1:{port}/{secret}"
secret_env = "HOOK_SECRET"
[channels.phone]
kind = "apprise"
url_env = "PHONE_URL"
[channels.mail]
kind = "email"
host = "mail.invalid"
from = "ingest@example.com"
to = ["oncall@example.com"]
"""


def test_channels_that_cannot_work_are_said(
    examine: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    monkeypatch.setenv("HOOK_SECRET", PASSWORD)
    monkeypatch.setenv("PHONE_URL", f"tgram://{PASSWORD}/1")
    path = alerts_file(tmp_path, CHANNELS.format(port=free_port(), secret=PASSWORD))
    said = examine(alerts=path, steps=[Step("the alerts", alerts.check)])
    assert [finding.sentence for finding in said if finding.slug == "alert_channel_unusable"] == [
        "channels.team: TEAM_URL: it is not set.",
        "channels.hook: HOOK_SECRET: it must be whsec_ and 24 bytes or more in base64.",
        "channels.phone: apprise is not installed: pip install 'webhook-ingest[apprise]'.",
    ]
    hook, mail = (
        finding.sentence for finding in said if finding.slug == "alert_channel_unreachable"
    )
    assert hook.startswith("channels.hook: 127.0.0.1:")
    assert hook.endswith(" cannot be reached (Connection refused).")
    assert mail == "channels.mail: mail.invalid:587 does not resolve."


def test_channels_that_can_work_are_listed(
    examine: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("TEAM_URL", f"http://127.0.0.1:{server.getsockname()[1]}/{PASSWORD}")
        path = alerts_file(tmp_path, '[channels.team]\nkind = "slack"\nurl_env = "TEAM_URL"\n')
        said = examine(alerts=path, steps=[Step("the alerts", alerts.check)])
    assert [finding.sentence for finding in said] == ["Alerts are told by team."]


def test_settings_that_cannot_be_used_are_said(examine: Examine) -> None:
    assert slugs(examine(port="many", awalchat_secrets="short")) == ["bad_setting"]
    assert "bad_credentials" in slugs(examine(port="8000", console_users="me:viewer:x"))


def test_the_exit_status_tells_errors_from_warnings(
    database_url: str, environment: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(declared, "COMMAND", [sys.executable, "-c", "print('[]')"])
    environment(redis_prefx="typo")
    begin(database_url)
    ended = CliRunner().invoke(main.program(), ["doctor", "--json"])
    told = json.loads(ended.stdout)
    assert (ended.exit_code, told["well"]) == (0, True)
    said = [finding["slug"] for finding in told["findings"] if finding["severity"] == "warning"]
    assert [slug for slug in said if slug != OF_OUR_CERTIFICATES] == [
        "unknown_variable",
        "no_processors",
    ]
    assert "INGEST_REDIS_PREFIX?" in told["findings"][0]["sentence"]
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM ingest.processes WHERE kind = 'relay'")
    ended = CliRunner().invoke(main.program(), ["doctor"])
    assert ended.exit_code == 1
    assert ended.stdout.startswith("ERROR    No relay is alive")
    assert ended.stdout.splitlines()[-1].startswith("1 error, ")


def answer(space: tuple[int, float], _path: Path) -> tuple[int, float]:
    return space


def test_a_disk_that_is_full_is_said(environment: Callable[..., None]) -> None:
    environment(data=".")
    settings, _ = configuration.load()
    assert settings is not None
    for space, slug in (((2**20, 0.5), "disk_full"), ((2**40, 0.05), "disk_low")):
        setup = Setup(settings=settings, clock=lambda: NOW, free_space=partial(answer, space))
        findings = examination.examine(setup, [Step("the disk", disk.check)])
        assert slug in {finding.slug for finding in findings}


def test_a_check_that_hangs_is_given_up_and_one_that_fails_is_told(
    environment: Callable[..., None],
) -> None:
    environment()
    settings, _ = configuration.load()
    assert settings is not None
    ends = threading.Event()

    def hang(_setup: Setup) -> list[Finding]:
        ends.wait(300)
        return []

    def fail(_setup: Setup) -> list[Finding]:
        raise ZeroDivisionError

    fine = note("fine")
    steps = [
        Step("the weather", hang),
        Step("the tides", fail),
        Step("the moon", lambda _setup: [fine.found("It is there.")]),
    ]
    setup = Setup(settings=settings, clock=lambda: NOW)
    findings = examination.examine(setup, steps, bound_s=2)
    ends.set()
    assert [finding.slug for finding in findings] == ["check_timed_out", "check_failed", "fine"]
    assert findings[0].sentence == "The check of the weather took over 2 s: given up."
    assert findings[1].sentence == "The check of the tides failed. A bug: ZeroDivisionError."


@pytest.mark.not_on(*POOLED, reason="a pooler has limits of its own")
def test_a_server_without_room_for_our_connections_is_said(
    servers: Servers, database_url: str, examine: Examine
) -> None:
    sentence = one(examine(concurrency="80"), "connections_too_few").sentence
    assert "the server (max_connections) has room for 19" in sentence
    name = parse(database_url).parameters["dbname"]
    servers.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 12")
    assert one(examine(concurrency="2"), "connections_too_few").sentence == (
        "Our processes may open 30 connections, and the database (ALTER DATABASE … CONNECTION"
        " LIMIT) has room for 12."
    )


@pytest.mark.not_on(*POOLED, "external", reason="starts poolers of its own at the server's socket")
@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_the_mode_of_a_pooler_is_recognised(
    servers: Servers, database_url: str, examine: Examine, mode: pgbouncer.Mode
) -> None:
    binary = installed(pgbouncer.find_binary(), "PgBouncer")
    sockets = Path(parse(servers.direct_url("postgres")).parameters["host"])
    name = parse(database_url).parameters["dbname"]
    home = Path(tempfile.mkdtemp(prefix="ingest-doctor-"))
    (home / "logs").mkdir()
    program = pgbouncer.program(home, sockets, binary=binary, mode=mode, user=postgres.USER)
    with Running(program):
        findings = examine(database_url=pgbouncer.url(home, mode, name, user=postgres.USER))
    shutil.rmtree(home)
    assert f"pooler_{mode}" in slugs(findings, of=(Severity.NOTE,))
    assert "connection_direct" in slugs(examine(), of=(Severity.NOTE,))


class OwnServers:
    """A PostgreSQL with careless settings, passwords and TLS, and a Redis with the same."""

    def __init__(self, stack: ExitStack) -> None:
        installed(debian.POSTGRES, "PostgreSQL 15")
        redis = installed(debian.find_redis(), "Redis")
        self.home = Path(tempfile.mkdtemp(prefix="ingest-doctor-"))
        stack.callback(shutil.rmtree, self.home, ignore_errors=True)
        sockets = self.home / "run"
        sockets.mkdir(mode=0o700)
        (self.home / "logs").mkdir()
        certificates = debian.make_certificates(self.home)
        ports = free_port(), free_port()
        server = debian.postgres_program(self.home, sockets, certificates, port=ports[0])
        careless = ("full_page_writes=off", "fsync=off")
        options = [part for setting in careless for part in ("-c", setting)]
        server = replace(server, command=[*server.command, *options])
        stack.enter_context(Running(server))
        stack.enter_context(
            Running(debian.redis_program(self.home, redis, certificates, port=ports[1]))
        )
        self.administrator = postgres.url(sockets, port=ports[0])
        self.database_url = debian.postgres_url(certificates, port=ports[0]).format("postgres")
        self.redis_url = debian.redis_url(certificates, port=ports[1])
        with psycopg.connect(self.administrator) as connection:
            connection.execute(f"CREATE ROLE app LOGIN SUPERUSER PASSWORD '{debian.PASSWORD}'")


@pytest.fixture(scope="module")
def own_servers() -> Iterator[OwnServers]:
    with ExitStack() as stack:
        yield OwnServers(stack)


def test_a_wrong_password_is_said(own_servers: OwnServers, examine: Examine) -> None:
    url = own_servers.database_url.replace(quote(debian.PASSWORD, safe=""), PASSWORD)
    assert "access_denied" in slugs(examine(database_url=url))
    url = own_servers.redis_url.replace(quote(debian.PASSWORD, safe=""), PASSWORD)
    assert "redis_access_denied" in slugs(examine(redis_url=url))


def test_careless_settings_of_the_server_are_said(
    own_servers: OwnServers, examine: Examine
) -> None:
    findings = examine(database_url=own_servers.database_url)
    assert {"fsync_off", "full_page_writes_off", "not_migrated"} <= set(slugs(findings))


def test_certificates_that_expire_are_said(own_servers: OwnServers, examine: Examine) -> None:
    urls = {"database_url": own_servers.database_url, "redis_url": own_servers.redis_url}
    for days, slug in ((0, "certificate_expires"), (3, "certificate_expired")):
        findings = examine(clock=lambda days=days: datetime.now(UTC) + timedelta(days=days), **urls)
        said = [finding.sentence for finding in findings if finding.slug == slug]
        assert [sentence.partition(" at ")[0] for sentence in said] == [
            "The certificate of PostgreSQL",
            "The certificate of Redis",
        ]
