"""The arrows of the layout, read off the code."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INGEST = sorted((ROOT / "ingest").rglob("*.py"))
WORKERS = sorted((ROOT / "workers").rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module that a file names in an import, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def strings(path: Path) -> list[str]:
    """Every string of a file but its docstrings."""
    tree = ast.parse(path.read_text())
    documentation = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node not in documentation
    ]


@pytest.mark.parametrize("path", INGEST, ids=lambda path: str(path.relative_to(ROOT)))
def test_ingest_never_imports_workers(path: Path) -> None:
    assert not {each for each in imports(path) if each.split(".")[0] == "workers"}
    dynamic = [each for each in strings(path) if re.fullmatch(r"workers(\.\w+)+", each)]
    assert not dynamic


def test_the_receiver_starts_without_a_processor() -> None:
    code = (
        "import sys, ingest.receiver.app, ingest.cli.processes, uvicorn;"
        "print([name for name in sys.modules if name.split('.')[0] == 'workers'])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert printed.stdout.strip() == "[]"


def test_a_worker_and_a_relay_start_without_what_few_of_them_need() -> None:
    """An HTTP client takes 0.2 s of CPU, SQLAlchemy's asyncio half of that."""
    code = (
        "import sys, workers.wiring, workers.relay.loop;"
        "print(sorted({'aiohttp', 'sqlalchemy.ext.asyncio'} & set(sys.modules)))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert printed.stdout.strip() == "[]"


WRITES_JOBS = re.compile(
    r"\b(?:insert\s+into|update|delete\s+from|merge\s+into)\s+(?:only\s+)?(?:ingest\.)?(?:jobs|attempts)\b",
    re.IGNORECASE,
)


def transitions(path: Path) -> list[str]:
    """The statements of a file that write jobs or attempts."""
    written = [each for each in strings(path) if WRITES_JOBS.search(each)]
    core = re.findall(
        r"\b(?:insert|update|delete)\(\s*(?:tables\.)?(?:jobs|attempts)\b"
        r"|\b(?:tables\.)?(?:jobs|attempts)\.(?:insert|update|delete)\(",
        path.read_text(),
    )
    return written + core


@pytest.mark.parametrize(
    "path",
    [path for path in INGEST + WORKERS if path.name != "jobs.py"],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_every_transition_of_a_job_is_in_store_jobs(path: Path) -> None:
    assert not transitions(path)


def test_the_search_for_transitions_finds_them_where_they_are() -> None:
    assert len(transitions(ROOT / "ingest/store/pipeline/jobs.py")) >= 5


def test_the_sources_do_not_know_the_store() -> None:
    for path in (ROOT / "ingest/sources").rglob("*.py"):
        assert not {each for each in imports(path) if each.startswith("ingest.store")}


CHANNELS = {"whatsapp"}
"""What people write on, as well: of these senders only the code counts, not the prose."""


def _is_read_model_of(slug: str, path: Path) -> bool:
    return path.parent.name == "processors" and path.stem.startswith(slug)


def test_no_code_outside_its_folder_names_a_sender() -> None:
    """But for the default of a setting, and the read model of a sender, which has its name."""
    packages = (
        path.parent
        for path in (ROOT / "ingest/sources").glob("*/__init__.py")
        if "Plugin" in path.read_text()
    )
    modules = [*INGEST, *WORKERS, *(ROOT / "migrations").rglob("*.py")]
    for package in packages:
        slug = package.name
        outside = [
            path
            for path in modules
            if package not in path.parents and not _is_read_model_of(slug, path)
        ]
        is_named = slug
        if slug in CHANNELS:
            is_named = rf'"{slug}"|sources\.{slug}\b|ingest_{slug}_|webhooks/{slug}'
        naming = [
            (path.name, line.strip())
            for path in outside
            for line in path.read_text().splitlines()
            if re.search(is_named, line.lower())
        ]
        assert all(
            name == "settings.py" and line.startswith(f'"{package.name}", description=')
            for name, line in naming
        ), naming


@pytest.mark.parametrize("path", INGEST + WORKERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_importing_a_module_does_nothing(path: Path) -> None:
    """At module level there are definitions and constants, and no statement that acts."""
    acts = [
        node
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and path.name not in ("__main__.py", "main.py")
    ]
    assert not acts
