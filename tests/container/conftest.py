"""The pipeline as the compose file runs it."""

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.container.engine import PACKAGES, TOOLS, Engine, Project
from tests.support.ports import free_port


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Podman with the images; without it the tests fail in CI and are skipped elsewhere."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        reason = f"It needs root, and: apt-get install {' '.join(PACKAGES)}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    engine = Engine(tmp_path_factory.mktemp("podman"))
    try:
        engine.make_images()
        yield engine
    finally:
        engine.remove_all()


@pytest.fixture(scope="session")
def project(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Everything up, with three workers and a user of the console."""
    ports = {"RECEIVER_PORT": free_port(), "CONSOLE_PORT": free_port()}
    project = Project(engine, tmp_path_factory.mktemp("project"), ports)
    (project.folder / "secrets" / "console_users").write_text(engine.make_user())
    try:
        project.up()
        yield project
    finally:
        project.compose("down", "--volumes", "--timeout", "5", check=False)
