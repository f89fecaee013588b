"""The client of GitHub's API, against a stand-in over real HTTP: which deliveries are missed, how
they are asked for, what limits and errors say."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from ingest.recovery import rate_limits, tokens
from ingest.recovery.base import MissedDelivery, RecoveryFailed, RedeliveryRefused
from ingest.recovery.github import GithubApi, GithubHooks
from tests.support.github import HOOK, TOKEN, Answer, Github, standing_in
from tests.support.ports import free_port

NOW = datetime(2026, 1, 20, 10, 30, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


@pytest.fixture
def github() -> Iterator[Github]:
    with standing_in() as github:
        github.now = NOW
        yield github


class Visit:
    """Uses the API, and remembers how long it waited and what it said."""

    def __init__(self, github: Github, **more: object) -> None:
        self.waited: list[float] = []
        self.said: list[str] = []
        options: dict[str, object] = {
            "url": github.url,
            "hooks": (github.hook,),
            "token": lambda now: TOKEN,
            "clock": NOW.timestamp,
            "sleep": self._sleep,
        }
        self.hooks = GithubHooks(**(options | more))  # type: ignore[arg-type]

    async def _sleep(self, seconds: float) -> None:
        self.waited.append(seconds)

    def do(self, use: Callable[[GithubApi], Awaitable[Any]]) -> Any:
        async def connected() -> Any:
            async with self.hooks.connect(say=self.said.append) as api:
                return await use(api)

        return asyncio.run(connected())

    def missed(self, ago: timedelta = DAY) -> list[MissedDelivery]:
        found: list[MissedDelivery] = self.do(lambda api: api.missed(NOW - ago))
        return found


def guids(missed: list[MissedDelivery]) -> list[str]:
    return [dict(delivery.headers)[b"x-github-delivery"].decode() for delivery in missed]


def test_what_failed_and_never_succeeded_is_missed_the_oldest_first(github: Github) -> None:
    github.attempt("failed", 503, ago=3 * HOUR)
    newest = github.attempt("failed twice", 504, ago=HOUR)
    github.attempt("failed twice", 503, ago=2 * HOUR)
    github.attempt("redelivered", 503, ago=5 * HOUR)
    github.attempt("redelivered", 200, ago=4 * HOUR)
    github.attempt("good", 200)
    github.attempt("long ago", 503, ago=DAY + HOUR)
    first, second = missed = Visit(github).missed()
    assert guids(missed) == ["failed", "failed twice"]
    assert first.answered == "503 Service Unavailable"
    assert (second.id, second.answered) == (f"{HOOK}/deliveries/{newest}", "504 timed out")
    assert second.headers[0] == (b"x-github-event", b"issues")
    assert second.fields == {"action": "opened"}


def test_every_page_is_read_up_to_the_time_that_is_asked_for(github: Github) -> None:
    for number in range(250):
        github.attempt(f"g-{number}", 503, ago=timedelta(minutes=number))
    assert len(Visit(github).missed()) == 250
    assert len(github.requests) == 3  # a hundred on a page
    github.requests.clear()
    assert len(Visit(github).missed(timedelta(minutes=49))) == 50
    assert len(github.requests) == 1
    github.page = 7
    assert len(Visit(github).missed(timedelta(minutes=20))) == 21


@pytest.mark.parametrize("hook", ["orgs/acme/hooks/7", "app/hook", HOOK])
def test_the_hook_of_a_repository_an_organisation_or_an_app_is_asked(
    github: Github, hook: str
) -> None:
    github.hook = hook
    github.attempt("g", ago=HOUR)
    visit = Visit(github)
    (delivery,) = visit.missed()
    visit.do(lambda api: api.redeliver(delivery))
    assert github.redelivered == ["g"]
    assert github.requests[-1] == ("POST", f"/{delivery.id}/attempts")


def test_several_hooks_may_send_to_one_source(github: Github) -> None:
    github.attempt("g")
    assert len(Visit(github, hooks=(HOOK, HOOK)).missed()) == 2


@pytest.mark.parametrize(
    ("answer", "waited"),
    [
        (Answer(429, {"Retry-After": "17"}), 17),
        (Answer(403, {"retry-after": "5"}), 5),
        (
            Answer(
                403,
                {
                    "X-RateLimit-Remaining": "0",
                    "X-RateLimit-Reset": str(int(NOW.timestamp()) + 90),
                },
            ),
            91,
        ),
        (Answer(429), 60),
        (Answer(403, body='{"message":"You have exceeded a secondary rate limit."}'), 60),
    ],
)
def test_a_rate_limit_is_obeyed(github: Github, answer: Answer, waited: float) -> None:
    github.attempt("g")
    github.instead = [answer, answer]
    visit = Visit(github)
    assert guids(visit.missed()) == ["g"]
    assert visit.waited == [waited, waited]
    assert visit.said == [f"GitHub's rate limit is reached: waiting {waited} s."] * 2
    (delivery,) = visit.missed()
    github.instead = [answer]
    visit.do(lambda api: api.redeliver(delivery))
    assert len(visit.waited) == 3
    assert github.redelivered == ["g"]


@pytest.mark.parametrize(
    "answers", [[Answer(429, {"Retry-After": "90000"})], [Answer(429)] * 5], ids=["long", "often"]
)
def test_a_limit_that_does_not_end_ends_the_run(github: Github, answers: list[Answer]) -> None:
    github.instead = answers
    with pytest.raises(RecoveryFailed, match="run it again later"):
        Visit(github).missed()


def test_an_answer_that_is_no_limit_is_not_waited_for() -> None:
    remaining = {"X-RateLimit-Remaining": "4999", "X-RateLimit-Reset": "1"}
    assert rate_limits.wait_s(403, remaining, "Resource not accessible", now=0) is None
    assert rate_limits.wait_s(200, {"Retry-After": "5"}, "", now=0) is None


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Answer(401), "does not accept the token"),
        (Answer(403), "needs the permission to write webhooks"),
        (Answer(404), f"knows no webhook {HOOK}"),
        (Answer(302, {"Location": "http://elsewhere.invalid/"}), f"answered 302 for {HOOK}"),
        (Answer(502), f"answered 502 for {HOOK}"),
        (Answer(200, body="<html>"), "is no list of deliveries"),
        (Answer(200, body='[{"id":1}]'), "is no list of deliveries"),
        (
            Answer(
                200,
                body='[{"id":1,"guid":"g","delivered_at":"2026-01-31T12:00:00","status":"OK",'
                '"status_code":200,"event":"push"}]',
            ),
            "is no list of deliveries",
        ),
        (
            Answer(
                200,
                {"Link": '<http://elsewhere.invalid/?cursor=2>; rel="next"'},
                '[{"id":1,"guid":"g","delivered_at":"2999-01-01T00:00:00Z","status":"OK",'
                '"status_code":200,"event":"push"}]',
            ),
            "names another host",
        ),
    ],
)
def test_what_goes_wrong_is_one_sentence_without_the_token(
    github: Github, answer: Answer, says: str
) -> None:
    github.instead = [answer]
    with pytest.raises(RecoveryFailed) as caught:
        Visit(github).missed()
    assert says in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_a_server_that_does_not_answer_is_one_sentence(github: Github) -> None:
    for url, says in (
        (f"http://127.0.0.1:{free_port()}", "127.0.0.1 cannot be reached"),
        ("http://api.invalid", "api.invalid is a host name that does not resolve"),
    ):
        with pytest.raises(RecoveryFailed) as caught:
            Visit(github, url=url).missed()
        assert says in str(caught.value)


def test_without_a_hook_there_is_nobody_to_ask(github: Github) -> None:
    with pytest.raises(RecoveryFailed, match=r"set recover\.hooks"):
        Visit(github, hooks=()).missed()


@pytest.mark.parametrize("status", [404, 422, 500])
def test_a_delivery_that_is_not_sent_again_stops_no_other(github: Github, status: int) -> None:
    github.refuses[github.attempt("g")] = status
    visit = Visit(github)
    (delivery,) = visit.missed()
    with pytest.raises(RedeliveryRefused, match=str(status)):
        visit.do(lambda api: api.redeliver(delivery))


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def test_an_app_speaks_for_itself_with_a_token_signed_by_its_key(key: rsa.RSAPrivateKey) -> None:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    token = tokens.of_app("Iv1.8a61f9b3a7aba766", pem.decode(), now=1_000.9)
    head, claims, signature = token.split(".")
    padded = [part + "=" * (-len(part) % 4) for part in (head, claims, signature)]
    decoded = [base64.urlsafe_b64decode(part) for part in padded]
    assert json.loads(decoded[0]) == {"alg": "RS256", "typ": "JWT"}
    assert json.loads(decoded[1]) == {"iat": 940, "exp": 1540, "iss": "Iv1.8a61f9b3a7aba766"}
    signed = f"{head}.{claims}".encode()
    key.public_key().verify(decoded[2], signed, padding.PKCS1v15(), SHA256())


def test_what_is_no_key_of_an_app_is_a_sentence() -> None:
    with pytest.raises(RecoveryFailed, match="no RSA key in PEM"):
        tokens.of_app("1", "-----BEGIN RSA PRIVATE KEY-----\nx", now=0)


def test_a_token_is_read_from_a_file_or_a_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    monkeypatch.setenv("HUB_TOKEN", "of the environment")
    assert tokens.read("HUB_TOKEN", file) == TOKEN
    assert tokens.read("HUB_TOKEN", None) == "of the environment"
    for variable, path in (("HUB_TOKEN", tmp_path / "none"), ("NO_TOKEN", None), (None, None)):
        with pytest.raises(RecoveryFailed):
            tokens.read(variable, path)


@pytest.mark.parametrize("text", ["two words", "two\nlines", "caf\u00e9"])
def test_a_token_that_no_header_can_hold_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(RecoveryFailed) as caught:
        tokens.plain(text)
    assert text not in str(caught.value)
