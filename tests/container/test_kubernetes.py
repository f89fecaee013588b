"""deploy/kubernetes, held against the schemas of Kubernetes."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

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
