"""deploy/kubernetes says what the compose file says (schemas: tests/container)."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingest.cli.processes import GRACEFUL_SHUTDOWN_S, WORKER_ENDS_S
from ingest.monitoring import catalogue
from ingest.settings import variables

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
kustomization: dict[str, Any] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
documents: list[dict[str, Any]] = [
    document
    for name in kustomization["resources"]
    for document in yaml.safe_load_all((FOLDER / name).read_text())
]
workloads = {
    document["metadata"]["name"].removeprefix("webhooks-"): document
    for document in documents
    if document["kind"] in ("Deployment", "Job")
}
SERVED = ("receiver", "worker", "relay", "console")


def pod(name: str) -> Any:
    return workloads[name]["spec"]["template"]["spec"]


def container(name: str) -> Any:
    (found,) = pod(name)["containers"]
    return found


def environment(name: str) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container(name).get("env", [])}


def test_every_process_of_the_design_is_there() -> None:
    assert set(workloads) == {*SERVED, "migrate"}
    assert {container(name)["args"][0] for name in workloads} == {
        *("serve", "worker", "relay", "console", "migrate")
    }


@pytest.mark.parametrize("name", [*SERVED, "migrate"])
def test_a_process_is_confined_as_the_compose_file_confines_it(name: str) -> None:
    assert container(name)["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod(name)["securityContext"]["runAsUser"] == 10001
    assert pod(name)["securityContext"]["runAsNonRoot"]
    assert container(name)["resources"]["limits"] == {"memory": "1Gi"}
    assert not pod(name)["automountServiceAccountToken"]


@pytest.mark.parametrize("name", SERVED)
def test_a_process_that_stays_is_probed_and_replaced_before_the_old_one_goes(name: str) -> None:
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container(name))
    assert workloads[name]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_a_database_that_is_away_restarts_no_receiver() -> None:
    assert container("receiver")["livenessProbe"]["httpGet"]["path"] == "/health/live"
    assert container("receiver")["readinessProbe"]["httpGet"]["path"] == "/health/ready"


def test_none_is_killed_before_its_drain_time_is_over() -> None:
    delay_s = float(environment("receiver")["INGEST_SHUTDOWN_DELAY_S"])
    receiver_s = pod("receiver")["terminationGracePeriodSeconds"]
    assert receiver_s >= delay_s + GRACEFUL_SHUTDOWN_S + 10
    drain_s = variables()["WORKER_DRAIN_S"].default
    assert pod("worker")["terminationGracePeriodSeconds"] >= drain_s + WORKER_ENDS_S


def test_every_environment_variable_is_a_setting_and_secrets_come_from_files() -> None:
    (settings,) = [document for document in documents if document["kind"] == "ConfigMap"]
    known = {f"INGEST_{name}" for name in variables()} | {"INGEST_AWALCHAT_SECRETS"}
    for name in workloads:
        (volume,) = [volume for volume in pod(name)["volumes"] if volume["name"] == "secrets"]
        items = {item["path"] for item in volume["secret"]["items"]}
        files = set()
        for variable, value in (settings["data"] | environment(name)).items():
            assert variable in known or variable.removesuffix("_FILE") in known
            if value.startswith("/run/secrets/"):
                files.add(value.removeprefix("/run/secrets/"))
        assert files == items, name


def test_the_keys_of_bodies_are_given_to_those_who_read_or_write_them() -> None:
    component = yaml.safe_load((FOLDER / "encryption" / "kustomization.yaml").read_text())
    (patch,) = component["patches"]
    chosen = [name for name in SERVED if re.fullmatch(patch["target"]["name"], f"webhooks-{name}")]
    assert chosen == ["receiver", "worker", "console"]
    variable, item = yaml.safe_load(patch["patch"])
    assert variable["value"]["name"].removeprefix("INGEST_").removesuffix("_FILE") in variables()
    assert variable["value"]["value"] == f"/run/secrets/{item['value']['path']}"
    for name in chosen:
        at = int(item["path"].split("/")[5])
        assert (pod(name)["volumes"][at]["name"], len(pod(name)["containers"])) == ("secrets", 1)


def test_workers_are_scaled_by_a_metric_that_exists() -> None:
    (scaler,) = [
        document for document in documents if document["kind"] == "HorizontalPodAutoscaler"
    ]
    (metric,) = scaler["spec"]["metrics"]
    adapter = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())
    (rule,) = adapter["rules"]["external"]
    name = catalogue.BACKLOG_AGE.name
    assert name == metric["external"]["metric"]["name"] == rule["name"]["as"] == rule["seriesQuery"]
    assert scaler["spec"]["scaleTargetRef"]["name"] == "webhooks-worker"


def test_each_budget_and_service_finds_pods() -> None:
    labels = [workload["spec"]["template"]["metadata"]["labels"] for workload in workloads.values()]
    for document in documents:
        if document["kind"] in ("PodDisruptionBudget", "Service"):
            selector = document["spec"]["selector"]
            assert selector.get("matchLabels", selector) in labels
