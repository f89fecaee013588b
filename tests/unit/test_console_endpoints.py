"""The console's modules import each other in one direction, and no endpoint is forgotten."""

import ast
import inspect
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import ingest.console
from ingest.console.api import operations
from ingest.console.api.endpoints import Endpoint

CONSOLE = Path(ingest.console.__file__).parent
MODULES = {
    ".".join(("ingest.console", *path.relative_to(CONSOLE).with_suffix("").parts)): path
    for path in CONSOLE.rglob("*.py")
    if path.stem != "__init__"
}


def imported(path: Path) -> set[str]:
    """The console's modules that a file names in an import, for types alone or not."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names & set(MODULES)


def test_no_module_of_the_console_imports_itself_by_a_detour() -> None:
    graph = {name: imported(path) for name, path in MODULES.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)


def test_every_declared_endpoint_is_served() -> None:
    declared = [value for value in vars(operations).values() if isinstance(value, Endpoint)]
    assert [endpoint.path for endpoint in declared] == [each.path for each in operations.ENDPOINTS]
    assert len({(each.method, each.path) for each in operations.ENDPOINTS}) == len(declared)


@pytest.mark.parametrize(
    "endpoint", operations.ENDPOINTS, ids=lambda each: f"{each.method} {each.path}"
)
def test_the_document_says_of_an_endpoint_what_its_function_says(endpoint: Endpoint) -> None:
    document = operations.document("1")
    path = (operations.PREFIX + endpoint.path).replace(":uuid", "").replace(":number", "")
    operation = document["paths"][path.replace(":path", "")][endpoint.method.lower()]
    first = inspect.cleandoc(endpoint.handle.__doc__ or "").partition("\n\n")[0]
    assert operation["summary"] == first.rstrip(".") != ""
    assert ("requestBody" in operation) is (endpoint.body is not None)
    wanted = endpoint.query.model_fields if endpoint.query else {}
    given = {each["name"] for each in operation["parameters"] if each["in"] == "query"}
    assert given == set(wanted)
