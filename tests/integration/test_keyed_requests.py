"""A change with an Idempotency-Key is made once, however often it is sent, and whatever happens."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from starlette.types import ASGIApp

from ingest.console.app import create_app
from ingest.console.auth.identity import Identity
from ingest.console.auth.roles import Role
from ingest.console.services.keyed_requests import KeyedRequest, KeyedRequests
from ingest.errors import KeyInUse, NotFound
from ingest.settings import Settings
from ingest.store import keyed_requests as store
from tests.support.asgi import Answer, ask, running
from tests.support.console import TOKEN, TOKENS
from tests.support.rows import execute, one, rows

NOURA = Identity(name="noura", role=Role.OPERATOR, via="token")
VIEW = {"name": "late orders", "q": "type:order.*"}


@pytest.fixture
def app(engine: Engine, make_settings: Callable[..., Settings]) -> Iterator[ASGIApp]:
    made = create_app(make_settings())
    with running(made):
        yield made


def save(app: ASGIApp, key: str | None, *, token: str | None = None, **view: Any) -> Answer:
    """Save a view, under a key."""
    headers = [("host", "127.0.0.1:8001"), ("content-type", "application/json")]
    headers += [("idempotency-key", key)] if key is not None else []
    headers += [("authorization", f"Bearer {token}")] if token is not None else []
    return ask(app, "POST", "/api/v1/views", headers, json.dumps(VIEW | view).encode())


def error(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json()["error"]


def saved(engine: Engine) -> int:
    """How often the audit log says that a view was saved."""
    number: int = one(engine, "SELECT count(*) FROM actions WHERE action = 'save view'")
    return number


def test_the_same_request_again_gets_the_same_answer(app: ASGIApp, engine: Engine) -> None:
    key = str(uuid4())
    first, again, quoted = save(app, key), save(app, key), save(app, f'"{key}"')
    assert first.status == again.status == quoted.status == HTTPStatus.OK
    assert first.body == again.body == quoted.body
    replayed = [answer.one("idempotency-replayed") for answer in (first, again, quoted)]
    assert replayed == [None, "true", "true"]
    assert saved(engine) == 1
    assert error(save(app, None)) == (409, "name_taken")


def test_a_key_is_for_one_request(app: ASGIApp, engine: Engine) -> None:
    key = str(uuid4())
    assert save(app, key).status == HTTPStatus.OK
    assert error(save(app, key, name="another")) == (422, "idempotency_key_reused")
    assert saved(engine) == 1


def test_the_same_key_of_another_author_is_another_key(
    app: ASGIApp, engine: Engine, make_settings: Callable[..., Settings]
) -> None:
    named, key = create_app(make_settings(console_tokens=TOKENS)), str(uuid4())
    with running(named):
        assert save(named, key, token=TOKEN).status == HTTPStatus.OK
    assert save(app, key, name="another").status == HTTPStatus.OK
    assert saved(engine) == 2


def test_of_many_at_once_one_acts(app: ASGIApp, engine: Engine) -> None:
    key = str(uuid4())
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: save(app, key), range(16)))
    done = [answer for answer in answers if answer.status == HTTPStatus.OK]
    assert len([answer for answer in done if answer.one("idempotency-replayed") is None]) == 1
    assert len({answer.body for answer in done}) == 1
    others = {error(answer) for answer in answers if answer.status != HTTPStatus.OK}
    assert others <= {(409, "idempotency_key_in_use")}
    assert saved(engine) == 1


def test_what_was_refused_can_be_sent_again_under_its_key(app: ASGIApp, engine: Engine) -> None:
    key = str(uuid4())
    first = save(app, None)
    assert error(save(app, key)) == (409, "name_taken")
    assert error(save(app, key, q="stat:x")) == (400, "bad_query")
    execute(engine, "DELETE FROM views WHERE id = :id", id=first.json()["id"])
    assert save(app, key).one("idempotency-replayed") is None
    assert saved(engine) == 2


def test_a_request_whose_console_was_killed_is_not_done_again(engine: Engine) -> None:
    """It may have been done: that is for a person to see."""
    key = str(uuid4())

    class Killed(BaseException):
        pass

    def killed() -> bytes:
        raise Killed

    with pytest.raises(Killed):
        keyed(engine).answer(request(key), killed)
    with pytest.raises(KeyInUse, match="see in the audit log whether the change was made"):
        keyed(engine).answer(request(key), lambda: b"done twice")


def keyed(engine: Engine) -> KeyedRequests:
    return KeyedRequests(engine, random=lambda size: b"r" * size)


def request(key: str, content: bytes = b"POST /events/1/replay") -> KeyedRequest:
    return KeyedRequest(by=NOURA, key=key, content=content)


def broken(sqlstate: str | None) -> OperationalError:
    return OperationalError("", {}, type("Of", (Exception,), {"sqlstate": sqlstate})())


RAISED: dict[str, tuple[Exception, bool]] = {
    "refused": (NotFound("There is no such event.", reason="not_found"), True),
    "rolled back": (broken("55P03"), True),
    "the connection broke": (broken(None), False),
    "a bug": (RuntimeError("a bug"), False),
}


def test_a_key_is_given_back_only_if_nothing_was_changed(engine: Engine) -> None:
    given_back = {}
    for name, (raised, _) in RAISED.items():
        key = str(uuid4())

        def fails(raised: Exception = raised) -> bytes:
            raise raised

        with pytest.raises(type(raised)):
            keyed(engine).answer(request(key), fails)
        try:
            given_back[name] = (
                keyed(engine).answer(request(key), lambda: b"done").content == b"done"
            )
        except KeyInUse:
            given_back[name] = False
    assert given_back == {name: is_sure for name, (_, is_sure) in RAISED.items()}


def test_nothing_can_be_read_without_the_key(app: ASGIApp, engine: Engine) -> None:
    key, phone = str(uuid4()), "966512345678"
    assert save(app, key, q=f"phone:{phone}").status == HTTPStatus.OK
    (row,) = rows(engine, "SELECT * FROM keyed_requests")
    stored = b"".join(
        bytes(value) for value in row.values() if isinstance(value, bytes | memoryview)
    )
    assert len(stored) > 100
    assert not [text for text in (key, phone, "late orders", "local") if text.encode() in stored]


def test_a_key_is_forgotten_after_a_day_and_so_are_too_many(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [str(uuid4()) for _ in range(4)]
    for key in keys:
        keyed(engine).answer(request(key), lambda: b"first")
    age = "UPDATE keyed_requests SET began_at = now() - CAST(:ago AS interval) WHERE key = :key"
    execute(engine, age, ago="24 hours 1 minute", key=request(keys[0]).digest)
    execute(engine, age, ago="23 hours 59 minutes", key=request(keys[1]).digest)
    assert keyed(engine).answer(request(keys[0], b"another"), lambda: b"new").content == b"new"
    assert keyed(engine).answer(request(keys[1]), lambda: b"new").content == b"first"
    execute(engine, age, ago="24 hours 1 minute", key=request(keys[0]).digest)
    forget(engine)
    assert one(engine, "SELECT count(*) FROM keyed_requests") == 3
    monkeypatch.setattr(store, "MOST", 2)
    forget(engine)
    left = {bytes(row["key"]) for row in rows(engine, "SELECT key FROM keyed_requests")}
    assert left == {request(key).digest for key in keys[2:]}


def forget(engine: Engine) -> None:
    with engine.begin() as connection:
        store.forget(connection)


def test_a_key_of_another_form_is_refused(app: ASGIApp, engine: Engine) -> None:
    for key in ("short", "with space in it", "a" * 201, "ümlaut-ümlaut"):
        assert error(save(app, key)) == (400, "bad_idempotency_key")
    assert saved(engine) == 0


def test_a_read_takes_no_key(app: ASGIApp, engine: Engine) -> None:
    headers = [("host", "127.0.0.1:8001"), ("idempotency-key", str(uuid4()))]
    assert ask(app, "GET", "/api/v1/views", headers).status == HTTPStatus.OK
    assert one(engine, "SELECT count(*) FROM keyed_requests") == 0
