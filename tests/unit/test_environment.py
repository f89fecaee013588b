"""A variable that is no setting is told at the start; what Kubernetes injects is none of ours."""

import pytest

from ingest import environment
from ingest.environment import Unknown, passed_over, report, unknown
from ingest.settings import variables
from tests.support.lines import Lines

SERVICES = {
    f"{service}_{name}": value
    for service in ("INGEST", "INGEST_CONSOLE", "INGEST_REDIS_0")
    for name, value in {
        "SERVICE_HOST": "10.0.0.7",
        "SERVICE_PORT": "8000",
        "SERVICE_PORT_HTTP_ADMIN": "8000",
        "PORT": "tcp://10.0.0.7:8000",
        "PORT_8000_TCP": "tcp://10.0.0.7:8000",
        "PORT_8000_TCP_PROTO": "tcp",
        "PORT_8000_TCP_PORT": "8000",
        "PORT_8000_TCP_ADDR": "10.0.0.7",
        "PORT_53_UDP_ADDR": "10.0.0.7",
    }.items()
}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("INGEST_DATABSE_URL", "INGEST_DATABASE_URL"),
        ("INGEST_DATABASE_URI", "INGEST_DATABASE_URL"),
        ("INGEST_AWALCHAT_SECRET", "INGEST_AWALCHAT_SECRETS"),
        ("INGEST_AWALCHAT_SECRET_FILE", "INGEST_AWALCHAT_SECRETS_FILE"),
        ("ingest_loglevel", "INGEST_LOG_LEVEL"),
        ("INGEST_TIMEOUT_S", "INGEST_ATTEMPT_TIMEOUT_S"),
        ("INGEST_KEEP_BODIES_DAYS", "INGEST_BODY_RETENTION_DAYS"),
        ("ingest_console_behind_tls", "INGEST_CONSOLE_TLS_PROXY"),
        ("INGEST_COLOUR_OF_THE_SKY", None),
        ("INGEST_", None),
    ],
)
def test_a_typo_is_told_with_the_name_that_was_meant(written: str, meant: str | None) -> None:
    assert unknown({written: "SENTINEL"}) == [Unknown(variable=written, nearest=meant)]


def test_a_setting_is_none_however_its_name_is_written() -> None:
    assert unknown({"INGEST_PORT": "1", "ingest_port": "1", "INGEST_REDIS_URL_FILE": "/x"}) == []
    assert unknown({"PATH": "/bin", "INGESTION": "", "XINGEST_PORT": ""}) == []


def test_what_kubernetes_injects_for_services_is_no_typo() -> None:
    assert unknown(SERVICES) == []
    assert passed_over(SERVICES) == ["INGEST_PORT", "INGEST_CONSOLE_PORT"]
    assert passed_over({"INGEST_PORT": "8000"}) == []


def test_it_is_logged_without_values() -> None:
    lines = Lines()
    report({"INGEST_PROT": "SENTINEL", "INGEST_PORT": "tcp://10.0.0.7:80"}, lines)  # type: ignore[arg-type]
    assert lines.kept == [
        ("unknown_setting", {"variable": "INGEST_PROT", "nearest": "INGEST_PORT"}),
        ("setting_passed_over", {"variable": "INGEST_PORT", "reason": "injected by Kubernetes"}),
    ]
    assert "SENTINEL" not in repr(lines.kept)


def test_a_person_reads_a_sentence() -> None:
    said = list(environment.sentences({"INGEST_PROT": "SENTINEL", "INGEST_SKY": "SENTINEL"}))
    assert said == [
        "INGEST_PROT is not a setting and has no effect: INGEST_PORT?",
        "INGEST_SKY is not a setting and has no effect.",
    ]


def test_what_was_renamed_leads_to_a_setting() -> None:
    from ingest.environment import _RENAMED

    assert set(_RENAMED.values()) <= set(variables())
    assert not set(_RENAMED) & set(variables())
