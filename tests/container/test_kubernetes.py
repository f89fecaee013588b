"""deploy/kubernetes: the schemas of Kubernetes, and the pods as podman plays them."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.container.engine import Project
from tests.support.waiting import until

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
VERSIONS = ("1.30", "1.35")
NOT_FOR_KUBECTL = ("kustomization.yaml", "prometheus-adapter.yaml")
FILES = sorted(path.name for path in FOLDER.glob("*.yaml") if path.name not in NOT_FOR_KUBECTL)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", FILES)
def test_a_manifest_is_as_the_schemas_want_it(name: str, version: str) -> None:
    documents: list[dict[str, Any]] = list(yaml.safe_load_all((FOLDER / name).read_text()))
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)


def test_the_kustomization_has_them_all() -> None:
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    assert sorted(kustomization["resources"]) == FILES


def playable(name: str, folder: Path, secrets: Path) -> tuple[Path, list[str]]:
    """Write a deployment as podman 4.3 can play it, and return the commands of its probes.

    It knows no Secret as a volume, and asks by HTTP with curl, which the image has not."""
    deployment = next(yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text()))
    deployment["spec"]["replicas"] = 1
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    container["image"] = "localhost/webhook-ingest"
    container["imagePullPolicy"] = "Never"
    for volume in pod["volumes"]:
        if volume.pop("secret", None):
            volume["hostPath"] = {"path": str(secrets)}
    probes = [container.pop(f"{kind}Probe") for kind in ("startup", "readiness", "liveness")]
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(deployment))
    commands = [probe["exec"]["command"] for probe in probes if "exec" in probe]
    address = [
        f"http://127.0.0.1:{container['ports'][0]['containerPort']}{probe['httpGet']['path']}"
        for probe in probes
        if "httpGet" in probe
    ]
    ask = "import sys, urllib.request as u; [u.urlopen(a, timeout=5) for a in sys.argv[1:]]"
    return path, commands + ([["python", "-c", ask, *address]] if address else [])


@pytest.mark.parametrize("name", ["receiver", "worker", "relay", "console"])
def test_podman_plays_a_deployment_and_its_probes_pass(
    project: Project, tmp_path: Path, name: str
) -> None:
    engine = project.engine
    path, probes = playable(name, tmp_path, project.folder / "secrets")
    settings = str(FOLDER / "settings.yaml")
    play = ["kube", "play", "--network", "trial_default", "--configmap", settings, str(path)]
    engine.run(*play)

    def passes(probe: list[str]) -> bool:
        said = f"exec webhooks-{name}-pod-{name}".split()
        return "ok" in engine.run(*said, "sh", "-c", '"$@" && echo ok', "-", *probe, check=False)

    try:
        for probe in probes:
            until(lambda probe=probe: passes(probe), what=" ".join(probe))  # type: ignore[misc]
    finally:
        engine.run("kube", "down", str(path), check=False)
