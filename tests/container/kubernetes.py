"""deploy/kubernetes as podman plays it.

`podman kube play` (4.3) makes pods, of the kinds Pod and Deployment. The rest of the folder is
played as the nearest that it knows, or left out:

- a Deployment is one pod, whatever its replicas;
- a Job is a pod of its template;
- a Secret is a ConfigMap: its keys are files, too;
- an emptyDir has the name of its pod as well: podman's are one folder for all that have one name;
- a probe is asked by the tests: podman asks by HTTP with curl, which the image has not;
- what steers the pods of a cluster is left out (`LEFT_OUT`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
LEFT_OUT = {"Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"}
_SECRET = "webhooks-secrets"
_ASK = "import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=5)"
Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """What podman is given, and what the tests ask of it then."""

    documents: list[Document]
    probes: dict[str, list[list[str]]]
    """By the name of its container, the commands that must succeed in it."""


def documents() -> Iterator[Document]:
    """Yield the objects of the folder in the order of its kustomization."""
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    for name in kustomization["resources"]:
        yield from yaml.safe_load_all((FOLDER / name).read_text())


def play(secrets: Path, *, image: str, port: int) -> Play:
    """Return the folder as podman plays it, with the files in `secrets`, and with the receiver on a
    port of this machine.

    Raises:
        ValueError: of an object's kind nobody has said what becomes of it.
    """
    made: list[Document] = []
    probes: dict[str, list[list[str]]] = {}
    for document in documents():
        kind, name = document["kind"], document["metadata"]["name"]
        if kind == "ConfigMap":
            made.append(document)
        elif kind in ("Deployment", "Job"):
            spec = document["spec"]["template"]["spec"]
            made += [_configmap(name, spec, secrets), _workload(document, image)]
            (container,) = spec["containers"]
            for volume in (*spec["volumes"], *container["volumeMounts"]):
                volume["name"] = f"{name}-{volume['name']}"
            pod = name if kind == "Job" else f"{name}-pod-0"
            probes[f"{pod}-{container['name']}"] = _probes(container)
            if container["name"] == "receiver":
                container["ports"][0]["hostPort"] = port
        elif kind not in LEFT_OUT:
            raise ValueError(f"{kind} {name}: is it played or left out?")
    return Play(documents=made, probes=probes)


def _workload(document: Document, image: str) -> Document:
    """Return a Deployment of one pod, or a Job as a pod."""
    spec = document["spec"]["template"]["spec"]
    for container in spec["containers"]:
        container |= {"image": image, "imagePullPolicy": "Never"}
    if document["kind"] == "Deployment":
        document["spec"]["replicas"] = 1
        return document
    metadata = document["spec"]["template"]["metadata"] | {"name": document["metadata"]["name"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _configmap(name: str, spec: Document, secrets: Path) -> Document:
    """Return the files that a pod mounts of the Secret, as a ConfigMap of its own."""
    data: dict[str, str] = {}
    for volume in spec["volumes"]:
        secret = volume.pop("secret", None)
        if secret is not None:
            assert secret["secretName"] == _SECRET
            data |= {item["key"]: (secrets / item["key"]).read_text() for item in secret["items"]}
            volume["configMap"] = {"name": f"{name}-secrets", "items": secret["items"]}
    metadata = {"name": f"{name}-secrets"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _probes(container: Document) -> list[list[str]]:
    """Take a container's probes out, and return them as commands."""
    ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
    commands: list[list[str]] = []
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container.pop(kind, {})
        if "exec" in probe:
            commands.append(probe["exec"]["command"])
        if "httpGet" in probe:
            asked = probe["httpGet"]
            address = f"http://127.0.0.1:{ports[asked['port']]}{asked['path']}"
            commands.append(["python", "-c", _ASK, address])
    return commands
