"""How long an idle connection is kept: long by the receiver, for senders' pools, and by nobody
else."""

from collections.abc import Callable
from pathlib import Path

import pytest
import uvicorn

from ingest.cli import processes

KEEP_ALIVE_S = 123


@pytest.mark.parametrize(
    ("run", "kept_s"),
    [(processes.serve, KEEP_ALIVE_S), (processes.console, processes.CONSOLE_KEEP_ALIVE_S)],
)
def test_the_setting_is_the_receivers(
    run: Callable[..., None], kept_s: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    served: list[uvicorn.Config] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INGEST_DATABASE_URL", "postgresql://u@127.0.0.1:1/d")
    monkeypatch.setenv("INGEST_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("INGEST_AWALCHAT_SECRETS", "0123456789abcdef0123")
    monkeypatch.setenv("INGEST_KEEP_ALIVE_S", str(KEEP_ALIVE_S))
    monkeypatch.setattr("ingest.logs.configure", lambda *_: None)
    monkeypatch.setattr(processes, "listen", lambda *_: None)
    monkeypatch.setattr(processes, "_serve", lambda server, _listener: served.append(server.config))
    run(host=None, port=None, fd=None)
    assert [config.timeout_keep_alive for config in served] == [kept_s]
