"""What `ingest recover` prints, and what it says to a user's mistakes."""

import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from ingest.cli import main, recover
from ingest.receiver.metrics import ReceiverMetrics
from ingest.sources import registry
from ingest.store.pipeline.compaction import Compaction
from ingest.store.reports import possible_losses
from tests.support.github import HOOK, TOKEN, Answer, Github, standing_in
from tests.support.rows import execute, rows
from tests.support.signing import SECRET

SOURCES = """
[hub]
preset = "github"

[hub.recover]
url = "{url}"
hooks = ["{hook}"]
token_env = "HUB_TOKEN"

[elsewhere]
preset = "github"

[shop]
preset = "shopify"
"""
Run = Callable[..., tuple[str, str]]


@pytest.fixture
def github() -> Iterator[Github]:
    with standing_in() as github:
        yield github


@pytest.fixture
def run(
    database_url: str,
    github: Github,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Run]:
    """Runs `ingest recover`; returns what it prints, and its sentence if it fails."""
    monkeypatch.chdir(tmp_path)
    Path("sources.toml").write_text(SOURCES.format(url=github.url, hook=HOOK))
    monkeypatch.setenv("INGEST_SOURCES", "sources.toml")
    monkeypatch.setenv("INGEST_DATABASE_URL", database_url)
    monkeypatch.setenv("INGEST_AWALCHAT_SECRETS", SECRET)
    monkeypatch.setenv("HUB_TOKEN", TOKEN)
    monkeypatch.delenv("GITHUB_TOKEN", raising=False)

    def run(*arguments: str) -> tuple[str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["ingest", "recover", "--rate", "1000", *arguments])
        with pytest.raises(SystemExit) as ended:
            main.main()
        printed = capsys.readouterr()
        assert TOKEN not in printed.out + printed.err + str(ended.value.code)
        return printed.out + printed.err, str(ended.value.code or "")

    yield run
    registry.use({})


def test_it_tells_how_many_failed_are_here_and_were_asked_for(
    run: Run, github: Github, engine: Engine
) -> None:
    for number in range(3):
        github.attempt(f"g-{number}", ago=timedelta(hours=1 + number))
    execute(
        engine,
        "INSERT INTO events (id, source, event_id, type, fingerprint, received_at) VALUES"
        " (gen_random_uuid(), 'hub', 'issues.opened:g-1', 'issues.opened', '', now()),"
        " (gen_random_uuid(), 'elsewhere', 'issues.opened:g-2', 'issues.opened', '', now())",
    )
    told, failure = run("hub", "--dry-run")
    assert "3 deliveries from GitHub failed since" in told
    assert "1 is here already, 2 would be asked for" in told
    assert told.count("503 Service Unavailable") == 2
    assert not failure
    assert not github.redelivered
    told, failure = run("hub", "--since", "150m")
    assert "2 deliveries from GitHub failed since" in told
    assert "1 is here already, 1 was asked for again" in told
    assert not failure
    assert github.redelivered == ["g-0"]


def test_what_no_worker_has_admitted_yet_is_here_too(
    run: Run, github: Github, engine: Engine
) -> None:
    github.attempt("g-0", ago=timedelta(hours=1))
    execute(
        engine,
        "INSERT INTO unadmitted"
        " (delivery, source, event_id, type, fingerprint, received_at, queue, hint_at) VALUES"
        " (gen_random_uuid(), 'hub', 'issues.opened:g-0', 'issues.opened', '', now(), 'q', now())",
    )
    told, failure = run("hub")
    assert "1 is here already, 0 were asked for again" in told
    assert not failure
    assert not github.redelivered


def test_what_is_not_sent_again_is_listed_and_the_others_are_sent(run: Run, github: Github) -> None:
    number = github.attempt("g-1", ago=timedelta(hours=2))
    github.attempt("g-2")
    github.refuses[number] = 422
    told, failure = run("hub")
    assert f"{HOOK}/deliveries/{number}\t503 Service Unavailable\tGitHub answered 422." in told
    assert "0 are here already, 1 was asked for again" in told
    assert failure == "ingest: 1 delivery will not be sent again."
    assert github.redelivered == ["g-2"]
    told, _ = run("hub", "--json")
    document = json.loads(told)
    assert (document["source"], document["failed"], document["asked"]) == ("hub", 2, 1)
    (refused,) = document["refused"]
    assert (refused["delivery"], refused["why"]) == (
        f"{HOOK}/deliveries/{number}",
        "GitHub answered 422.",
    )


def test_what_was_done_before_it_failed_is_told(run: Run, github: Github, engine: Engine) -> None:
    github.attempt("g-1", ago=timedelta(hours=2))
    number = github.attempt("g-2")
    github.refuses[number] = 401
    told, failure = run("hub")
    assert "1 was asked for again" in told
    assert "does not accept the token (401)" in failure
    assert actions(engine) == [("recover in part", "hub", "1 asked for again")]


def test_a_limit_is_waited_for_and_told(run: Run, github: Github) -> None:
    github.attempt("g-1")
    github.instead = [Answer(429, {"Retry-After": "0"})]
    told, failure = run("hub", "--since", "9d")
    assert "GitHub's rate limit is reached: waiting 0 s." in told
    assert "GitHub keeps deliveries for 3 days: older are gone." in told
    assert not failure
    assert github.redelivered == ["g-1"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nobody"], "There is no source nobody"),
        (["shop"], "Shopify cannot be asked to send again. Of these it can be asked: hub, else"),
        (["hub", "--since", "soon"], "'soon' is not a time"),
        (["elsewhere"], "It is not said which webhooks send here: set recover.hooks"),
    ],
)
def test_a_mistake_is_one_sentence(run: Run, arguments: list[str], says: str) -> None:
    told, failure = run(*arguments)
    assert says in failure
    assert not told


def test_a_token_that_is_missing_or_wrong_is_one_sentence(
    run: Run, github: Github, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUB_TOKEN", "wrong")
    assert "does not accept the token (401)" in run("hub")[1]
    monkeypatch.delenv("HUB_TOKEN")
    github.requests.clear()
    assert run("hub")[1] == "ingest: There is no token: set HUB_TOKEN."
    assert not github.requests


@pytest.fixture
def stats(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[], Any]:
    """Runs `ingest stats`; returns what it tells of possible losses."""

    def told() -> Any:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["ingest", "stats", "--json"])
        with pytest.raises(SystemExit):
            main.main()
        losses = json.loads(capsys.readouterr().out).get("possible_losses", [])
        return [(loss["source"], loss["deliveries"]) for loss in losses]

    return told


def lose(engine: Engine, source: str, count: int, ago: timedelta) -> None:
    """A receiver reports deliveries that it refused."""
    metrics = ReceiverMetrics()
    for _ in range(count):
        metrics.count_possible_loss(source)
    with engine.begin() as connection:
        metrics.report(connection)
    execute(
        engine,
        "UPDATE activity SET minute = date_trunc('minute', now() - CAST(:ago AS interval))"
        " WHERE what = 'possible_loss' AND minute > now() - interval '5 min'",
        ago=str(ago),
    )


def actions(engine: Engine) -> list[tuple[str, str, str]]:
    found = rows(engine, "SELECT action, target, reason FROM actions ORDER BY id")
    return [(row["action"], row["target"], row["reason"]) for row in found]


def test_possible_losses_are_told_until_all_of_them_are_recovered(
    run: Run, stats: Callable[[], Any], github: Github, engine: Engine
) -> None:
    lose(engine, "hub", 2, timedelta(hours=1))
    lose(engine, "hub", 1, timedelta(hours=9))
    lose(engine, "hub", 5, timedelta(days=4))  # longer ago than anybody can ask for
    lose(engine, "elsewhere", 1, timedelta(hours=1))
    now = datetime.now(UTC)
    kept = timedelta(hours=2)
    Compaction(keep_minutes=kept, keep_quarters=kept, clock=lambda: 0.0).run(engine, now=now)
    assert stats() == [("elsewhere", 1), ("hub", 3)]
    number = github.attempt("g-1", ago=timedelta(hours=9))
    github.refuses[number] = 422
    github.attempt("g-2")
    run("hub", "--dry-run")
    assert not actions(engine)
    run("hub")
    assert stats() == [("elsewhere", 1), ("hub", 3)]  # one was not sent again
    github.refuses.clear()
    run("hub", "--since", "2h")
    assert stats() == [("elsewhere", 1), ("hub", 3)]  # one may be older
    run("hub")
    assert stats() == [("elsewhere", 1)]
    run("hub", "--since", "1s")
    assert actions(engine) == [
        ("recover in part", "hub", "1 asked for again"),
        ("recover in part", "hub", "1 asked for again"),
        ("recover", "hub", "2 asked for again"),
    ]
    lose(engine, "hub", 1, timedelta(0))
    assert stats() == [("elsewhere", 1), ("hub", 1)]
    with engine.connect() as connection:
        (_, loss) = possible_losses.read(connection, now=now + timedelta(minutes=1))
    assert abs(loss.since - now) < timedelta(minutes=5)


def test_what_is_lost_while_others_are_asked_for_is_told_after_it(
    run: Run,
    stats: Callable[[], Any],
    github: Github,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At one a second, 5,000 take 83 minutes."""

    began = datetime.now(UTC) - timedelta(minutes=83)
    monkeypatch.setattr(recover, "server_time", lambda _connection: began)
    lose(engine, "hub", 7, timedelta(minutes=20))
    github.attempt("g-1", ago=timedelta(hours=2))
    run("hub")
    assert actions(engine) == [("recover", "hub", "1 asked for again")]
    assert stats() == [("hub", 7)]
