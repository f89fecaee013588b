"""deploy/kubernetes: held against the schemas of Kubernetes, and played by podman."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.container.engine import Engine, Project, check_confinement
from tests.container.kubernetes import FOLDER, Play, play
from tests.support.ports import free_port
from tests.support.vectors import DOCUMENTED
from tests.support.waiting import until

VERSIONS = ("1.30", "1.35")
NOT_FOR_KUBECTL = ("kustomization.yaml", "prometheus-adapter.yaml")
FILES = sorted(path.name for path in FOLDER.glob("*.yaml") if path.name not in NOT_FOR_KUBECTL)
PROCESSES = ("receiver", "worker", "relay", "console")
MIGRATION = "webhooks-migrate-migrate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The folder, played beside PostgreSQL and Redis of the compose file."""

    project: Project
    play: Play

    def succeeds(self, container: str, command: list[str]) -> bool:
        """Return whether a command in a container ends with 0."""
        shell = ["sh", "-c", '"$@" >&2 && echo ok', "-", *command]
        return "ok" in self.project.engine.run("exec", container, *shell, check=False)


@pytest.fixture(scope="module")
def cluster(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """All of it at once, as `kubectl apply -k` does it: nothing waits for the migration."""
    port = free_port()
    folder = tmp_path_factory.mktemp("cluster")
    project = Project(engine, folder, {"RECEIVER_PORT": port}, name="cluster")
    (folder / "secrets" / "console_users").write_text(engine.make_user())
    played = play(folder / "secrets", image="localhost/webhook-ingest", port=port)
    file = folder / "play.yaml"
    file.write_text(yaml.safe_dump_all(played.documents))
    try:
        project.compose("up", "--no-build", "--detach", "postgres", "redis")
        # Not by the socket, which the entrypoint's temporary server has as well.
        ready = ["exec", "cluster_postgres_1", "pg_isready", "--host=127.0.0.1"]
        until(lambda: "accepting" in engine.run(*ready, check=False), what="PostgreSQL is up")
        engine.run("kube", "play", "--network", "cluster_default", str(file))
        yield Cluster(project=project, play=played)
    finally:
        engine.run("pod", "rm", "--all", "--force", "--time=0", check=False)
        project.compose("down", "--volumes", "--timeout", "5", check=False)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", FILES)
def test_a_manifest_is_as_the_schemas_want_it(name: str, version: str) -> None:
    documents: list[dict[str, Any]] = list(yaml.safe_load_all((FOLDER / name).read_text()))
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)


def test_the_kustomization_has_them_all() -> None:
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    assert sorted(kustomization["resources"]) == FILES


def test_the_migration_ends_well(cluster: Cluster) -> None:
    inspect = ["container", "inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}"]
    run = cluster.project.engine.run
    until(lambda: run(*inspect, MIGRATION).split() == ["exited", "0"], what="migrated")


@pytest.mark.parametrize("name", PROCESSES)
def test_a_pod_passes_its_probes_and_is_confined(cluster: Cluster, name: str) -> None:
    container = f"webhooks-{name}-pod-0-{name}"
    probes = cluster.play.probes[container]
    assert len(probes) == 3
    for probe in probes:
        until(lambda probe=probe: cluster.succeeds(container, probe), what=" ".join(probe))  # type: ignore[misc]
    check_confinement(cluster.project.engine, container)


def test_a_pod_mounts_the_secrets_that_its_process_needs_and_no_others(cluster: Cluster) -> None:
    files = cluster.project.engine.run("exec", "webhooks-worker-pod-0-worker", "ls", "/run/secrets")
    assert files.split() == ["database_url", "redis_url"]


def test_a_documented_event_is_processed(cluster: Cluster) -> None:
    project, body = cluster.project, DOCUMENTED[0]
    until(lambda: project.post(body), what="answered 200")
    states = "SELECT string_agg(DISTINCT state::text, ',') FROM ingest.jobs"
    until(lambda: project.query(states) == "succeeded", what="processed")
